"""A gateway's listeners: they end apart from each other, and within one deadline.

aiohttp's runner closes them with a time-out of its own for each, which it waits for twice where a handler doesn't heed
it, and drops what still arrives of a request's body. So the waiting is done here, and the runner is left what remains.
"""

import asyncio

from aiohttp import web

from chimera.entrypoints.gateway.http import BoundedServer

CUT = 0.1
"""How long what is cancelled has to end. Not 0, which is no time-out for aiohttp."""


class Listener:
    """A server and where it listens."""

    def __init__(self, server: BoundedServer) -> None:
        """Listen nowhere yet."""
        self._server = server
        self.runner = web.ServerRunner(server, shutdown_timeout=CUT)

    def leave(self) -> None:
        """Go on, but have whoever keeps a connection make the next one, which may lead elsewhere."""
        self._server.leave()

    async def end(self, until: float) -> None:
        """Take no new connection, let what is asked be answered until then (the loop's time), and end the rest."""
        for site in self.runner.sites:
            await site.stop()
        await asyncio.sleep(0)  # what has arrived has begun to be answered
        try:
            async with asyncio.timeout_at(until):
                await self._server.finish()
        except TimeoutError:
            pass
        await self.runner.cleanup()
