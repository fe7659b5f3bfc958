"""A server between a client and another server, which loses answers: the request is served, and nobody hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_PIECE = 65_536


class LosingServer:
    """Passes bytes on both ways; the answers to `times` requests that begin with `begins` are lost with the connection.

    Requests are told apart where each comes in a piece of its own, as small ones do.
    """

    def __init__(self, url: str, begins: bytes, times: int) -> None:
        """Pass on to the server at `url`."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._begins = begins
        self._times = times
        self.lost = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there, back = await asyncio.open_connection(self._host, self._port)
        losing = asyncio.Event()
        answers = asyncio.create_task(self._answers(there, writer, losing), name="answers")
        try:
            while data := await reader.read(_PIECE):
                if data.startswith(self._begins) and self.lost < self._times:
                    losing.set()
                back.write(data)
                await back.drain()
        except ConnectionError:
            pass
        finally:
            back.close()
            await asyncio.gather(answers, return_exceptions=True)
            writer.close()

    async def _answers(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await there.read(_PIECE):
                if losing.is_set():
                    self.lost += 1
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def losing_answers(url: str, begins: bytes, times: int) -> AsyncIterator[LosingServer]:
    """Such a server on loopback."""
    losing = LosingServer(url, begins, times)
    server = await asyncio.start_server(losing.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    losing.url = f"http://{host}:{port}"
    try:
        yield losing
    finally:
        server.close()
