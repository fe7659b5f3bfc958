"""The two ends of a stream: a call's events on their way to the caller, and a model's chunks put together again.

Events are encoded as they are put and wait in one buffer, so that a slow reader costs memory for the text alone, and a
fast writer is sent in large pieces.
"""

import asyncio
from typing import Any

from msgspec import Struct

from chimera_host.contract.call import ENCODER, EventName

MAX_WAITING = 4 * 1024**2
"""Bytes that may wait for a slow reader; beyond, deltas are dropped from the stream (the final event has it all)."""


def event(name: EventName, data: Struct) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + ENCODER.encode(data) + b"\n\n"


COMMENT = b": still here\n\n"


class EventQueue:
    """Events of one call, encoded, in order. One reader; writers on the event loop."""

    def __init__(self) -> None:
        """Start empty."""
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        self.dropped = 0

    def put(self, name: EventName, data: Struct) -> None:
        """Add one; after the end nothing is added."""
        if self.closed:
            return
        if name in ("delta", "tool") and len(self._buffer) > MAX_WAITING:
            self.dropped += 1
            return
        self._buffer += event(name, data)
        self._wake()

    def close(self) -> None:
        """There will be no more."""
        self.closed = True
        self._wake()

    def take(self) -> bytes:
        """Everything that waits."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something to take or the end; False when `seconds` passed first."""
        if self._buffer or self.closed:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        return bool(self._buffer) or self.closed

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class ChunkAssembler:
    """Builds the whole answer of a chat completion from its chunks, tool calls included."""

    def __init__(self) -> None:
        """Start empty."""
        self.chunks = 0
        self._frame: dict[str, Any] = {}
        self._role = "assistant"
        self._text: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None

    def add(self, chunk: dict[str, Any]) -> str:
        """Take one chunk; the text it adds."""
        self.chunks += 1
        if not self._frame:
            self._frame = {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choices = chunk.get("choices") or []
        if not choices:
            return ""
        choice = choices[0]
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        self._role = delta.get("role") or self._role
        for part in delta.get("tool_calls") or []:
            self._add_tool(part)
        text = delta.get("content") or ""
        if text:
            self._text.append(text)
        return text

    def _add_tool(self, part: dict[str, Any]) -> None:
        known = self._tools.setdefault(
            part.get("index", len(self._tools)),
            {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
        )
        known["id"] = part.get("id") or known["id"]
        function = part.get("function") or {}
        known["function"]["name"] += function.get("name") or ""
        known["function"]["arguments"] += function.get("arguments") or ""

    def answer(self) -> dict[str, Any]:
        """The whole answer."""
        message: dict[str, Any] = {"role": self._role, "content": "".join(self._text) or None}
        if self._tools:
            message["tool_calls"] = [self._tools[index] for index in sorted(self._tools)]
        elif message["content"] is None:
            message["content"] = ""
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish or "stop"}],
            "usage": self._usage or {},
        }
