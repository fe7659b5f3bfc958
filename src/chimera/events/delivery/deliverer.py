"""The loop that delivers: one for all subscriptions, in the one process that holds the lease.

It reads each batch of the journal once for all subscriptions that stand before it, asks an index who wants what, and
puts events into their subjects' lines (`lines.py`). Those that are far behind are caught up a batch at a time, in turn
with the newest events, so that nobody waits for them. Attempts are made by as many tasks as there are requests at once,
each receiver has its share of those (`receivers.py`), and what follows an attempt is a rule (`rules.py`). Progress is
written down for all subscriptions in one transaction that checks the lease's token.

While progress can't be written, nothing is sent: it would all be sent again.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from chimera.events import signing
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.feed import Feed
from chimera.events.delivery.index import Index
from chimera.events.delivery.lines import Item, Line, Lines, Moment
from chimera.events.delivery.model import BUS, OWN, TASKS, Outcome, Progress, Row, Subscription
from chimera.events.delivery.ports import Bus, DeliveryStore, JournalReader, Push, Secrets
from chimera.events.delivery.receivers import ReceiverKey, Turns
from chimera.events.delivery.rules import Dead, Policy, after
from chimera.events.settings import EventSettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease

log = logging.getLogger(__name__)

CURSORS = 2.0
"""Seconds after which cursors that moved over events that nobody wanted are written down."""
IDLE = 1.0
LAST_SAVE = 2.0
ADOPT = 30.0
"""Seconds after which buses are looked for that nobody delivers: their process may have ended without a word."""
SUSPENDED = 5.0
"""Seconds after which the events of a suspended tenant are looked at again."""
TASK_TYPE = "task."
ENDED = frozenset({"task.succeeded", "task.failed", "task.cancelled", "task.expired"})


@dataclass(kw_only=True, slots=True, eq=False)
class Subscriber:
    """A subscription, and its lines."""

    subscription: Subscription
    lines: Lines

    @property
    def id(self) -> str:
        """The subscription's id."""
        return self.subscription.id


class _Due(NamedTuple):
    at: float
    number: int
    line: Line


