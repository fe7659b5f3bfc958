"""An MCP server over streamable HTTP: each message is a POST, the response its body or an event on its stream.

All connections go through the tool's `CheckedSession`, so the egress rule holds for them; a redirect is only followed
within the server. A stream that ends before the response is taken up again with its last event's id, as servers of
2025-11-25 may ask for. A session that the server has forgotten (404) is `ServerGone` and can be begun anew: a server
that doesn't know the session has not run the request.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from chimera_host.broker.http import CheckedSession, read_bounded
from chimera_host.broker.mcp.events import EventParser
from chimera_host.broker.mcp.protocol import Message, ServerGone, decode, is_response, reply_to
from chimera_host.contract.problem import ProblemError
from chimera_host.errors import ToolFailed, ToolRefused

SESSION = "Mcp-Session-Id"
VERSION = "MCP-Protocol-Version"
SIDE_TIMEOUT = 5.0
MAX_RESUMES = 5
DEFAULT_RETRY = 1.0
LONGEST_RETRY = 30.0
MAX_SAID = 500

_ACCEPT = "application/json, text/event-stream"
_NOT_ALLOWED = frozenset({401, 403})


class HttpTransport:
    """A session with the server at one URL. `headers` hold the credentials."""

    version: str | None = None

    def __init__(
        self, server: str, url: str, *, headers: Mapping[str, str], session: CheckedSession, max_message: int
    ) -> None:
        """Send through `session`, which the caller closes."""
        self._server = server
        self._url = url
        self._headers = dict(headers)
        self._http = session
        self._max_message = max_message
        self._session_id: str | None = None
        self._gone = False
        self._side: set[asyncio.Task[None]] = set()

    @property
    def alive(self) -> bool:
        """Whether the server still knows the session, as far as is known."""
        return not self._gone

    async def request(self, message: Message) -> Message:
        """POST a request; the response, from the body or the stream."""
        data = msgspec.json.encode(message)
        async with self._http.open(
            "POST", self._url, headers=self._sent_headers(), data=data, leave_origin=False
        ) as response:
            if response.status >= 400:
                raise await self._refusal(response)
            if message["method"] == "initialize":
                self._session_id = response.headers.get(SESSION)
            if response.content_type == "text/event-stream":
                return await self._from_stream(response, message["id"])
            if response.status == 202 or response.content_type != "application/json":
                raise ToolFailed(
                    f"MCP server {self._server!r} answered {response.status} and {response.content_type} to a request",
                    next_step="see whether the URL is that of its MCP endpoint",
                )
            found = await self._take(await read_bounded(response, self._max_message), message["id"])
            if found is None:
                raise ToolFailed(f"MCP server {self._server!r} answered something else than the response")
            return found

    async def send(self, message: Message) -> None:
        """POST a message that has no response."""
        async with self._http.open(
            "POST", self._url, headers=self._sent_headers(), data=msgspec.json.encode(message), leave_origin=False
        ) as response:
            if response.status >= 400:
                raise await self._refusal(response)

    def send_soon(self, message: Message) -> None:
        """`send` in the background."""
        self._in_background(self._try_to_send(message))

    async def aclose(self) -> None:
        """Tell the server that the session ends."""
        self._gone = True
        if self._session_id is not None:
            with suppress(ProblemError, TimeoutError):
                async with (
                    asyncio.timeout(SIDE_TIMEOUT),
                    self._http.open("DELETE", self._url, headers=self._sent_headers(), leave_origin=False),
                ):
                    pass
        for task in list(self._side):
            task.cancel()
        await asyncio.gather(*self._side, return_exceptions=True)

    # -- one exchange ---------------------------------------------------------------------------------------------

    def _sent_headers(self, **more: str) -> dict[str, str]:
        headers = {**self._headers, "Accept": _ACCEPT, "Content-Type": "application/json"}
        if self.version is not None:
            headers[VERSION] = self.version
        if self._session_id is not None:
            headers[SESSION] = self._session_id
        return {**headers, **more}

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProblemError:
        status = response.status
        if status in _NOT_ALLOWED:
            self._gone = True  # credentials are fetched anew with the next session
            return ToolRefused(
                f"MCP server {self._server!r} does not accept the credentials (HTTP {status})",
                next_step="check the tool's `credentials` and their values",
            )
        if status == 404 and self._session_id is not None:
            self._gone = True
            return ServerGone(f"MCP server {self._server!r} has forgotten the session", sent=False)
        said = ""
        with suppress(ToolFailed, msgspec.DecodeError):
            body = await read_bounded(response, 64 * 1024)
            said = body.decode("utf-8", "replace")
            said = str(decode(body)[0]["error"]["message"]) if response.content_type == "application/json" else said
        return ToolFailed(f"MCP server {self._server!r} answered HTTP {status}: {said[:MAX_SAID].strip() or 'nothing'}")

    async def _from_stream(self, response: aiohttp.ClientResponse, number: int) -> Message:
        parser = EventParser(self._max_message)
        found = await self._response_in(response, parser, number)
        resumes = 0
        while found is None and parser.last_id and resumes < MAX_RESUMES:
            resumes += 1
            await asyncio.sleep(min(parser.retry if parser.retry is not None else DEFAULT_RETRY, LONGEST_RETRY))
            headers = self._sent_headers(**{"Last-Event-ID": parser.last_id, "Accept": "text/event-stream"})
            async with self._http.open("GET", self._url, headers=headers, leave_origin=False) as again:
                if again.status >= 400:
                    raise await self._refusal(again)
                found = await self._response_in(again, parser, number)
        if found is None:
            raise ServerGone(f"MCP server {self._server!r} ended its answer too early", sent=True)
        return found

    async def _response_in(self, response: aiohttp.ClientResponse, parser: EventParser, number: int) -> Message | None:
        async for piece in _pieces(response):
            for event in parser.feed(piece):
                if event.data and (found := await self._take(event.data.encode(), number)) is not None:
                    return found
        return None

    async def _take(self, data: bytes, number: int) -> Message | None:
        """The response to request `number` among the messages in `data`; requests of the server are answered."""
        try:
            messages = decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ToolFailed(f"MCP server {self._server!r} answered what is no message: {error}") from None
        found = None
        for message in messages:
            if is_response(message) and message["id"] in (number, str(number), None):
                found = message
            elif (reply := reply_to(message)) is not None:
                self._in_background(self._try_to_send(reply))
        return found

    async def _try_to_send(self, message: Message) -> None:
        with suppress(ProblemError, TimeoutError):
            async with asyncio.timeout(SIDE_TIMEOUT):
                await self.send(message)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"mcp-{self._server}-side", context=contextvars.Context())
        self._side.add(task)
        task.add_done_callback(self._side.discard)


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What comes until the stream ends, however it ends."""
    with suppress(aiohttp.ClientError, OSError):
        async for piece in response.content.iter_any():
            yield piece
