"""What `chimera logs` shows: the newest lines of the processes' JSON log files, filtered, and those that follow.

Files are read from their ends, a bounded part of each; following looks at what was added, twice a second. Nothing is
indexed: this is for one machine and the last minutes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

from chimera.adapters.substrates.local.logfiles import KEPT
from chimera.platform.logs import HOSTS, Lines, LogQuery

TAIL_BYTES = 4 * 1024 * 1024
FOLLOW_INTERVAL = 0.5


Position = dict[Path, tuple[int, int]]
"""How far each file was read, and when it was last started again."""


def read(folder: Path, query: LogQuery) -> tuple[Position, list[bytes]]:
    """The newest lines, oldest first, and where each file ended."""
    position: Position = {}
    found: list[tuple[str, bytes]] = []
    for file in sorted(folder.glob("*.jsonl")):
        if _may_hold(query, file.stem):
            started = _started(file)
            end, lines = _read_from(file, max(0, _size(file) - TAIL_BYTES), query)
            position[file] = end, started
            found.extend(lines)
    found.sort(key=lambda pair: pair[0])
    return position, [line for _, line in found[-query.lines :]]


async def lines(
    folder: Path, query: LogQuery, position: Position, newest: list[bytes], gone: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """The `newest` lines that were read; then, where it follows, those that are added."""
    for line in newest:
        yield line
    if query.follow:
        async for line in follow(folder, query, position, gone):
            yield line


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
        if not _may_hold(query, file.stem):
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
    lines = Lines(file.stem, query)
    found.extend(taken for line in data[:whole].splitlines() if (taken := lines.take(line)) is not None)
    return start + whole, found


def _may_hold(query: LogQuery, name: str) -> bool:
    """Whether a process's file can hold such lines."""
    return query.process in (None, name) or (query.process == HOSTS and name.startswith("host_"))


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
