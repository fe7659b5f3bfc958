"""The log of a process: one JSON object per line, each saying which call, agent and trace it belongs to.

Everything goes through the standard library's `logging`. `log_fields` holds what the running code works for (request,
agent, revision), so that a record made anywhere below, also deep inside a framework, carries it. Standard output and
standard error are captured line by line in the same way: what a framework prints is attributed to its agent, and
bounded, since an agent that prints in a loop must not drown the log of the others. Prompts and answers are never logged
by Chimera's own code; loggers of other packages only speak from WARNING on, since theirs might.
"""

import io
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import msgspec

from chimera_host.trace import current_trace

MAX_LINE = 32 * 1024
MAX_PRINTED_LINE = 8 * 1024
MAX_PRINTED_BY_CALL = 256 * 1024
OWN_LOGGERS = ("chimera", "chimera_host")

NO_FIELDS: Mapping[str, str] = MappingProxyType({})
log_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=NO_FIELDS)
"""What the running code works for; its items become fields of every record made there. Replace it, never change it."""

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode
_printing = threading.local()


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, process, what it works for, message, and its `extra` fields."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Put `fields` (process, host …) into every line."""
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        seconds = int(record.created)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._fields,
            "logger": record.name,
            **log_fields.get(),
        }
        trace = current_trace.get()
        if trace is not None:
            line["trace"] = trace.trace_id
        line["message"] = record.getMessage()
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = "".join(traceback.format_exception(*record.exc_info))[-MAX_LINE // 2 :]
        return _line(line)


def _line(line: dict[str, Any]) -> str:
    try:
        data = _encode(line)
    except (TypeError, ValueError, RecursionError):
        data = _encode({name: str(value) for name, value in line.items()})
    if len(data) > MAX_LINE:
        data = _encode({name: value if name in _KEPT else _shorten(value) for name, value in line.items()})
    if len(data) > MAX_LINE:
        data = _encode(_bare(line))
    return data.decode()


_KEPT = frozenset({"time", "level", "process", "host", "logger", "request", "agent", "revision", "trace"})


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 2_000 else f"{text[:2_000]} … ({len(text)} characters)"


def _bare(line: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in line.items() if name in _KEPT}
    return {**kept, "message": _shorten(line.get("message", "")), "truncated": True}


class DescriptorHandler(logging.Handler):
    """Writes each record to a file descriptor in one piece; a reader that is gone is none of an agent's business."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open."""
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            data = memoryview((self.format(record) + "\n").encode("utf-8", "replace"))
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return
        except Exception:
            self.handleError(record)


class CapturedStream(io.TextIOBase):
    """Takes the place of standard output or error: every printed line becomes a record of the call that printed it.

    What comes from outside of any call is kept apart by the empty request. `finish` flushes a call's last line and
    forgets the call.
    """

    def __init__(self, name: str, level: int, descriptor: int) -> None:
        """Log under the logger `name`; `descriptor` is what `fileno` tells code that asks for it."""
        self._logger = logging.getLogger(f"chimera_host.{name}")
        self._level = level
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._pending: dict[str, str] = {}
        self._printed: dict[str, int] = {}

    encoding = "utf-8"

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The real descriptor."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Log the finished lines of `text`, keep the rest."""
        if getattr(_printing, "busy", False):  # the log itself failed and prints: don't go round
            return os.write(self._descriptor, text.encode("utf-8", "replace"))
        request = log_fields.get().get("request", "")
        with self._lock:
            *lines, rest = (self._pending.pop(request, "") + text).split("\n")
            if len(rest) > MAX_PRINTED_LINE:
                lines.append(rest)
            elif rest:
                self._pending[request] = rest
            lines = [line for line in self._within(request, lines) if line.strip()]
        self._log(lines)
        return len(text)

    def finish(self, request: str) -> None:
        """The call `request` ended."""
        with self._lock:
            self._printed.pop(request, None)
            rest = self._pending.pop(request, "")
        if rest.strip():
            self._log([rest])

    def _within(self, request: str, lines: list[str]) -> list[str]:
        if not request:
            return lines
        printed = self._printed.get(request, 0)
        if printed > MAX_PRINTED_BY_CALL:
            return []
        kept = []
        for line in lines:
            printed += len(line) + 1
            if printed > MAX_PRINTED_BY_CALL:
                kept.append(f"(printed more than {MAX_PRINTED_BY_CALL} characters in one call; the rest is dropped)")
                break
            kept.append(line)
        self._printed[request] = printed
        return kept

    def _log(self, lines: list[str]) -> None:
        _printing.busy = True
        try:
            for line in lines:
                shown = line if len(line) <= MAX_PRINTED_LINE else line[:MAX_PRINTED_LINE] + " …"
                self._logger.log(self._level, "%s", shown)
        finally:
            _printing.busy = False


def configure(process: str, *, descriptor: int = 1, level: int = logging.INFO, **fields: str) -> None:
    """Log to `descriptor` as JSON lines, each with `process` and `fields`. Replaces what was configured before."""
    handler = DescriptorHandler(descriptor)
    handler.setFormatter(JsonFormatter({"process": process, **fields}))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def capture_prints() -> tuple[CapturedStream, CapturedStream]:
    """Put captured streams in the place of `sys.stdout` and `sys.stderr`; returns them."""
    streams = CapturedStream("stdout", logging.INFO, 1), CapturedStream("stderr", logging.WARNING, 2)
    sys.stdout, sys.stderr = streams
    return streams
