"""Which log lines somebody asks for, and what a line says: rules that both homes share.

A line is what a process wrote: a JSON object, or what was printed before its log was set up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chimera.platform.errors import PlatformError

MAX_LINES = 10_000
HOSTS = "hosts"
"""The name by which all hosts are meant."""


class BadLogQuery(PlatformError):
    """A log query is malformed."""

    code = "invalid-request"
    status = 400
    title = "The log query is not valid"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogQuery:
    """Which lines: of an agent, a request, a process (`gateway`, `hosts`, a host's id), at a level, how many."""

    agent: str | None = None
    request: str | None = None
    process: str | None = None
    level: str | None = None
    lines: int = 100
    follow: bool = False

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "LogQuery":
        """From the parameters of a URL."""
        lines = query.get("lines", "100")
        if not (lines.isdecimal() and len(lines) <= len(str(MAX_LINES)) and 1 <= int(lines) <= MAX_LINES):
            raise BadLogQuery(
                f"lines={lines[:20]!r} is not a number from 1 to {MAX_LINES}", next_step="leave it out for 100"
            )
        follow = query.get("follow", "false")
        if follow not in ("true", "false", "1", "0"):
            raise BadLogQuery(f"follow={follow[:20]!r} is neither true nor false", next_step="use follow=true")
        return cls(
            agent=query.get("agent"),
            request=query.get("request"),
            process=query.get("process"),
            level=query.get("level"),
            lines=int(lines),
            follow=follow in ("1", "true"),
        )

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether a line is one of them."""
        if self.agent is not None and record.get("agent") not in (self.agent, self.agent.rpartition("/")[2]):
            return False
        if self.request is not None and record.get("request") != self.request:
            return False
        return self.level is None or str(record.get("level", "")).lower() == self.level.lower()


class Lines:
    """The lines of one process in their order, as (time, line) to be sorted in among those of others."""

    def __init__(self, process: str, query: LogQuery, **fields: str) -> None:
        """Of `process`; each line gets `fields` that it doesn't have itself."""
        self._query = query
        self._fields = {"process": process, **fields}
        self._at = ""

    def take(self, line: bytes) -> tuple[str, bytes] | None:
        """One line as it was written; None where nobody asked for it."""
        record = self._record(line)
        if record is None:
            return None
        # A line without a time, such as of an interpreter's traceback, stays behind the line before it.
        self._at = str(record.get("time") or self._at)
        return (self._at, msgspec.json.encode(record)) if self._query.wants(record) else None

    def _record(self, line: bytes) -> dict[str, Any] | None:
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # What a process printed before its log was set up, or a traceback of the interpreter itself.
            text = line.decode("utf-8", "replace")
            return {"message": text, "level": "info", **self._fields} if text.strip() else None
        return {**self._fields, **record} if isinstance(record, dict) else None
