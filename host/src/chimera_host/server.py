"""The host's HTTP side: the contract of `chimera_host.contract.call`, and the probes of the container contract.

A handler on aiohttp's low-level server, without router or middleware: six paths, one key, one decoded structure per
call. Closing the connection cancels the call. A stream says something at least every fifteen seconds, and ends when its
reader takes nothing, or its agent says nothing, for too long.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from chimera_host.calls import Call
from chimera_host.contract.call import ENCODER, HEADER_TRACEPARENT, LOAD_DECODER, REQUEST_DECODER, InvokeRequest
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError
from chimera_host.errors import (
    CallCancelled,
    CallTooLarge,
    DeadlineExceeded,
    HostError,
    InvalidCall,
    NothingHere,
    WrongKey,
)
from chimera_host.host import Host
from chimera_host.metrics import MEDIA_TYPE
from chimera_host.streaming import COMMENT, EventQueue, event
from chimera_host.trace import parse

log = logging.getLogger(__name__)

COMMENT_EVERY = 15.0
BODY_TIMEOUT = 30.0
KEEPALIVE = 75.0
MOST_REPORTED = 1_000
CALLS = "/v1/calls/"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server:
    """Answers requests for one host."""

    def __init__(self, host: Host) -> None:
        """Serve `host`, to whoever shows its key."""
        self._host = host
        self._key = f"Bearer {host.config.host_key}".encode()
        self._open: dict[str, Handler] = {"/livez": self._livez, "/readyz": self._readyz}
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/invoke"): self._invoke,
            ("GET", "/v1/loaded"): self._loaded,
            ("POST", "/v1/load"): self._load,
            ("GET", "/metrics"): self._metrics,
        }

    def make(self) -> web.Server:
        """The server for aiohttp's runner."""
        limit = self._host.config.max_body_bytes
        loop = asyncio.get_running_loop()

        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limit)

        return web.Server(
            self.handle,
            request_factory=request,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE,
            access_log=None,
            lingering_time=1.0,
            auto_decompress=False,
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, with a problem document if anything is wrong."""
        try:
            path = request.path
            if (probe := self._open.get(path)) is not None:
                return await probe(request)
            shown = request.headers.get("Authorization", "")
            if not hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._key):
                raise WrongKey("the request doesn't show this host's key", next_step="call agents through the gateway")
            if (handler := self._routes.get((request.method, path))) is not None:
                return await handler(request)
            if request.method == "DELETE" and path.startswith(CALLS):
                return self._cancel(path.removeprefix(CALLS))
            raise NothingHere(f"a host has no {request.method} {path}")
        except ProblemError as error:
            return _problem(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("request failed")
            return _problem(HostError(f"the host failed: {type(error).__name__}", next_step="see the host's log"))

    # -- calls ----------------------------------------------------------------------------------------------------

    async def _invoke(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = _decode(await self._body(request))
        trace = parse(request.headers.get(HEADER_TRACEPARENT))
        if asked.stream:
            return await self._stream(request, asked, EventQueue())
        call = self._host.begin(asked, trace, None)
        try:
            answer = await call.answer
        except asyncio.CancelledError:
            self._caller_left(call)
            raise
        except ProblemError as error:
            return _problem(error, call.request.call)
        return web.Response(body=ENCODER.encode(answer), content_type="application/json")

    async def _stream(self, request: web.BaseRequest, asked: InvokeRequest, events: EventQueue) -> web.StreamResponse:
        call = self._host.begin(asked, parse(request.headers.get(HEADER_TRACEPARENT)), events)
        call.answer.add_done_callback(lambda _: events.close())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            await self._pump(response, call, events)
            await self._write(response, _last_event(call))
            await response.write_eof()
        except asyncio.CancelledError:
            self._caller_left(call)
            raise
        except (ConnectionError, TimeoutError):  # gone, or takes nothing any more: nobody to answer
            self._caller_left(call)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _pump(self, response: web.StreamResponse, call: Call, events: EventQueue) -> None:
        """Pass on what comes until the call has its answer; the queue is closed then and holds no last event."""
        loop = asyncio.get_running_loop()
        idle = self._host.config.stream_idle
        spoke = loop.time()
        while True:
            something = await events.wait(max(0.001, min(COMMENT_EVERY, spoke + idle - loop.time())))
            if data := events.take():
                spoke = loop.time()
                await self._write(response, data)
            elif events.closed:
                return
            elif not something and loop.time() - spoke >= idle:
                agent = call.request.agent
                call.cancel(DeadlineExceeded(f"agent {agent} said nothing for {idle:.0f} s", agent=agent))
            elif not something:
                await self._write(response, COMMENT)

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._host.config.stream_idle):
            await response.write(data)

    def _caller_left(self, call: Call) -> None:
        call.cancel(CallCancelled("the caller went away", agent=call.request.agent))

    def _cancel(self, call_id: str) -> web.Response:
        call = self._host.find(call_id)
        if call is None:
            raise NothingHere(f"no call {call_id} runs here", next_step="it may have ended")
        call.cancel(CallCancelled("the call was cancelled on request", agent=call.request.agent))
        return web.Response(status=202)

    async def _body(self, request: web.BaseRequest) -> bytes:
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise CallTooLarge(
                f"the body is larger than {self._host.config.max_body_bytes} bytes",
                next_step="send less: start a new session, or shorten the messages",
            ) from error
        except TimeoutError as error:
            raise InvalidCall(f"the body did not arrive within {BODY_TIMEOUT:.0f} s") from error

    # -- probes and reports -----------------------------------------------------------------------------------------

    async def _livez(self, _: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        if self._host.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="draining\n" if self._host.draining else "giving up\n")

    async def _loaded(self, _: web.BaseRequest) -> web.Response:
        report = self._host.loaded(MOST_REPORTED)
        return web.Response(body=ENCODER.encode(report), content_type="application/json")

    async def _load(self, request: web.BaseRequest) -> web.Response:
        try:
            asked = LOAD_DECODER.decode(await self._body(request))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidCall(
                f"the body names no agent: {error}", next_step="see chimera_host.contract.call"
            ) from error
        await self._host.load(asked)
        return web.Response(status=204)

    async def _metrics(self, _: web.BaseRequest) -> web.Response:
        return web.Response(body=self._host.exposition().encode(), headers={"Content-Type": MEDIA_TYPE})


def _decode(body: bytes) -> InvokeRequest:
    try:
        return REQUEST_DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidCall(f"the body is not a call: {error}", next_step="see chimera_host.contract.call") from error


def _last_event(call: Call) -> bytes:
    error = call.answer.exception()
    if error is None:
        return event("done", call.answer.result())
    if not isinstance(error, ProblemError):
        error = HostError(f"the host failed: {type(error).__name__}")
    return event("error", error.problem(request=call.request.call))


def _problem(error: ProblemError, call: str | None = None) -> web.Response:
    headers = {"Content-Type": PROBLEM_MEDIA_TYPE}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return web.Response(status=error.status, body=ENCODER.encode(error.problem(request=call)), headers=headers)
