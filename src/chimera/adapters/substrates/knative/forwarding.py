"""A port of this machine that leads to a pod, through the API server: what `kubectl port-forward` does.

So whoever may use the cluster's API reaches the platform, wherever the cluster is and whatever stands in front of it.
(The API server's proxy of services would need no protocol of its own, but takes the caller's Authorization header for
itself.) Each connection is a WebSocket of the subprotocol `v4.channel.k8s.io`: the first byte of a message is its
channel, 0 for data and 1 for errors, and the first message of each channel repeats the port.

A pod that is gone, or refuses, is changed for another one; a connection that was open breaks, as it would with any
balancer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

import aiohttp

from chimera.adapters.substrates.knative.access import ClusterAccess
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterAway, ClusterError
from chimera.adapters.substrates.knative.pods import READY, SEEN_PODS, phase

log = logging.getLogger(__name__)

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
PIECE = 32 * 1024
TRIES = 2

Choose = Callable[[], Awaitable[str]]
"""The pod to lead to, by name; raises `ClusterError` where there is none."""


def any_ready(api: Kubernetes, namespace: str, selector: str) -> Choose:
    """Chooses the first ready pod that matches."""

    async def choose() -> str:
        listing = await api.list(SEEN_PODS, namespace, selector)
        ready = sorted(one.metadata.name for one in listing.items if phase(one) == READY)
        if not ready:
            raise ClusterAway(
                f"no pod of {selector} in namespace {namespace} is ready",
                next_step=f"see `kubectl -n {namespace} get pods`",
                retry_after=2,
            )
        return ready[0]

    return choose


class Forwarding:
    """Use as an asynchronous context manager; `port` is the local one. `errors` are the newest that were met."""

    def __init__(self, access: ClusterAccess, namespace: str, choose: Choose, target: int) -> None:
        """Lead to port `target` of the pod that `choose` names."""
        self.port = 0
        self._access = access
        self._namespace = namespace
        self._choose = choose
        self._target = target
        self._pod = ""
        self._choosing = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._session: aiohttp.ClientSession | None = None
        self._relays: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        return await self.listen(0)

    async def listen(self, port: int) -> Self:
        """Listen on `port` of 127.0.0.1."""
        tls = self._access.tls if self._access.tls is not None else True
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=tls))
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port, backlog=256)
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
            await self._connect(reader, writer)
        except asyncio.CancelledError:
            pass  # it is over; asyncio's own callback takes a cancelled task for a fault
        except (aiohttp.ClientError, ClusterError, OSError) as error:
            log.warning("a connection was not forwarded", extra={"pod": self._pod, "problem": str(error)})
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for attempt in range(TRIES):
            pod = await self._the_pod()
            try:
                socket = await self._opened(pod)
            except aiohttp.WSServerHandshakeError:
                self._leave(pod)
                if attempt == TRIES - 1:
                    raise
                continue
            async with socket:
                await self._relay(pod, socket, reader, writer)
            return

    async def _the_pod(self) -> str:
        async with self._choosing:
            if not self._pod:
                self._pod = await self._choose()
            return self._pod

    def _leave(self, pod: str) -> None:
        if self._pod == pod:
            self._pod = ""

    async def _opened(self, pod: str) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}/portforward"
        shown = await self._access.credentials.header()
        try:
            return await self._session.ws_connect(
                self._access.server + path,
                params={"ports": str(self._target)},
                protocols=(PROTOCOL,),
                headers={"Authorization": shown} if shown else None,
                max_msg_size=0,
                server_hostname=self._access.server_name,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401 and shown is not None:
                self._access.credentials.refused(shown)  # the next try shows another one, where there is one
            raise

    async def _relay(
        self,
        pod: str,
        socket: aiohttp.ClientWebSocketResponse,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
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
                    self._leave(pod)
                    log.warning("a pod refuses", extra={"pod": pod, "problem": data.decode(errors="replace")})
                elif data:
                    writer.write(data)
                    await writer.drain()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
