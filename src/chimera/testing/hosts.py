"""A fake host: the host's HTTP contract with answers that a test gives, and ways to die."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import msgspec
from aiohttp import web

from chimera.platform.model import Endpoint
from chimera_host.contract.call import (
    ENCODER,
    HEADER_TRACEPARENT,
    LOAD_DECODER,
    REQUEST_DECODER,
    Delta,
    InvokeRequest,
    InvokeResponse,
    LoadedReport,
    LoadRequest,
    Message,
    SessionState,
)
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError

Answer = Callable[[InvokeRequest], Awaitable[str]]
KEY = "fake-host-key"


async def echo(request: InvokeRequest) -> str:
    """Say what the caller said."""
    return f"echo: {request.messages[-1].content}"


class FakeHost:
    """Use as an asynchronous context manager; `endpoint` is what a pool is told.

    `answer` makes the output, or raises: a `ProblemError` becomes its document, `ConnectionError` breaks the connection
    as a dying host does. A stream says the output word by word, waiting `delay` seconds before each.

    `holds` are the agents that it says it has loaded, `loads` what it was asked to load before a call.
    """

    def __init__(self, host: str = "host-1", cell: str = "cell-1", answer: Answer = echo) -> None:
        """A host of `cell`."""
        self.host = host
        self.cell = cell
        self.answer = answer
        self.delay = 0.0
        self.requests: list[InvokeRequest] = []
        self.traces: list[str | None] = []
        self.cancelled: list[str] = []
        self.holds: list[dict[str, str]] = []
        self.loads: list[LoadRequest] = []
        self.load: Callable[[LoadRequest], Awaitable[None]] | None = None
        self.most_at_once = 0
        self.endpoint: Endpoint
        self._running = 0
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        self.endpoint = Endpoint(host=self.host, cell=self.cell, url=f"http://127.0.0.1:{port}", key=KEY)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def stop(self) -> None:
        """Die: nobody listens any more."""
        await self.__aexit__()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.Response(status=401, text="no")
        if (request.method, request.path) == ("GET", "/v1/loaded"):
            return web.Response(body=ENCODER.encode(self._report()), content_type="application/json")
        if (request.method, request.path) == ("POST", "/v1/load"):
            return await self._load(LOAD_DECODER.decode(await request.read()))
        if request.path != "/v1/invoke":
            return web.Response(status=401, text="no")
        asked = REQUEST_DECODER.decode(await request.read())
        self.requests.append(asked)
        self.traces.append(request.headers.get(HEADER_TRACEPARENT))
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            return await self._answer(request, asked)
        except ProblemError as error:
            body = msgspec.json.encode(error.problem())
            return web.Response(status=error.status, body=body, content_type=PROBLEM_MEDIA_TYPE)
        except asyncio.CancelledError:
            self.cancelled.append(asked.call)
            raise
        except ConnectionError:
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            self._running -= 1

    def _report(self) -> LoadedReport:
        return LoadedReport(
            host=self.host,
            framework="function",
            loaded=len(self.holds),
            agents=list(self.holds),
            in_flight=self._running,
            resident_bytes=0,
            limit_bytes=0,
            evictions=0,
        )

    async def _load(self, asked: LoadRequest) -> web.Response:
        self.loads.append(asked)
        try:
            if self.load is not None:
                await self.load(asked)
        except ProblemError as error:
            body = msgspec.json.encode(error.problem())
            return web.Response(status=error.status, body=body, content_type=PROBLEM_MEDIA_TYPE)
        return web.Response(status=204)

    async def _answer(self, request: web.BaseRequest, asked: InvokeRequest) -> web.StreamResponse:
        if asked.stream:
            return await self._stream(request, asked)
        output = await self.answer(asked)
        return web.Response(body=ENCODER.encode(self._response(asked, output)), content_type="application/json")

    async def _stream(self, request: web.BaseRequest, asked: InvokeRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        output = await self.answer(asked)
        await response.prepare(request)
        for number, word in enumerate(output.split(" ")):
            await asyncio.sleep(self.delay)
            text = word if number == 0 else f" {word}"
            await response.write(b"event: delta\ndata: " + ENCODER.encode(Delta(text=text)) + b"\n\n")
            if word == "die":
                raise ConnectionError
        done = ENCODER.encode(self._response(asked, output))
        await response.write(b": still here\n\nevent: done\ndata: " + done + b"\n\n")
        await response.write_eof()
        return response

    def _response(self, asked: InvokeRequest, output: str) -> InvokeResponse:
        said = Message(role="assistant", content=output)
        state = None
        if asked.session is not None:
            state = SessionState(messages=(*asked.session.messages, *asked.messages, said))
        return InvokeResponse(
            output=output,
            call=asked.call,
            agent=asked.agent,
            revision=asked.revision,
            host=self.host,
            messages=(said,),
            session=state,
        )
