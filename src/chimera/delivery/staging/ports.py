"""What staging needs to know of earlier traffic. Nothing is kept for it: it is read where it stands anyway."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.staging.sampling import Earlier


class Wanted(Struct, frozen=True, kw_only=True):
    """Which earlier inputs to read: up to `want` of each agent.

    None that may be gone before `kept_until`, so that no copy of it outlives it; a person's only with `people`; none
    longer than `most_bytes`. The same `seed` reads the same, as far as it is still there.
    """

    want: int
    kept_until: float
    people: bool
    most_bytes: int
    seed: str


class Traffic(Protocol):
    """What was said to live agents: turns of sessions, and what tasks asked."""

    async def allowed(self, tenant: str) -> ReplayPolicy:
        """What the tenant lets be replayed."""

    async def earlier(self, tenant: str, agents: Sequence[str], wanted: Wanted) -> Mapping[str, Sequence[Earlier]]:
        """Earlier inputs by agent. It looks at a bounded part of what is there, however much that is."""

    async def is_kept(self, tenant: str, one: Earlier) -> bool:
        """Whether an input still stands where it was read: neither erased nor replaced since."""

    async def told(self, tenant: str, change: str, counts: Mapping[str, int]) -> None:
        """Record in the audit log that earlier inputs were read for a change, and how much."""
