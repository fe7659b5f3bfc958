"""A client of hosts: the wire contract of `chimera_host.contract.call` over one pool of kept-alive connections.

What can go wrong is told apart by what it means for a retry: never reached (`HostUnreachable`), gone in the middle
(`HostDied`), or answered with a problem (`RemoteProblem`). Leaving a request early closes its connection, which
cancels the call in the host.
"""

from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from chimera.gateway.errors import HostFailed
from chimera.platform.model import Endpoint
from chimera_host.contract.call import (
    ENCODER,
    HEADER_TRACEPARENT,
    RESPONSE_DECODER,
    InvokeRequest,
    InvokeResponse,
    LoadedReport,
    LoadRequest,
)
from chimera_host.contract.problem import Problem, RemoteProblem

CONNECT_TIMEOUT = 5.0
KEEPALIVE = 30.0
MAX_EVENT = 16 * 1024**2
PROXY_FAILED, NO_CONNECTION = 502, b"connection refused"
SILENCE = 50.0
"""A host comments on a silent stream every 15 s; three missed comments and it is gone."""

Sink = Callable[[bytes, bytes], Awaitable[None]]
"""Takes an event of a stream: its name and its data."""

UNCOUNTED = {"K-Proxy-Request": "activator"}
"""In a pod, queue-proxy takes such a request for one that the activator counts, and its autoscaler leaves it out."""
ASIDE = aiohttp.ClientTimeout(total=30.0, sock_connect=CONNECT_TIMEOUT)

_reports = msgspec.json.Decoder(LoadedReport)
_problems = msgspec.json.Decoder(Problem)


class HostGone(Exception):
    """The host did not answer."""


class HostUnreachable(HostGone):
    """No connection: the host has not seen the call."""


class HostDied(HostGone):
    """The connection broke before the answer was whole; `spoke` if a part of it had come."""

    def __init__(self, detail: str, *, spoke: bool) -> None:
        """Keep how it broke."""
        super().__init__(detail)
        self.spoke = spoke


class HostClient:
    """Calls hosts. Made inside the event loop; `aclose` when done."""

    def __init__(self) -> None:
        """Open no connection yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ttl_dns_cache=300),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
            auto_decompress=False,
            read_bufsize=256 * 1024,
        )
        self._streaming = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=SILENCE)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def invoke(self, host: Endpoint, request: InvokeRequest, traceparent: str) -> InvokeResponse:
        """One call, whole."""
        try:
            async with self._session.post(
                f"{host.url}/v1/invoke", data=ENCODER.encode(request), headers=_headers(host, traceparent)
            ) as answer:
                body = await answer.read()
                if answer.status != 200:
                    raise _refusal(answer.status, body, host)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise _gone(error, spoke=False) from error
        return _decode_answer(host, body)

    async def loaded(self, host: Endpoint) -> LoadedReport:
        """What a host has loaded, and it counts as no call."""
        try:
            async with self._session.get(
                f"{host.url}/v1/loaded", headers={**_headers(host, ""), **UNCOUNTED}, timeout=ASIDE
            ) as answer:
                body = await answer.read()
                if answer.status != 200:
                    raise _refusal(answer.status, body, host)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise _gone(error, spoke=False) from error
        try:
            return _reports.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _not_understood(host, error) from error

    async def load(self, host: Endpoint, request: LoadRequest) -> None:
        """Have an agent loaded on a host before its first call there."""
        try:
            async with self._session.post(
                f"{host.url}/v1/load",
                data=ENCODER.encode(request),
                headers={**_headers(host, ""), **UNCOUNTED},
                timeout=ASIDE,
            ) as answer:
                body = await answer.read()
                if answer.status != 204:
                    raise _refusal(answer.status, body, host)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise _gone(error, spoke=False) from error

    async def stream(self, host: Endpoint, request: InvokeRequest, traceparent: str, sink: Sink) -> InvokeResponse:
        """One call, each event but the last given to `sink`; comments are left out."""
        spoke = False
        headers = _headers(host, traceparent)
        data = ENCODER.encode(request)
        try:
            async with self._session.post(
                f"{host.url}/v1/invoke", data=data, headers=headers, timeout=self._streaming
            ) as answer:
                if answer.status != 200:
                    raise _refusal(answer.status, await answer.read(), host)
                buffer = bytearray()
                async for piece in answer.content.iter_any():
                    buffer += piece
                    while (end := buffer.find(b"\n\n")) >= 0:
                        name, payload = split_event(bytes(buffer[:end]))
                        del buffer[: end + 2]
                        if name == b"done":
                            return _decode_answer(host, payload)
                        if name == b"error":
                            raise _refusal(502, payload, host)
                        if name:
                            spoke = True
                            await _give(sink, name, payload)
                    if len(buffer) > MAX_EVENT:
                        raise _not_understood(host, ValueError(f"an event of more than {MAX_EVENT} bytes"))
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise _gone(error, spoke=spoke) from error
        raise HostDied("the stream ended without a last event", spoke=spoke)


class SinkClosed(Exception):
    """Whoever reads the stream is gone or takes nothing any more."""


async def _give(sink: Sink, name: bytes, data: bytes) -> None:
    """Pass on an event; the reader's troubles must not be taken for the host's."""
    try:
        await sink(name, data)
    except (ConnectionError, TimeoutError) as error:
        raise SinkClosed(str(error)) from error


def split_event(block: bytes) -> tuple[bytes, bytes]:
    """Name and data of one server-sent event; empty for a comment."""
    name = data = b""
    for line in block.split(b"\n"):
        if line.startswith(b"event:"):
            name = line[6:].strip()
        elif line.startswith(b"data:"):
            data = line[5:].strip()
    return name, data


def _decode_answer(host: Endpoint, data: bytes) -> InvokeResponse:
    try:
        return RESPONSE_DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _not_understood(host, error) from error


def _headers(host: Endpoint, traceparent: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {host.key}",
        "Content-Type": "application/json",
        HEADER_TRACEPARENT: traceparent,
    }


def _gone(error: Exception, *, spoke: bool) -> HostGone:
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return HostUnreachable(str(error))
    return HostDied(f"{type(error).__name__}: {error}", spoke=spoke)


def _refusal(status: int, body: bytes, host: Endpoint) -> Exception:
    try:
        return RemoteProblem(_problems.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if status == PROXY_FAILED:
            # In a pod, a proxy answers for a host that doesn't: it had no connection, or lost it before the answer.
            said = body[:300].decode(errors="replace").strip()
            return HostUnreachable(said) if NO_CONNECTION in body else HostDied(said, spoke=False)
        return _not_understood(host, ValueError(f"status {status}"))


def _not_understood(host: Endpoint, error: Exception) -> HostFailed:
    return HostFailed(
        f"host {host.host} answered what is not of the contract: {error}",
        next_step="run the same release of the host and of the platform",
    )
