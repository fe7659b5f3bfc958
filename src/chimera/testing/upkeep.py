"""Upkeep's store in memory: the shipped fake that passes the same conformance suite as the database's."""

import bisect
from collections.abc import Sequence

from msgspec.structs import replace

from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.platform.upkeep.model import START, Cursor, Kind, Measure, Record, Step
from chimera.testing.leases import MemoryLeases
from chimera_host.contract.problem import ProblemError


class MemoryUpkeepStore:
    """An `UpkeepStore` of rows that are nothing but the times at which they ended, by kind."""

    def __init__(
        self,
        clock: Clock,
        leases: MemoryLeases,
        kinds: Sequence[Kind],
        *,
        row_seconds: float = 0.0,
        patience: float = 1.0,
    ) -> None:
        """Keep `kinds`; a removal takes `row_seconds` for each row, as it says, and others wait, as `patience` says."""
        self._clock = clock
        self._leases = leases
        self._kinds = kinds
        self._row_seconds = row_seconds
        self._patience = patience
        self._records: dict[str, Record] = {}
        self.rows: dict[str, list[float]] = {kind.name: [] for kind in kinds}
        self.failing: ProblemError | None = None
        self.steps: list[tuple[float, str, int]] = []

    @property
    def kinds(self) -> Sequence[Kind]:
        """See `UpkeepStore`."""
        return self._kinds

    @property
    def patience(self) -> float:
        """See `UpkeepStore`."""
        return self._patience

    async def now(self) -> float:
        """See `UpkeepStore`."""
        return self._clock.wall()

    async def records(self) -> Sequence[Record]:
        """See `UpkeepStore`."""
        return [self._records.get(kind.name) or Record(kind=kind.name) for kind in self._kinds]

    async def worker(self) -> str | None:
        """See `UpkeepStore`."""
        held = self._leases.leases.get("upkeep")
        return None if held is None or held.expires <= self._clock.wall() else held.owner

    async def step(self, kind: str, limit: int, after: Cursor, lease: Lease) -> Step:
        """See `UpkeepStore`; `failing` is raised where it is set, and `steps` tells what was asked when."""
        self.steps.append((self._clock.monotonic(), kind, limit))
        self._write(lease)
        removed = min(limit, self._old(kind))
        del self.rows[kind][:removed]
        before = self._records.get(kind) or Record(kind=kind)
        self._records[kind] = replace(before, removed=before.removed + removed)
        return Step(removed=removed, seconds=removed * self._row_seconds, after=None if removed < limit else START)

    async def measure(self, kind: str) -> Measure:
        """See `UpkeepStore`."""
        rows = self.rows[kind]
        return Measure(rows=len(rows), bytes=100 * len(rows), oldest=min(rows, default=None))

    async def note(self, record: Record, lease: Lease) -> None:
        """See `UpkeepStore`."""
        self._write(lease)
        before = self._records.get(record.kind)
        self._records[record.kind] = record if before is None else replace(record, removed=before.removed)

    async def ask(self, kinds: Sequence[str]) -> float:
        """See `UpkeepStore`."""
        if self.failing is not None:
            raise self.failing
        now = self._clock.wall()
        for kind in kinds:
            self._records[kind] = replace(self._records.get(kind) or Record(kind=kind), due=now)
        return now

    async def due(self, kind: str, most: int) -> int:
        """See `UpkeepStore`."""
        return min(most, self._old(kind))

    def _old(self, kind: str) -> int:
        """How many rows may go; they are the first ones."""
        keep = next(one.keep for one in self._kinds if one.name == kind)
        self.rows[kind].sort()
        return 0 if keep is None else bisect.bisect_right(self.rows[kind], self._clock.wall() - keep)

    def _write(self, lease: Lease) -> None:
        held = self._leases.leases.get(lease.name)
        if held is None or held.token != lease.token:
            lost = ProblemError(f"the lease {lease.name!r} is another's")
            lost.code, lost.status = "lease-lost", 409
            raise lost
        if self.failing is not None:
            raise self.failing
