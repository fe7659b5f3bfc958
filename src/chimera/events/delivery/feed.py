"""The journal's newest events in memory, read once for all who follow them in this process.

One loop looks at the journal's last place; when it has moved, the new events are read in one query and kept in a ring
of fixed length. Whoever follows keeps a place of its own and asks for what is behind it: from the ring, or, far behind,
from the database by a page at a time. Nothing is queued for anybody, so a slow reader costs nobody anything.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.ports import JournalReader
from chimera.events.model import RecordedFact

log = logging.getLogger(__name__)

RING = 4_096
AT_ONCE = 4
"""Pages read at once for those who are far behind."""


class Feed:
    """The events of one process's followers. Made inside the event loop; `run` is its loop."""

    def __init__(self, journal: JournalReader, *, source: str, poll: float, batch: int) -> None:
        """Look at `journal` every `poll` seconds while anybody follows."""
        self._journal = journal
        self._source = source
        self._poll = poll
        self._batch = batch
        self._ring: deque[Entry] = deque(maxlen=RING)
        self._reading = asyncio.Semaphore(AT_ONCE)
        self._moved = asyncio.Event()
        self._looking = asyncio.Lock()
        self._followers = 0
        self._told: list[Callable[[], None]] = []
        self._wanted = asyncio.Event()
        self.last = 0
        self.changes = 0

    async def look(self) -> None:
        """Look at the journal now."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        last, changes = await self._journal.heads()
        if self.last == 0 or not 0 <= last - self.last <= RING:  # the first look for long, or another journal
            self._ring.clear()
            self.last = last
            self._tell()
        while self.last < last:
            facts = await self._journal.facts(self.last, self._batch)
            if not facts:
                break
            self._ring.extend(Entry(fact, self._source) for fact in facts)
            self.last = facts[-1].seq
            self._tell()
        if changes != self.changes:
            self.changes = changes
            self._tell()

    async def run(self) -> None:
        """Look for ever while anybody follows; a journal that can't be read is looked at again."""
        failing = False
        while True:
            await self._wanted.wait()
            try:
                await self.look()
                failing = False
            except Exception as error:
                if not failing:
                    log.warning("the journal can't be read; followers wait", extra={"error": str(error)})
                failing = True
            await asyncio.sleep(self._poll)

    @contextmanager
    def followed(self, tell: Callable[[], None] | None = None) -> Iterator[None]:
        """Follow: the journal is looked at meanwhile, and `tell` called when there is something new."""
        self._followers += 1
        self._wanted.set()
        if tell is not None:
            self._told.append(tell)
        try:
            yield
        finally:
            if tell is not None:
                self._told.remove(tell)
            self._followers -= 1
            if not self._followers:
                self._wanted.clear()

    async def moved(self, within: float) -> bool:
        """Wait until there is something new; False after `within` seconds."""
        moved = self._moved
        try:
            async with asyncio.timeout(max(0.0, within)):
                await moved.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Have whoever waits look again, though there is nothing new."""
        self._tell()

    def entry(self, fact: RecordedFact) -> Entry:
        """A fact of the journal as this feed's entries are."""
        return Entry(fact, self._source)

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Events of all tenants behind a place, in order, `limit` at most."""
        if after >= self.last:
            return ()
        if self._ring and self._ring[0].fact.seq <= after + 1:
            start = after + 1 - self._ring[0].fact.seq
            return list(islice(self._ring, start, start + limit))
        async with self._reading:
            return [Entry(fact, self._source) for fact in await self._journal.facts(after, limit)]

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        for tell in self._told:
            tell()
