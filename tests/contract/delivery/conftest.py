"""The sides of agents, on both databases and in memory, with one way of filling all."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from chimera.delivery.sides.model import Seen
from chimera.delivery.sides.ports import Sides
from chimera.kernel.leases import Lease
from chimera.testing.clock import ManualClock
from chimera.testing.leases import MemoryLeases
from chimera.testing.sides import MemorySides

TENANT = "default"
LEASE = "rollouts"


class World(Protocol):
    """Sides, and what happens around them."""

    sides: Sides

    async def store(self, agent: str, words: str) -> str:
        """A revision of an agent that nothing points to."""

    async def apply(self, agent: str, words: str) -> str:
        """A revision of an agent that is live by a direct change."""

    async def delete(self, agent: str) -> None:
        """The agent is taken out of service directly."""

    async def own(self, agent: str) -> None:
        """The agent belongs to a resource."""

    async def load(self, agent: str, wanted: int, holding: int, problem: str | None = None) -> None:
        """A gateway has looked where blue is loaded, and loaded green there."""

    async def see(self, *seen: Seen) -> int:
        """A gateway tells of a window; its place."""

    async def held(self, owner: str = "me") -> Lease:
        """The lease that rollouts are worked under, taken over from whoever had it."""

    async def changes(self, agent: str) -> list[tuple[str | None, str | None]]:
        """The revisions that were made live and the changes that did it, the newest last."""

    def later(self, seconds: float) -> None:
        """Time passes."""


class InMemory:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.leases = MemoryLeases(self.clock)
        self.sides: Any = MemorySides(self.clock, self.leases)

    async def store(self, agent: str, words: str) -> str:
        digest = f"sha256:{agent}-{words}"
        self.sides.store(TENANT, agent, digest)
        return digest

    async def apply(self, agent: str, words: str) -> str:
        digest = await self.store(agent, words)
        self.sides.apply(TENANT, agent, digest)
        return digest

    async def delete(self, agent: str) -> None:
        self.sides.apply(TENANT, agent, None)

    async def own(self, agent: str) -> None:
        self.sides.owned.add((TENANT, agent))

    async def load(self, agent: str, wanted: int, holding: int, problem: str | None = None) -> None:
        self.sides.load(TENANT, agent, wanted, holding, problem)

    async def see(self, *seen: Seen) -> int:
        return self.sides.see(TENANT, *seen)

    async def held(self, owner: str = "me") -> Lease:
        if (before := self.leases.leases.get(LEASE)) is not None:
            await self.leases.release(before)
        lease = await self.leases.acquire(LEASE, owner, 60.0)
        assert lease is not None
        return lease

    async def changes(self, agent: str) -> list[tuple[str | None, str | None]]:
        return [(revision, change) for _, name, revision, change in self.sides.changes if name == agent]

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture(params=["memory"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(dialect: str) -> AsyncIterator[World]:
    assert dialect == "memory"
    yield InMemory()