class Deliverer:
    """Delivers while its `run` runs. Made inside the event loop."""

    def __init__(
        self,
        store: DeliveryStore,
        journal: JournalReader,
        feed: Feed,
        push: Push,
        secrets: Secrets,
        clock: Clock,
        *,
        key: str,
        settings: EventSettings,
        chance: Callable[[], float],
        bus: Bus | None = None,
        suspended: Callable[[str], bool] = lambda _: False,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Deliver what the key of the id `key` signs; `told` hears what each attempt came to."""
        self._store = store
        self._bus = bus
        self._journal = journal
        self._feed = feed
        self._push = push
        self._secrets = secrets
        self._clock = clock
        self._key = key
        self._settings = settings
        self._chance = chance
        self._suspended = suspended
        self._told = told
        self._policy = Policy(
            attempts=settings.attempts,
            give_up=settings.give_up,
            backoff=settings.backoff,
            backoff_cap=settings.backoff_cap,
        )
        self._numbers = itertools.count()
        self._lease: Lease | None = None
        self._begin()

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._sends)

    @property
    def outstanding(self) -> int:
        """Events that are on their way, or wait."""
        return sum(one.lines.outstanding for one in self._subscribers.values())

    @property
    def behind(self) -> int:
        """How many events the last active subscription is behind the journal."""
        taken = [one.lines.cursor for one in self._subscribers.values() if self._is_active(one)]
        return max(0, self._feed.last - min(taken)) if taken else 0

    async def run(self, lease: Lease) -> None:
        """Deliver under `lease`, until cancelled or the lease is lost."""
        self._begin()
        self._lease = lease
        with self._feed.followed(self._wake.set):
            await self._feed.look()
            saver = asyncio.create_task(self._save_for_ever(), name="deliveries-save")
            saver.add_done_callback(lambda _: self._wake.set())
            try:
                await self._deliver(saver)
            finally:
                await self._end(saver)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._lease = None
        self._subscribers: dict[str, Subscriber] = {}
        self._of_tasks: dict[str, Subscriber] = {}
        self._of_bus: dict[str, Subscriber] = {}
        self._index = Index(())
        self._changes = -1
        self._adopts = 0.0
        self._turns = Turns(self._settings.per_receiver)
        self._due: list[_Due] = []
        self._sends: set[asyncio.Task[None]] = set()
        self._storing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._sleeps_until = 0.0
        self._unwritten = False
        self._cursors_saved = 0.0

    async def _deliver(self, saver: "asyncio.Task[None]") -> None:
        while not saver.done():
            self._wake.clear()
            if self._changes != self._feed.changes or self._is_to_adopt():
                await self._reload()
            more = False if self._unwritten else await self._take()
            self._go_on()
            if more:
                await asyncio.sleep(0)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next()):
                        await self._wake.wait()
        await saver

    def _until_next(self) -> float:
        now = self._clock.monotonic()
        times = [now + IDLE]
        if self._due:
            times.append(self._due[0].at)
        if (rest := self._turns.next_rest()) is not None:
            times.append(rest)
        self._sleeps_until = min(times)
        return max(0.0, self._sleeps_until - now)

    def _wake_by(self, at: float) -> None:
        """Wake the loop where it would sleep longer."""
        if at < self._sleeps_until:
            self._wake.set()

    async def _end(self, saver: "asyncio.Task[None]") -> None:
        sends = list(self._sends)
        for task in (saver, *sends):
            task.cancel()
        await asyncio.gather(saver, *sends, return_exceptions=True)
        with suppress(Exception):
            async with asyncio.timeout(LAST_SAVE):
                await self._save(everything=True)
        for one in self._subscribers.values():
            one.lines.stopped = True

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def _is_to_adopt(self) -> bool:
        return self._bus is not None and self._clock.monotonic() >= self._adopts

    async def _reload(self) -> None:
        """Take over what was changed through the API."""
        changes = self._feed.changes
        async with self._storing:
            await self._write(everything=True)
            known = {one.id: one.lines.rows for one in self._subscribers.values()}
            if self._bus is not None:
                await self._store.adopt(self._key)
                self._adopts = self._clock.monotonic() + ADOPT
            stored = await self._store.subscriptions(self._key)
            for one in stored:
                before = self._subscribers.get(one.id)
                if before is None or before.lines.epoch != one.epoch:
                    if before is not None:
                        before.lines.stopped = True
                    await self._load(one)
                elif before.subscription.version != one.version:
                    before.subscription = one
                    before.lines.stopped = one.state != "active"
                    kept = await self._store.kept(one, before.lines.cursor)
                    await self._restore(before, [row for row in kept.rows if row.seq not in known[one.id]])
            for gone in self._subscribers.keys() - {one.id for one in stored}:
                self._subscribers.pop(gone).lines.stopped = True
        every = list(self._subscribers.values())
        self._of_tasks = {one.subscription.tenant: one for one in every if one.subscription.kind == TASKS}
        self._of_bus = {one.subscription.tenant: one for one in every if one.subscription.kind == BUS}
        self._index = Index(one.subscription for one in every if one.subscription.kind not in OWN)
        self._turns.forget()
        self._changes = changes

    async def _load(self, stored: Subscription) -> None:
        kept = await self._store.kept(stored, stored.cursor)
        lines = Lines(stored.id, tenant=stored.tenant, epoch=stored.epoch, cursor=stored.cursor, over=kept.over)
        lines.stopped = stored.state != "active"
        made = Subscriber(subscription=stored, lines=lines)
        self._subscribers[stored.id] = made
        await self._restore(made, kept.rows)

    async def _restore(self, one: Subscriber, rows: Sequence[Row]) -> None:
        """Take over rows that this process hasn't made: those left by another, and replayed dead letters."""
        facts = {row.seq: row.fact for row in rows if row.fact is not None}
        found = await self._journal.facts_at([row.seq for row in rows if row.fact is None])
        facts |= {fact.seq: fact for fact in found}
        now = self._now()
        most = max(self._settings.backoff_cap, self._settings.give_up)
        for row in rows:
            fact = facts.get(row.seq)
            if fact is None:
                log.error("an event that is to be delivered is gone", extra={"subscription": one.id, "seq": row.seq})
                continue
            one.lines.restore(row, self._feed.entry(fact), now, most_wait=most)
        for line in one.lines.idle():
            self._schedule(one, line)

    def _is_active(self, one: Subscriber) -> bool:
        return not one.lines.stopped and not self._suspended(one.subscription.tenant)

    # -- taking events -------------------------------------------------------------------------------------------------

    async def _take(self) -> bool:
        """Read on for those who have room; whether there is more to read at once."""
        most, last = self._settings.outstanding, self._feed.last
        takers = [
            one
            for one in self._subscribers.values()
            if one.lines.taken < last and one.lines.outstanding < most and self._is_active(one)
        ]
        if not takers:
            return False
        places = [one.lines.taken for one in takers]
        # Those at the end first, then those who are furthest behind; who is between is reached by these.
        for start in sorted({max(places), min(places)}, reverse=True):
            entries = await self._feed.read(start, self._settings.batch)
            there = entries[0].fact.seq - 1 if entries else self._feed.last
            if there > start:
                self._pass_gap(takers, there)
            if entries:
                await self._hand_out(entries, takers)
        return any(one.lines.taken < self._feed.last and one.lines.outstanding < most for one in takers)

    async def _hand_out(self, entries: Sequence[Entry], takers: list[Subscriber]) -> None:
        first, through = entries[0].fact.seq, entries[-1].fact.seq
        targets = await self._store.targets(_tasks_of(entries)) if self._of_tasks else {}
        here = {one.id: one for one in takers if first - 1 <= one.lines.taken < through}
        bus = self._bus if self._of_bus else None
        if bus is not None:
            await bus.refresh()
        most = self._settings.outstanding
        for entry in entries:
            fact = entry.fact
            wanted = [(here.get(name), None, False) for name in self._index.wanted_by(entry)]
            if bus is not None and (of_bus := self._of_bus.get(fact.tenant)) is not None and bus.wants(entry):
                wanted.append((here.get(of_bus.id), None, False))
            name = _task_of(entry)
            if name is not None and (target := targets.get(name)) is not None:
                of_tasks = self._of_tasks.get(fact.tenant)
                told = fact.type.removeprefix(TASK_TYPE) in target.states
                if told:
                    wanted.append((here.get(of_tasks.id) if of_tasks else None, target, fact.type in ENDED))  # type: ignore[arg-type]
                elif of_tasks is not None and of_tasks.id in here and fact.type in ENDED:
                    of_tasks.lines.ended_task(*name)
            for one, aim, is_last in wanted:
                if one is None:
                    continue
                line = one.lines.take(entry, aim, last=is_last)
                one.lines.passed(fact.seq)
                if line is not None:
                    self._schedule(one, line)
                if one.lines.outstanding >= most:
                    del here[one.id]
        for one in here.values():
            one.lines.passed(through)

    def _pass_gap(self, takers: list[Subscriber], there: int) -> None:
        log.error("events that a subscription needs are gone from the journal", extra={"until": there})
        for one in takers:
            one.lines.passed(there)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _schedule(self, one: Subscriber, line: Line) -> None:
        """The line's head is to be sent: now, or when it is due."""
        if line.busy or line.queued or not line.items:
            return
        now = self._clock.monotonic()
        if line.head.due > now:
            heapq.heappush(self._due, _Due(line.head.due, next(self._numbers), line))
            self._wake_by(line.head.due)
        else:
            line.queued = True
            self._turns.add(_receiver(one.subscription, line.head), line, now)

    def _go_on(self) -> None:
        """Begin what is due, as far as there is room."""
        if self._unwritten:
            return
        now = self._clock.monotonic()
        while self._due and self._due[0].at <= now:
            line = heapq.heappop(self._due).line
            if (one := self._current(line)) is not None:
                self._schedule(one, line)
        while len(self._sends) < self._settings.concurrency and (found := self._turns.next(now)) is not None:
            receiver, line = found
            line.queued = False
            one = self._current(line)
            if one is None or line.busy or not line.items or not self._is_active(one):
                self._turns.answered(receiver, None, now)
                if one is not None and not one.lines.stopped:  # its tenant is suspended: who is paused is told
                    heapq.heappush(self._due, _Due(now + SUSPENDED, next(self._numbers), line))
                continue
            if line.head.due > now:  # another event came before the one that waited
                self._turns.answered(receiver, None, now)
                self._schedule(one, line)
                continue
            item = one.lines.begin(line, self._now())
            task = asyncio.create_task(self._send(one, line, item, receiver), name="delivery")
            self._sends.add(task)
            task.add_done_callback(self._sent)

    def _current(self, line: Line) -> Subscriber | None:
        one = self._subscribers.get(line.owner.subscription)
        return one if one is not None and one.lines is line.owner else None

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a delivery failed by a fault of the platform", exc_info=error)
        self._go_on()
        if (rest := self._turns.next_rest()) is not None:
            self._wake_by(rest)

    async def _send(self, one: Subscriber, line: Line, item: Item, receiver: ReceiverKey) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._attempt(one.subscription, item)
        except Exception as error:
            log.error("an event could not be sent", exc_info=error, extra={"subscription": one.id})
            outcome = Outcome(result="failed", reason="the platform could not send it; see its log")
        finally:
            self._turns.answered(receiver, outcome, self._clock.monotonic())
        if line.owner is not one.lines:
            return  # the subscription was set to another place meanwhile
        now = self._now()
        first = item.first or now
        verdict = after(
            outcome,
            attempts=item.attempts,
            age=now.steady - first.steady,
            policy=self._policy,
            chance=self._chance(),
            alone=item.target is not None,
        )
        going_on = one.lines.settle(line, verdict, outcome, now, letter=new_id("dl"))
        self._told("dead" if isinstance(verdict, Dead) else outcome.result)
        if going_on is not None:
            self._schedule(one, going_on)
        if one.lines.taken < self._feed.last and one.lines.outstanding <= self._settings.outstanding // 2:
            self._wake.set()

    async def _attempt(self, subscription: Subscription, item: Item) -> Outcome:
        if subscription.kind == BUS:
            assert self._bus is not None, "a process without one has no such subscription"
            return await self._bus.publish(item.entry)
        now = self._clock.wall()
        fact = item.entry.fact
        try:
            if item.target is None:
                url, mode = subscription.url, subscription.mode
                secrets = await self._secrets.of_subscription(subscription, now)
            else:
                url, mode = item.target.url, "structured"
                secrets = await self._secrets.of_task(fact.tenant, fact.subject.rpartition("/")[2], item.target)
        except LookupError:
            return Outcome(result="failed", reason="the secret that signs it can't be had")
        headers, body = item.entry.written(mode)
        return await self._push.post(url, {**headers, **signing.signed(secrets, fact.id, now, body)}, body)

    # -- progress ------------------------------------------------------------------------------------------------------

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.save)
            await self._save()

    async def _save(self, *, everything: bool = False) -> None:
        async with self._storing:
            await self._write(everything=everything)

    async def _write(self, *, everything: bool) -> None:
        """Write down what has changed; raises `LeaseLost` (or what else is not to be tried again)."""
        now = self._clock.monotonic()
        cursors = everything or now - self._cursors_saved >= CURSORS
        told: list[tuple[Lines, Progress]] = []
        for one in self._subscribers.values():
            if one.lines.is_dirty or (cursors and one.lines.unsaved_cursor):
                told.append((one.lines, one.lines.changes()))
        if cursors:
            self._cursors_saved = now
        if not told:
            return
        assert self._lease is not None, "it runs"
        try:
            await self._store.save([progress for _, progress in told], self._lease)
        except BaseException as error:
            for lines, progress in told:
                lines.unsaved(progress)
            if not isinstance(error, Exception) or getattr(error, "code", "") == "lease-lost":
                raise
            if not self._unwritten:
                log.warning("progress of deliveries can't be written; they wait", extra={"error": str(error)})
            self._unwritten = True
            return
        for lines, progress in told:
            lines.saved(progress)
        if self._unwritten:
            self._unwritten = False
            self._wake.set()

    def _now(self) -> Moment:
        return Moment(self._clock.monotonic(), self._clock.wall())


def _receiver(subscription: Subscription, item: Item) -> ReceiverKey:
    if item.target is None:
        return subscription.id, ""
    parts = urlsplit(item.target.url)
    return subscription.id, f"{parts.scheme}://{parts.netloc}"


def _task_of(entry: Entry) -> tuple[str, str] | None:
    fact = entry.fact
    return (fact.tenant, fact.subject.rpartition("/")[2]) if fact.type.startswith(TASK_TYPE) else None


def _tasks_of(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(name for entry in entries if (name := _task_of(entry)) is not None))
