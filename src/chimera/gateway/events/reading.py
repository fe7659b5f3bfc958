"""Events as callers read them: in pages, and as a stream that goes on where a reader stopped.

A stream has a place in the journal and nothing else: what is behind it is taken from the feed when the reader has taken
what came before. So a slow reader holds nothing but its connection, which ends when it takes nothing for long.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from chimera.events.cloudevents import CloudEvent
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.feed import Feed
from chimera.events.delivery.model import EVERYWHERE
from chimera.events.delivery.ports import JournalReader
from chimera.events.errors import EventsGone, TooManyStreams
from chimera.events.filters import Filter, check, passes
from chimera.events.settings import EventSettings
from chimera.kernel.clock import Clock

SCANNED = 10_000
"""Most events that are looked at for one page."""
CHUNK = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which events: those of a tenant (`*`: of all) that pass the filters."""

    tenant: str
    filters: Sequence[Filter] = ()

    def takes(self, entry: Entry) -> bool:
        """Whether the event is one of them."""
        if self.tenant not in (EVERYWHERE, entry.fact.tenant):
            return False
        return passes(self.filters, entry.attributes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Events in their order, the place behind which to go on, and whether there is more."""

    events: list[CloudEvent]
    next: int
    more: bool


class Events:
    """The events of one gateway's readers."""

    def __init__(self, journal: JournalReader, feed: Feed, clock: Clock, *, settings: EventSettings) -> None:
        """Read `journal`, and its newest events from `feed`."""
        self._journal = journal
        self._feed = feed
        self._clock = clock
        self._settings = settings
        self.streams = 0
        self._leaving = False

    def leave(self) -> None:
        """End all streams: readers resume at another gateway."""
        self._leaving = True
        self._feed.wake()

    async def page(self, wanted: Wanted, after: int, limit: int) -> Page:
        """Those behind a place. Raises `EventsGone`."""
        last = await self._check(after)
        tenant = None if wanted.tenant == EVERYWHERE else wanted.tenant
        found: list[CloudEvent] = []
        scanned = 0
        while scanned < SCANNED:
            facts = await self._journal.facts_of(tenant, after=after, limit=CHUNK)
            for fact in facts:
                entry = self._feed.entry(fact)
                if wanted.takes(entry):
                    if len(found) == limit:
                        return Page(events=found, next=after, more=True)
                    found.append(entry.event)
                after = fact.seq
            scanned += len(facts)
            if len(facts) < CHUNK:
                return Page(events=found, next=max(after, last), more=False)
        return Page(events=found, next=after, more=True)

    async def newest(self, wanted: Wanted, limit: int) -> Page:
        """The newest ones, in their order."""
        last, _ = await self._journal.heads()
        tenant = None if wanted.tenant == EVERYWHERE else wanted.tenant
        found: list[CloudEvent] = []
        scanned, before = 0, last + 1
        while scanned < SCANNED and len(found) < limit:
            facts = await self._journal.facts_of(tenant, before=before, limit=CHUNK)
            entries = (self._feed.entry(fact) for fact in facts)
            found += [entry.event for entry in entries if wanted.takes(entry)]
            scanned += len(facts)
            if len(facts) < CHUNK:
                break
            before = facts[-1].seq
        return Page(events=found[:limit][::-1], next=last, more=False)

    async def stream(
        self, wanted: Wanted, after: int | None, *, pulse: float, may: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[bytes, None]:
        """Server-sent events behind a place, or from now on; what is given at once is to be written at once.

        Every `pulse` seconds `may` is asked, which raises when the reader may read no more, and the place is told, so
        that a reader of rare events resumes near the end. Raises `EventsGone`, `TooManyStreams`.
        """
        if self.streams >= self._settings.streams:
            raise TooManyStreams(
                f"{self.streams} streams of events are open, as many as may be",
                next_step="ask for pages instead, or raise the setting events.streams",
                retry_after=5.0,
            )
        self.streams += 1
        try:
            with self._feed.followed():
                async for frames in self._follow(wanted, after, pulse, may):
                    yield frames
        finally:
            self.streams -= 1

    async def _follow(
        self, wanted: Wanted, after: int | None, pulse: float, may: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[bytes, None]:
        await self._feed.look()
        place = self._feed.last if after is None else after
        if after is not None:
            await self._check(after)
        now = self._clock.monotonic()
        until, beat, told = now + self._settings.stream_life, now + pulse, place
        yield _place(place)
        while (now := self._clock.monotonic()) < until and not self._leaving:
            entries = await self._feed.read(place, self._settings.batch)
            if entries and entries[0].fact.seq != place + 1:
                raise _gone(place, entries[0].fact.seq)
            frames = b"".join(_frame(entry) for entry in entries if wanted.takes(entry))
            if entries:
                place = entries[-1].fact.seq
            if frames:
                told = place
                yield frames
            if now >= beat:
                await may()
                beat = now + pulse
                if told != place:
                    told = place
                    yield _place(place)
            if entries:
                await asyncio.sleep(0)
            else:
                await self._feed.moved(min(beat, until) - now)

    async def _check(self, after: int) -> int:
        """The journal's last place; raises `EventsGone` where it has not all that is behind `after`."""
        last, _ = await self._journal.heads()
        oldest = await self._journal.oldest()
        if after + 1 < oldest or after > last:
            raise _gone(after, oldest)
        return last


def _gone(after: int, oldest: int) -> EventsGone:
    return EventsGone(
        f"the events behind place {after} are not all there: the journal begins with {oldest}",
        next_step=f"go on with what is kept (after={oldest - 1}), or without a place with what comes from now on",
    )


def _frame(entry: Entry) -> bytes:
    _, body = entry.written("structured")
    return b"id: %d\ndata: %b\n\n" % (entry.fact.seq, body)


def _place(place: int) -> bytes:
    """A frame that moves the reader's last event id and is no event: it has no data."""
    return b"id: %d\n\n" % place


def decoded_filters(text: str) -> list[Filter]:
    """Filters that a query parameter holds as JSON; raises what is wrong with them."""
    found: list[Filter] = msgspec.json.decode(text, type=list[dict[str, object]])
    check(found)
    return found
