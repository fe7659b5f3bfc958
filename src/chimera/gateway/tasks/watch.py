"""Who follows tasks, and how they learn of changes: one read for all that are followed, and a word from this gateway.

A change is in the database before anybody is told; being told is a hint to look there. What the task's agent says
piece by piece (`delta`, `tool`) isn't kept: it is passed on to those who follow at the gateway that runs the task, and
a reader that takes nothing loses the oldest pieces.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from chimera.gateway.tasks.errors import TooManyWatchers
from chimera.gateway.tasks.model import TaskKey

log = logging.getLogger(__name__)

PIECES = 256
"""Pieces kept for a reader that takes none."""


class Versions(Protocol):
    """Where changes are seen."""

    async def versions(self, keys: Sequence[TaskKey]) -> Mapping[TaskKey, tuple[int, float]]:
        """The version of each task, and when its progress was last written; tasks that are gone are left out."""


class Watcher:
    """One who follows a task."""

    __slots__ = ("_changed", "pieces")

    def __init__(self) -> None:
        """Know of nothing."""
        self._changed = asyncio.Event()
        self.pieces: deque[tuple[bytes, bytes]] = deque(maxlen=PIECES)

    def tell(self) -> None:
        """Something has changed."""
        self._changed.set()

    async def changed(self, within: float) -> bool:
        """Wait until something has changed since this was last asked; False after `within` seconds."""
        try:
            async with asyncio.timeout(max(0.0, within)):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class Watchers:
    """All of one gateway."""

    def __init__(self, source: Versions, *, most: int, poll: float) -> None:
        """Allow `most` of them; look every `poll` seconds for what other gateways changed."""
        self._source = source
        self._most = most
        self._poll = poll
        self._watched: dict[TaskKey, set[Watcher]] = {}
        self._seen: dict[TaskKey, tuple[int, float]] = {}
        self._count = 0
        self._any = asyncio.Event()

    @asynccontextmanager
    async def watching(self, key: TaskKey) -> AsyncIterator[Watcher]:
        """Follow a task. Raises `TooManyWatchers`."""
        if self._count >= self._most:
            raise TooManyWatchers(
                f"{self._count} callers follow or wait for tasks, as many as may",
                next_step="ask for the task from time to time instead, or raise the setting tasks.watchers",
                retry_after=5.0,
            )
        watcher = Watcher()
        self._count += 1
        self._watched.setdefault(key, set()).add(watcher)
        self._any.set()
        try:
            yield watcher
        finally:
            self._count -= 1
            those = self._watched[key]
            those.remove(watcher)
            if not those:
                del self._watched[key]
                self._seen.pop(key, None)
            if not self._watched:
                self._any.clear()

    def tell(self, key: TaskKey) -> None:
        """A task has changed, by this gateway."""
        for watcher in self._watched.get(key, ()):
            watcher.tell()

    def piece(self, key: TaskKey, name: bytes, data: bytes) -> None:
        """A task's agent said something, at this gateway."""
        for watcher in self._watched.get(key, ()):
            watcher.pieces.append((name, data))
            watcher.tell()

    async def run(self) -> None:
        """Look for what other gateways changed while anybody follows anything; until cancelled."""
        while True:
            await self._any.wait()
            try:
                found = await self._source.versions(list(self._watched))
            except Exception as error:
                log.warning("followed tasks could not be looked at", extra={"error": str(error)})
            else:
                self._compare(found)
            await asyncio.sleep(self._poll)

    def _compare(self, found: Mapping[TaskKey, tuple[int, float]]) -> None:
        for key in list(self._watched):
            # A task that is gone has changed, too.
            is_now = found.get(key, (-1, 0.0))
            if self._seen.get(key) != is_now:
                self._seen[key] = is_now
                self.tell(key)
