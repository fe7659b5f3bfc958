"""Passing requests on to another process of the platform, streamed both ways.

It is reached over its Unix socket, or over TCP with a key that both hold. The caller's credential is checked before and
not passed on; who called is said in `Chimera-Principal`. After a change of the
catalogue the gateway catches up with it before the caller hears of it, so that the next call finds what was applied.

Each request is passed on once. Where the answer to one that may change something is lost, the caller is told that
nobody knows whether it did.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from yarl import URL

from chimera.entrypoints.gateway.http import HEADER_REQUEST, broken_body, check_encoding, principal_of, slow_body
from chimera.entrypoints.published.parameters import HEADER_KEY
from chimera.gateway.errors import GatewayError, InvalidRequest, PayloadTooLarge
from chimera.gateway.identity.principal import encode_header
from chimera.gateway.routes import RouteTable
from chimera_host.sending import AnswerLost, sent_once

HEADER_SEQUENCE = "Chimera-Sequence"
HEADER_PRINCIPAL = "Chimera-Principal"

GONE = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ConnectionTimeoutError, AnswerLost)
"""It isn't there, or went away in the middle (`ClientConnectorError` is a `ClientOSError`)."""
UNSURE = "it went away before its answer, so it is not known whether it did what was asked"
_PASSED_ON = ("Accept", "Content-Type", HEADER_KEY, "traceparent", "tracestate")
_NOT_PASSED_BACK = frozenset({"connection", "keep-alive", "server", "date", "transfer-encoding", "set-cookie"})


class Proxy:
    """Passes requests on to one process. Made inside the event loop; `aclose` when done."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        away: Callable[[], GatewayError],
        routes: RouteTable | None,
        most_bytes: int,
        patience: float,
    ) -> None:
        """Reach it at `address`, a Unix socket's path or an http URL; raise what `away` makes while it isn't there.

        `key` is shown there. A body has at most `most_bytes` and pauses for at most `patience` seconds.
        """
        self._patience = patience
        self._away = away
        self._routes = routes
        self._most = most_bytes
        connector: aiohttp.BaseConnector
        if address.startswith("http://"):
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0, ttl_dns_cache=10)
            self._base = URL(address)
        else:
            connector = aiohttp.UnixConnector(address, limit=0, keepalive_timeout=30.0)
            self._base = URL("http://platform")
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {key}"} if key is not None else None,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
            auto_decompress=False,
            middlewares=(sent_once,),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def pass_on(self, request: web.BaseRequest, request_id: str, path: str) -> web.StreamResponse:
        """The other process's answer to `request`, asked at its encoded `path` with the request's query."""
        check_encoding(request)
        length = request.content_length
        if (length or 0) > self._most:
            raise _too_large(self._most)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        for name, value in headers.items():
            if not value.isascii():
                raise InvalidRequest(f"the header {name} is not ASCII: {value[:100]!r}", next_step="send it in ASCII")
        headers[HEADER_PRINCIPAL] = encode_header(principal_of(request))
        headers[HEADER_REQUEST] = request_id
        data = None
        if request.can_read_body:
            data = _Body(request, self._most, self._patience)
            if length is not None:
                headers["Content-Length"] = str(length)
        try:
            sent = self._session.request(
                request.method,
                URL.build(
                    scheme="http",
                    host=self._base.host or "",
                    port=self._base.port,
                    path=path,
                    query_string=request.rel_url.raw_query_string,
                    encoded=True,
                ),
                data=data,
                headers=headers,
                allow_redirects=False,
            )
            async with sent as answer:
                return await self._pass_back(request, request_id, answer)
        except (aiohttp.ClientError, web.PayloadAccessError, GatewayError, TimeoutError) as error:
            if data is not None and data.fault is not None:
                raise data.fault from None
            if isinstance(error, GONE):
                away = self._away()
                if isinstance(error, AnswerLost):
                    away.detail, away.retry_after = f"{away.detail}: {UNSURE}", None
                raise away from error
            raise

    async def _pass_back(
        self, request: web.BaseRequest, request_id: str, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        sequence = answer.headers.get(HEADER_SEQUENCE, "")
        if self._routes is not None and sequence.isdecimal():
            await self._routes.at_least(int(sequence))
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_BACK}
        headers[HEADER_REQUEST] = request_id
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


class _Body:
    """A request's body on its way through; `fault` is what is wrong with it, which the client's own error hides."""

    def __init__(self, request: web.BaseRequest, most: int, patience: float) -> None:
        self._content = request.content
        self._most = most
        self._patience = patience
        self.fault: GatewayError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        while not self._content.at_eof():
            try:
                async with asyncio.timeout(self._patience):
                    piece = await self._content.readany()
            except web.RequestPayloadError as error:
                self.fault = broken_body(error)
                raise
            except TimeoutError:
                self.fault = slow_body(self._patience)
                raise
            sent += len(piece)
            if sent > self._most:
                self.fault = _too_large(self._most)
                raise self.fault
            yield piece


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is larger than {most} bytes",
        next_step="send it in smaller pieces, or raise the setting http.proxied_body_bytes",
    )
