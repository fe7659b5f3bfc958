"""What `chimera logs` shows: the newest lines of the processes' JSON log files, filtered, and those that follow.

Files are read from their ends, a bounded part of each; following looks at what was added, twice a second. Nothing is
indexed: this is for one machine and the last minutes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chimera.adapters.substrates.local.logfiles import KEPT
from chimera_host.contract.problem import ProblemError

TAIL_BYTES = 4 * 1024 * 1024
MAX_LINES = 10_000
FOLLOW_INTERVAL = 0.5


class BadLogQuery(ProblemError):
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

    def wants_file(self, name: str) -> bool:
        """Whether a process's file can hold such lines."""
        if self.process is None:
            return True
        return name == self.process or (self.process == "hosts" and name.startswith("host_"))

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Whether a line is one of them."""
        if self.agent is not None and record.get("agent") not in (self.agent, self.agent.rpartition("/")[2]):
            return False
        if self.request is not None and record.get("request") != self.request:
            return False
        return self.level is None or str(record.get("level", "")).lower() == self.level.lower()


Position = dict[Path, tuple[int, int]]
"""How far each file was read, and when it was last started again."""


def read(folder: Path, query: LogQuery) -> tuple[Position, list[bytes]]:
    """The newest lines, oldest first, and where each file ended."""
    position: Position = {}
    found: list[tuple[str, bytes]] = []
    for file in sorted(folder.glob("*.jsonl")):
        if query.wants_file(file.stem):
            started = _started(file)
            end, lines = _read_from(file, max(0, _size(file) - TAIL_BYTES), query)
            position[file] = end, started
            found.extend(lines)
    found.sort(key=lambda pair: pair[0])
    return position, [line for _, line in found[-query.lines :]]


async def follow(
    folder: Path, query: LogQuery, position: Position, gone: Callable[[], bool] = lambda: False
) -> AsyncIterator[bytes]:
    """Lines that are added from `position` on, until the caller is `gone`."""
    while not gone():
        await asyncio.sleep(FOLLOW_INTERVAL)
        for line in await asyncio.to_thread(_added, folder, query, position):
            yield line


def _added(folder: Path, query: LogQuery, position: Position) -> list[bytes]:
    found: list[tuple[str, bytes]] = []
    for file in sorted(folder.glob("*.jsonl")):
        if not query.wants_file(file.stem):
            continue
        end, before = position.get(file, (0, 0))
        started, size = _started(file), _size(file)
        if started != before or size < end:
            end = 0
        if size != end:
            end, lines = _read_from(file, end, query)
            found.extend(lines)
        position[file] = end, started
    return [line for _, line in sorted(found, key=lambda pair: pair[0])]


def _read_from(file: Path, start: int, query: LogQuery) -> tuple[int, list[tuple[str, bytes]]]:
    found: list[tuple[str, bytes]] = []
    try:
        with file.open("rb") as source:
            source.seek(start)
            data = source.read()
    except FileNotFoundError:
        return 0, found
    whole = data.rfind(b"\n") + 1
    at = ""
    for line in data[:whole].splitlines():
        record = _record(line, file.stem)
        if record is None:
            continue
        # A line without a time, such as of an interpreter's traceback, stays behind the line before it.
        at = str(record.get("time") or at)
        if query.wants(record):
            found.append((at, msgspec.json.encode(record)))
    return start + whole, found


def _record(line: bytes, process: str) -> dict[str, Any] | None:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What a process printed before its log was set up, or a traceback of the interpreter itself.
        text = line.decode("utf-8", "replace")
        return {"message": text, "level": "info", "process": process} if text.strip() else None
    return {"process": process, **record} if isinstance(record, dict) else None


def _started(file: Path) -> int:
    """When a log was last moved aside, as its kept part says; zero for never."""
    try:
        return file.with_name(file.name + KEPT).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
