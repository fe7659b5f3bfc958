"""A port of this machine that leads to a port of a pod, through the API server: what `kubectl port-forward` does.

So a test reaches what runs in a cluster, wherever the cluster is. Each connection is a WebSocket of the subprotocol
`v4.channel.k8s.io`: the first byte of a message is its channel, 0 for data and 1 for errors, and the first message of
each channel repeats the port.
"""

import asyncio
from contextlib import suppress
from typing import Self

import aiohttp

from chimera.adapters.substrates.knative.access import ClusterAccess

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
PIECE = 32 * 1024


class Forwarding:
    """Use as an asynchronous context manager; `port` is the local one. `pod` may be changed at any time."""

    def __init__(self, access: ClusterAccess, namespace: str, pod: str, target: int) -> None:
        """Lead to port `target` of `pod`."""
        self.pod = pod
        self.port = 0
        self.errors: list[str] = []
        self._access = access
        self._namespace = namespace
        self._target = target
        self._server: asyncio.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        tls = self._access.tls if self._access.tls is not None else True
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls))
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and cut what runs."""
        if self._server is not None:
            self._server.close()
        for relay in tuple(self._relays):
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)
        try:
            await self._relay(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's own callback takes a cancelled task for a fault
        except (aiohttp.ClientError, OSError) as error:
            self.errors.append(str(error))
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._session is not None
        path = f"/api/v1/namespaces/{self._namespace}/pods/{self.pod}/portforward"
        shown = await self._access.credentials.header()
        async with self._session.ws_connect(
            self._access.server + path,
            params={"ports": str(self._target)},
            protocols=(PROTOCOL,),
            headers={"Authorization": shown} if shown else None,
            max_msg_size=0,
        ) as socket:

            async def out() -> None:
                while piece := await reader.read(PIECE):
                    await socket.send_bytes(bytes([DATA]) + piece)
                await socket.close()

            sending = asyncio.create_task(out(), name="forward-out")
            begun = {DATA: False, ERROR: False}
            try:
                async for message in socket:
                    channel, data = message.data[0], message.data[1:]
                    if not begun[channel]:
                        begun[channel], data = True, data[2:]
                    if channel == ERROR and data:
                        self.errors.append(data.decode(errors="replace"))
                    elif data:
                        writer.write(data)
                        await writer.drain()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
