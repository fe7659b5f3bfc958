"""Server-sent events to a caller: begun late, kept alive, ended when nobody reads.

The answer's headers go out with the first event, so that a refusal before it is a plain HTTP problem with its own
status. A call that is silent for long (its cell wakes, its agent thinks) gets its headers and a comment instead; what
goes wrong afterwards is an event.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Self, TypeVar

from aiohttp import web

from chimera.entrypoints.gateway.http import ENCODER, HEADER_REQUEST, internal_error
from chimera.gateway.settings import HttpSettings
from chimera_host.contract.problem import ProblemError

T = TypeVar("T")

COMMENT = b": still here\n\n"


class EventStream:
    """One stream; use as an asynchronous context manager around everything that may take long."""

    def __init__(self, request: web.BaseRequest, headers: dict[str, str], *, comment: float, idle: float) -> None:
        """Comment every `comment` seconds without news; a reader that takes nothing for `idle` seconds is gone."""
        self._request = request
        self._response = web.StreamResponse(
            headers={**headers, "Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        self._comment = comment
        self._idle = idle
        self._lock = asyncio.Lock()
        self._said = asyncio.get_running_loop().time()
        self._ticker: asyncio.Task[None] | None = None
        self.started = False

    async def __aenter__(self) -> Self:
        """Begin to count silence."""
        self._ticker = asyncio.create_task(self._tick(), name="stream-comments")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No more comments."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    async def send(self, data: bytes) -> None:
        """Write whole events. Raises `ConnectionError` or `TimeoutError` when nobody reads."""
        async with self._lock:
            await self._write(data)

    async def end(self, data: bytes) -> web.StreamResponse:
        """Write the last events and the end."""
        await self.send(data)
        await self._response.write_eof()
        return self._response

    def abandon(self) -> web.StreamResponse:
        """Nobody reads: close the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response

    async def _write(self, data: bytes) -> None:
        async with asyncio.timeout(self._idle):
            if not self.started:
                self.started = True
                await self._response.prepare(self._request)
            await self._response.write(data)
        self._said = asyncio.get_running_loop().time()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            silent = loop.time() - self._said
            if silent < self._comment:
                await asyncio.sleep(self._comment - silent)
                continue
            try:
                await self.send(COMMENT)
            except (ConnectionError, TimeoutError):
                self.abandon()
                return


def event(name: str, data: bytes) -> bytes:
    """One event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def data_event(data: bytes) -> bytes:
    """One event without a name, as OpenAI streams them."""
    return b"data: " + data + b"\n\n"


async def followed(
    request: web.BaseRequest,
    source: AsyncGenerator[T, None],
    encode: Callable[[T], bytes],
    *,
    settings: HttpSettings,
    name: str,
) -> web.StreamResponse:
    """Stream what `source` gives, as `encode` makes events of it; what goes wrong later is the last one, `error`."""
    stream = EventStream(request, {HEADER_REQUEST: name}, comment=settings.stream_comment, idle=settings.stream_idle)
    async with stream:
        try:
            async for one in source:
                await stream.send(encode(one))
            return await stream.end(b"")
        except (ConnectionError, TimeoutError):  # nobody reads
            return stream.abandon()
        except Exception as error:
            if not stream.started:
                raise
            problem = error if isinstance(error, ProblemError) else internal_error(error)
            return await stream.end(event("error", ENCODER.encode(problem.problem(request=name))))
        finally:
            await source.aclose()
