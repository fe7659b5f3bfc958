"""Receivers over real sockets: one of webhooks, which remembers what came, and ones that speak as badly as told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web


@dataclass(frozen=True, kw_only=True, slots=True)
class Got:
    """One request: `number` counts those that the receiver got, from 1."""

    number: int
    path: str
    headers: dict[str, str]
    body: bytes
    event: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """The event's place in the journal."""
        return int(self.event["sequence"])


Answer = Callable[[Got], Awaitable[web.StreamResponse | None]]


class Receiver:
    """Listens on loopback; use as an asynchronous context manager. None from `answer` closes the connection."""

    def __init__(self, answer: Answer | None = None) -> None:
        """Answer 204 unless told otherwise."""

        async def take(_: Got) -> web.StreamResponse:
            return web.Response(status=204)

        self.answer: Answer = answer or take
        self.got: list[Got] = []
        self.at_once = self.most_at_once = 0
        self.url = ""
        self._came = asyncio.Condition()
        self._runner: web.ServerRunner

    async def __aenter__(self) -> Self:
        """Listen."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/in"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self._runner.cleanup()

    async def until(self, holds: Callable[[list[Got]], bool], within: float = 20.0) -> list[Got]:
        """Wait until what came is as it should be."""
        async with asyncio.timeout(within), self._came:
            await self._came.wait_for(lambda: holds(self.got))
        return self.got

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        structured = request.content_type == "application/cloudevents+json"
        event = msgspec.json.decode(body) if structured else {}
        if not structured and "ce-sequence" in request.headers:
            event = {"sequence": request.headers["ce-sequence"], "data": msgspec.json.decode(body)}
        got = Got(
            number=len(self.got) + 1,
            path=request.rel_url.path_qs,
            headers=dict(request.headers),
            body=body,
            event=event,
        )
        self.got.append(got)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = await self.answer(got)
        finally:
            self.at_once -= 1
            async with self._came:
                self._came.notify_all()
        if answer is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return answer


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Speaks on a connection, which is closed when it returns."""


@asynccontextmanager
async def speaking(serve: Serve) -> AsyncIterator[str]:
    """The address of a server on loopback that speaks so."""

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
    finally:
        server.close()


def answering(head: str, body: bytes = b"", seen: list[bytes] | None = None) -> Serve:
    """Answers every request with these lines and this body; `seen` takes the heads of requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(data)
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return serve
