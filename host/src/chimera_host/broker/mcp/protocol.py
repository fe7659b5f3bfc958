"""A session with an MCP server: JSON-RPC requests over a transport, the handshake, and the two methods of tools.

The handshake offers the newest version that has one, 2025-11-25, and takes whichever older version the server answers.
No capability is offered, so a server may ask nothing of the client but a ping. (2026-07-28 has no handshake; servers
of that version that follow the reference implementation serve the earlier ones too.)

The protocol has no idempotency key. A call of a tool carries ours among the request's `_meta`, which is there for what
the protocol doesn't define: a server that knows it has the effect once, others ignore it.
"""

import asyncio
import itertools
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from chimera_host.errors import ToolFailed

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
CLIENT = {"name": "chimera-host", "version": "1"}
MAX_PAGES = 100
METHOD_NOT_FOUND = -32601
META_KEY = "chimera/idempotency-key"

T = TypeVar("T")
Message = dict[str, Any]


class ServerGone(ToolFailed):
    """The connection to the server ended. `sent` tells whether the request may have reached it."""

    def __init__(self, detail: str, *, sent: bool, next_step: str | None = None) -> None:
        """Say what happened."""
        super().__init__(detail, next_step=next_step)
        self.sent = sent


class Transport(Protocol):
    """Carries messages to one server and back."""

    version: str | None
    """The protocol's version, once it is agreed."""

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""

    async def request(self, message: Message) -> Message:
        """Send a request and wait for its response. Raises `ServerGone` when the connection ends."""

    async def send(self, message: Message) -> None:
        """Send a message that has no response."""

    def send_soon(self, message: Message) -> None:
        """`send` in the background, as far as that is possible; for a caller that is being cancelled."""

    async def aclose(self) -> None:
        """End the connection, and the server where it is our own."""


class OfferedTool(Struct, frozen=True, kw_only=True, rename="camel"):
    """A tool as a server describes it."""

    name: str
    description: str | None = None
    title: str | None = None
    input_schema: dict[str, Any] = field(default_factory=dict)


class _Listing(Struct, frozen=True, kw_only=True, rename="camel"):
    tools: list[OfferedTool]
    next_cursor: str | None = None


class _Welcome(Struct, frozen=True, kw_only=True, rename="camel"):
    protocol_version: str
    capabilities: dict[str, Any] = field(default_factory=dict)


class Session:
    """One session. `open` first."""

    def __init__(self, server: str, transport: Transport) -> None:
        """Talk to the server that the definition calls `server`."""
        self._server = server
        self._transport = transport
        self._ids = itertools.count(1)

    @property
    def alive(self) -> bool:
        """Whether it can be used."""
        return self._transport.alive

    async def open(self) -> None:
        """Shake hands."""
        offered = {"protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": CLIENT}
        welcome = self._read(await self._request("initialize", offered, cancellable=False), _Welcome, "initialize")
        if welcome.protocol_version not in VERSIONS:
            raise ToolFailed(
                f"MCP server {self._server!r} speaks version {welcome.protocol_version[:40]} of the protocol, "
                f"which is none of {', '.join(VERSIONS)}",
                next_step="use a release of the server that speaks one of these",
            )
        if "tools" not in welcome.capabilities:
            raise ToolFailed(f"MCP server {self._server!r} offers no tools", next_step="remove it from the definition")
        self._transport.version = welcome.protocol_version
        await self._transport.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def tools(self) -> list[OfferedTool]:
        """All tools of the server."""
        found: list[OfferedTool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            parameters = {} if cursor is None else {"cursor": cursor}
            page = self._read(await self._request("tools/list", parameters), _Listing, "tools/list")
            found += page.tools
            cursor = page.next_cursor
            if not cursor:
                return found
        raise ToolFailed(f"MCP server {self._server!r} lists its tools on more than {MAX_PAGES} pages")

    async def call(self, tool: str, arguments: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """The result of one tool; `key` is the call's idempotency key."""
        parameters: dict[str, Any] = {"name": tool, "arguments": arguments}
        if key is not None:
            parameters["_meta"] = {META_KEY: key}
        return await self._request("tools/call", parameters)

    async def aclose(self) -> None:
        """End it."""
        await self._transport.aclose()

    async def _request(self, method: str, parameters: dict[str, Any], *, cancellable: bool = True) -> dict[str, Any]:
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        try:
            answer = await self._transport.request(message)
        except asyncio.CancelledError:
            if cancellable:
                told = {"requestId": number, "reason": "the caller no longer waits"}
                self._transport.send_soon({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told})
            raise
        error = answer.get("error")
        if error is not None:
            said = str(error.get("message", "")) if isinstance(error, dict) else str(error)
            raise ToolFailed(f"MCP server {self._server!r} refused {method}: {said[:1_000]}")
        result = answer.get("result")
        if not isinstance(result, dict):
            raise ToolFailed(f"MCP server {self._server!r} answered {method} with no result")
        return result

    def _read(self, data: Any, kind: type[T], method: str) -> T:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            raise ToolFailed(
                f"MCP server {self._server!r} answered {method} with what the protocol doesn't define: {error}"
            ) from None


def decode(data: bytes) -> list[Message]:
    """The messages in one frame (an object, or a batch as old versions have it); raises `msgspec.DecodeError`."""
    found = msgspec.json.decode(data)
    messages = found if isinstance(found, list) else [found]
    if not all(isinstance(message, dict) for message in messages):
        raise msgspec.DecodeError("a message is an object")
    return messages


def is_response(message: Message) -> bool:
    """Whether it answers a request of ours."""
    return "method" not in message and "id" in message


def reply_to(message: Message) -> Message | None:
    """What to say to a message that the server sent on its own; None where nothing is to be said."""
    if "method" not in message or message.get("id") is None:
        return None
    if message["method"] == "ping":
        return {"jsonrpc": "2.0", "id": message["id"], "result": {}}
    refusal = {"code": METHOD_NOT_FOUND, "message": "this client offers no capabilities"}
    return {"jsonrpc": "2.0", "id": message["id"], "error": refusal}
