"""The loop that does upkeep, in one process at a time, under a lease.

It goes by state: each kind has a stored record that says when it is due, so a restart, or another process that takes
the lease over, goes on where this one was, and `chimera upkeep run` makes kinds due wherever it is asked. The rows
themselves say what is left to remove; a transaction removes a few of them and checks the lease's token, so that an
owner who comes back late removes nothing.

Calls come first. A transaction is as small as fits into `upkeep.batch`, whatever a row of its kind costs here, and
after each there is a pause in proportion. A kind that has much to remove is left after a while for the others, and
gone on with.

What fails is logged once, noted, and tried again later and later. On a full disk the note can't be stored either: then
this process remembers it.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera.platform.upkeep import rules
from chimera.platform.upkeep.model import START, Cursor, Kind, KindStatus, Record, UpkeepStatus
from chimera.platform.upkeep.ports import UpkeepStore
from chimera.platform.upkeep.settings import UpkeepSettings
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "upkeep"
LOST = "lease-lost"
TICK = 2.0
TURN = 30.0
"""Seconds for one kind before the next has its turn."""
NEVER = 1e15
"""When a kind is due that is looked through only when it is asked for (seconds since the epoch)."""


@dataclass(slots=True)
class _Pass:
    """A kind's pass that isn't over: where it goes on, what it removed, how long it took, and how it fails."""

    after: Cursor = START
    rows: int = rules.FIRST_ROWS
    removed: int = 0
    seconds: float = 0.0
    failures: int = 0
    wait_until: float = 0.0
    told: str | None = None


@dataclass(slots=True)
class Progress:
    """What the process that works shows in its metrics; empty in one that doesn't."""

    kinds: tuple[KindStatus, ...] = ()


class Upkeep:
    """Does upkeep on `store`."""

    def __init__(self, store: UpkeepStore, clock: Clock, settings: UpkeepSettings) -> None:
        """Work as `settings` say; `clock` times passes and pauses."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._passes: dict[str, _Pass] = {}
        self.progress = Progress()

    async def while_held(self, leases: Leases, owner: str, life: float) -> None:
        """Work whenever this owner holds the lease; until cancelled."""
        await work_while_held(leases, LEASE, owner, life, self.run)

    @property
    def kinds(self) -> list[str]:
        """The kinds by name."""
        return [kind.name for kind in self._store.kinds]

    async def status(self) -> UpkeepStatus:
        """How all kinds stand, whichever process does the work."""
        records, now = await self._store.records(), await self._store.now()
        return UpkeepStatus(kinds=statuses(self._store.kinds, records, now), worker=await self._store.worker())

    async def ask(self, kinds: Sequence[str]) -> float:
        """Make kinds due now; the time, by the database's clock."""
        return await self._store.ask(kinds)

    async def due(self, kind: str, most: int) -> int:
        """How many rows of a kind would go now, counted up to `most`."""
        return await self._store.due(kind, most)

    async def now(self) -> float:
        """The time by the database's clock."""
        return await self._store.now()

    async def run(self, lease: Lease) -> None:
        """Work until cancelled."""
        self._passes = {}
        try:
            while True:
                await self.round(lease)
                await asyncio.sleep(TICK)
        finally:
            self.progress.kinds = ()

    async def round(self, lease: Lease) -> None:
        """Give every kind that is due its turn."""
        try:
            records = {record.kind: record for record in await self._store.records()}
            now = await self._store.now()
        except ProblemError as error:
            log.warning("upkeep could not look at its records", extra={"problem": error.detail})
            return
        self.progress.kinds = tuple(statuses(self._store.kinds, records.values(), now))
        for kind in self._store.kinds:
            found = self._passes.get(kind.name)
            waits = found is not None and self._clock.monotonic() < found.wait_until
            if records[kind.name].due <= now and not waits:
                records[kind.name] = await self._turn(kind, records[kind.name], lease)
                self.progress.kinds = tuple(statuses(self._store.kinds, records.values(), now))

    async def _turn(self, kind: Kind, record: Record, lease: Lease) -> Record:
        this = self._passes.setdefault(kind.name, _Pass())
        began, before = self._clock.monotonic(), this.removed
        try:
            over = await self._remove(kind, this, began, lease)
            this.seconds += self._clock.monotonic() - began
            made = replace(record, removed=record.removed + this.removed - before)
            if over:
                made = await self._ended(kind, this, made)
            await self._store.note(made, lease)
        except ProblemError as error:
            if error.code == LOST:
                raise  # whoever has taken over goes on
            return await self._failed(kind, this, record, error, lease)
        if over:
            del self._passes[kind.name]
            if this.removed:
                extra = {"kind": kind.name, "removed": this.removed, "seconds": round(this.seconds, 3)}
                log.info("upkeep removed rows", extra=extra)
        return made

    async def _remove(self, kind: Kind, this: _Pass, began: float, lease: Lease) -> bool:
        """Remove batch after batch for one turn; whether the pass is over."""
        if kind.keep is None:
            return True
        while True:
            step = await self._store.step(kind.name, this.rows, this.after, lease)
            this.removed += step.removed
            if step.after is None:
                return True
            this.after = step.after
            this.rows = rules.next_rows(this.rows, step.seconds, self._settings.batch * self._store.patience)
            await asyncio.sleep(rules.pause(step.seconds, self._settings.share))
            if self._clock.monotonic() - began > TURN:
                return False

    async def _ended(self, kind: Kind, this: _Pass, record: Record) -> Record:
        found = await self._store.measure(kind.name)
        now = await self._store.now()
        every = max(kind.every, self._settings.interval)
        return replace(
            record,
            due=now + every if self._settings.interval else NEVER,
            finished=now,
            seconds=round(this.seconds, 6),
            last=this.removed,
            failures=0,
            problem=None,
            rows=found.rows,
            bytes=found.bytes,
            oldest=found.oldest,
        )

    async def _failed(self, kind: Kind, this: _Pass, record: Record, error: ProblemError, lease: Lease) -> Record:
        this.failures += 1
        # Where there is hardly any room, a small transaction may still find some, and makes more.
        this.rows = rules.LEAST_ROWS
        this.wait_until = self._clock.monotonic() + rules.retry_after(this.failures, error.retry_after)
        if this.told != error.code:
            this.told = error.code
            extra = {"kind": kind.name, "problem": error.detail, "next_step": error.next_step}
            log.warning("upkeep failed and will be tried again", extra=extra)
        failed = replace(record, failures=this.failures, problem=error.detail)
        try:
            await self._store.note(failed, lease)
        except ProblemError as again:
            if again.code == LOST:
                raise
            log.debug("a failure of upkeep could not be noted", extra={"kind": kind.name, "problem": again.detail})
        return failed


def statuses(kinds: Sequence[Kind], records: Iterable[Record], now: float) -> list[KindStatus]:
    """The kinds for people and metrics."""
    by_kind = {record.kind: record for record in records}
    return [_status(kind, by_kind[kind.name], now) for kind in kinds]


def _status(kind: Kind, record: Record, now: float) -> KindStatus:
    return KindStatus(
        kind=kind.name,
        keep=kind.keep,
        rows=record.rows,
        bytes=record.bytes,
        oldest=None if record.oldest is None else max(0.0, now - record.oldest),
        removed=record.removed,
        last=record.last,
        finished=record.finished,
        seconds=record.seconds,
        due=record.due if record.due < NEVER else None,
        failures=record.failures,
        problem=record.problem,
    )
