"""What upkeep works on, whichever database it is."""

from collections.abc import Sequence
from typing import Protocol

from chimera.kernel.leases import Lease
from chimera.platform.upkeep.model import Cursor, Kind, Measure, Record, Step


class UpkeepStore(Protocol):
    """The database's side of upkeep."""

    @property
    def kinds(self) -> Sequence[Kind]:
        """All kinds, in the order in which they are worked on: what holds others goes first."""

    @property
    def patience(self) -> float:
        """How many times `upkeep.batch` a step may take: 1 where all other writers wait for it."""

    async def now(self) -> float:
        """Seconds since the epoch by the database's clock."""

    async def records(self) -> Sequence[Record]:
        """What became of each kind; kinds that were never looked through are due."""

    async def step(self, kind: str, limit: int, after: Cursor, lease: Lease) -> Step:
        """Remove about `limit` rows in one transaction, and count them in the kind's record.

        Raises `LeaseLost` where another process does this now.
        """

    async def measure(self, kind: str) -> Measure:
        """Estimate how much there is; cheap, however much that is."""

    async def note(self, record: Record, lease: Lease) -> None:
        """Store what became of a kind, but for what was removed, which `step` counts; raises `LeaseLost`."""

    async def ask(self, kinds: Sequence[str]) -> float:
        """Make kinds due now; the time, by the database's clock."""

    async def worker(self) -> str | None:
        """Which process does this now; None where nobody does."""

    async def due(self, kind: str, most: int) -> int:
        """How many rows would go now, counted up to `most`. Nothing is written."""
