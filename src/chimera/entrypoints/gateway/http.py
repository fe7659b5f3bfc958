"""What both listeners of the gateway share: a bounded server, bodies in time and size, problems as answers.

The handlers sit on aiohttp's low-level server, without its router and middleware, since every call of every agent
passes here. Limits that aiohttp leaves open are set here: connections at once, and the time until a new connection has
sent a request.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from chimera.entrypoints.published.operation import JSON
from chimera.gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from chimera.gateway.identity.principal import Principal
from chimera.gateway.settings import HttpSettings
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError

log = logging.getLogger(__name__)

HEADER_REQUEST = "X-Request-Id"
PRINCIPAL = web.RequestKey("chimera.principal", Principal)
ENCODER = msgspec.json.Encoder()

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Protocol = web.RequestHandler


class _Connection(web.RequestHandler):
    """One connection; what isn't HTTP is answered with a problem document too."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer an error that HTTP's reader found, or one that left a handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        error: GatewayError
        if status < 500:
            said = (message or "it can't be read").partition("\n")[0].strip(" :")
            error = InvalidRequest(f"this is not an HTTP request: {said[:200]!r}", next_step="send HTTP/1.1")
        else:
            error = internal_error(exc if isinstance(exc, Exception) else RuntimeError(message or "no answer"))
        response = problem_response(error, request=None)
        response.force_close()
        return response


class BoundedServer(web.Server):
    """An aiohttp server with a limit on connections, and on the time a new one may stay silent, that ends in order."""

    def __init__(self, handle: Handle, *, settings: HttpSettings, body_bytes: int) -> None:
        """Answer by `handle`; a body may have `body_bytes`."""
        self._running = asyncio.get_running_loop()
        self._settings = settings
        self._body_bytes = body_bytes
        self._open = 0
        self._silent: dict[Protocol, asyncio.TimerHandle] = {}
        self._handle = handle
        self._asked: set[Protocol] = set()
        self._quiet = asyncio.Event()
        self._leaving = False
        self._options: dict[str, Any] = {
            "keepalive_timeout": settings.keepalive,
            "access_log": None,
            "lingering_time": 1.0,
            "auto_decompress": False,
        }
        super().__init__(self._answer, request_factory=self._request, handler_cancellation=True)

    def __call__(self) -> Protocol:
        """A connection."""
        return _Connection(self, loop=self._running, **self._options)

    def connection_made(self, handler: Protocol, transport: asyncio.Transport) -> None:
        """Count it; one too many is closed at once."""
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._settings.connections:
            transport.abort()
        else:
            self._silent[handler] = self._running.call_later(self._settings.header_timeout, transport.abort)

    def connection_lost(self, handler: Protocol, exc: BaseException | None = None) -> None:
        """Count it."""
        super().connection_lost(handler, exc)
        self._open -= 1
        self._has_spoken(handler)

    def leave(self) -> None:
        """Close each connection with its answer from now on, and say so in those that haven't begun."""
        self._leaving = True

    async def finish(self) -> None:
        """Close connections that ask for nothing, and wait for the others to be answered."""
        self.leave()
        for connection in self.connections:
            if connection not in self._asked:
                connection.close()
        # A connection that is closed takes no more of its request, so this waits until bodies are there, too.
        while self._asked:
            self._quiet.clear()
            await self._quiet.wait()
        await self.shutdown(None)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self._asked.add(connection)
        try:
            response = await self._handle(request)
        finally:
            self._asked.discard(connection)
            self._quiet.set()
        if self._leaving:
            response.force_close()
        return response

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        self._has_spoken(protocol)
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._running, client_max_size=self._body_bytes
        )

    def _has_spoken(self, handler: Protocol) -> None:
        if (timer := self._silent.pop(handler, None)) is not None:
            timer.cancel()


async def read_body(request: web.BaseRequest, settings: HttpSettings, most: int) -> bytes:
    """The whole body, within its size and time."""
    if (request.content_length or 0) > most:
        raise _too_large(most)
    check_encoding(request)
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(settings.body_timeout):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(most) from None
    except web.RequestPayloadError as error:
        raise broken_body(error) from None
    except TimeoutError:
        raise slow_body(settings.body_timeout) from None


def broken_body(error: Exception) -> InvalidRequest:
    """What is said of a body whose pieces can't be told apart, or that ends before its length."""
    return InvalidRequest(f"the body can't be read: {str(error)[:200]!r}", next_step="send all of it, as HTTP/1.1 says")


def slow_body(seconds: float) -> InvalidRequest:
    """What is said of a body that takes too long."""
    return InvalidRequest(f"the body did not arrive within {seconds:.0f} s", next_step="send it faster, or less")


def check_json(request: web.BaseRequest) -> None:
    """Raise `UnsupportedMediaType` unless the body may be JSON: said so, or not said at all."""
    said = request.headers.get("Content-Type")
    kind = (said or JSON).partition(";")[0].strip().lower()
    if request.can_read_body and kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise UnsupportedMediaType(
            f"the body is of the kind {kind[:100]!r}", next_step=f"send JSON, with `Content-Type: {JSON}`"
        )


def check_encoding(request: web.BaseRequest) -> None:
    """Raise `UnsupportedMediaType` for a compressed body: its size could not be bounded before it is read."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("the body is compressed", next_step="send it as it is, without Content-Encoding")


def decoded(decoder: "msgspec.json.Decoder[Any]", data: bytes) -> Any:
    """The body as `decoder`'s type; a fault says where."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"the body is not what is expected here: {error}", next_step="see GET /openapi.json for the body's fields"
        ) from error


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`value` as JSON."""
    return web.Response(body=ENCODER.encode(value), status=status, content_type="application/json", headers=headers)


def problem_response(error: ProblemError, *, request: str | None, openai: bool = False) -> web.Response:
    """A problem document; for OpenAI's clients with the `error` object that they look for."""
    headers = {"Content-Type": PROBLEM_MEDIA_TYPE}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allow
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    document = error.problem(request=request)
    body: Any = document
    if openai:
        body = {**msgspec.to_builtins(document), "error": openai_error(error)}
    return web.Response(body=ENCODER.encode(body), status=error.status, headers=headers)


def openai_error(error: ProblemError) -> dict[str, Any]:
    """The problem as OpenAI's API says it."""
    message = error.detail if error.next_step is None else f"{error.detail} ({error.next_step})"
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"message": message, "type": kind, "param": None, "code": error.code}


def request_id(request: web.BaseRequest) -> str:
    """The id that the caller gave its request, or one made here."""
    given = request.headers.get(HEADER_REQUEST)
    if given is not None and _REQUEST_ID.fullmatch(given) is not None:
        return given
    return new_id("req")


def principal_of(request: web.BaseRequest) -> Principal:
    """Who asks, as the public listener authenticated it before any handler saw the request."""
    return request[PRINCIPAL]


def internal_error(error: Exception) -> GatewayError:
    """What a caller is told of an error nobody foresaw; the log has it whole."""
    log.error("request failed", exc_info=error)
    return GatewayError(f"the gateway failed: {type(error).__name__}", next_step="see `chimera logs --process gateway`")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the body is larger than {most} bytes", next_step="send less, or raise the setting http.body_bytes"
    )
