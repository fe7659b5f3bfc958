"""Distributed tracing by W3C Trace Context: who called whom, without a tracing library in every process.

A trace context comes in with the `traceparent` header, lives in a context variable, and goes out with every request
that is made on its behalf. A span is one line of the log (`message: "span"`), written when it ends and only if the
trace is sampled; whoever wants spans elsewhere reads them from there.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from msgspec import Struct

log = logging.getLogger(__name__)

_HEX = frozenset("0123456789abcdef")
_FLAG_SAMPLED = 0x01


class TraceContext(Struct, frozen=True):
    """Where we are in a trace: the trace, the span that is open, and whether anybody wants the record."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def header(self) -> str:
        """As the value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> "TraceContext":
        """A span of the same trace below this one."""
        return TraceContext(self.trace_id, _span_id(), self.sampled)


current_trace: ContextVar[TraceContext | None] = ContextVar("current_trace", default=None)
"""The open span of the running code."""


def new_trace(*, sampled: bool = True) -> TraceContext:
    """The root of a trace of its own."""
    return TraceContext(f"{random.getrandbits(128) or 1:032x}", _span_id(), sampled)


def parse(header: str | None) -> TraceContext | None:
    """The trace context in a `traceparent` header, or None where there is none or it breaks the rules.

    A version above 00 may carry more fields behind the four, which are ignored, as the recommendation asks.
    """
    if header is None:
        return None
    parts = header.strip().split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return None
    version, trace_id, span_id, flags = parts[:4]
    if not _HEX.issuperset(version + trace_id + span_id + flags):
        return None
    if version == "ff" or (version == "00" and len(parts) != 4):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _FLAG_SAMPLED))


def _span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"


class Span:
    """An open span: what it is called, where it stands, and what is known about it."""

    __slots__ = ("attributes", "context", "name", "parent")

    def __init__(self, name: str, context: TraceContext, parent: str | None, attributes: dict[str, Any]) -> None:
        """Describe the span `name` at `context`, below `parent`."""
        self.name = name
        self.context = context
        self.parent = parent
        self.attributes = attributes

    def set(self, **attributes: Any) -> None:
        """Add to what is known about it. Never a prompt, an answer or a credential: spans end up in logs."""
        self.attributes.update(attributes)


@contextmanager
def span(name: str, *, remote: TraceContext | None = None, **attributes: Any) -> Iterator[Span]:
    """Run a block as a span below the open one (or below `remote`); an exception that leaves it is noted by type."""
    parent = remote or current_trace.get()
    context = parent.child() if parent is not None else new_trace()
    opened = Span(name, context, parent.span_id if parent is not None else None, attributes)
    token = current_trace.set(context)
    began = time.perf_counter()
    error: str | None = None
    try:
        yield opened
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        seconds = time.perf_counter() - began
        if context.sampled and log.isEnabledFor(logging.INFO):
            record: dict[str, Any] = {
                "name": name,
                "trace_id": context.trace_id,
                "span_id": context.span_id,
                "parent": opened.parent,
                "seconds": round(seconds, 6),
                "attributes": opened.attributes,
            }
            if error is not None:
                record["error"] = error
            log.info("span", extra={"span": record})
        current_trace.reset(token)
