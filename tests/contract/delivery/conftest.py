"""The sides of agents, on both databases and in memory, with one way of filling all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from sqlalchemy import select, update

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.catalogue import agent as agents
from chimera.adapters.storage.schema.catalogue import history
from chimera.adapters.storage.sides.rollback import Rollbacks
from chimera.adapters.storage.sides.store import SideStorage
from chimera.agents.compile import CompiledAgent
from chimera.delivery.sides.model import Seen
from chimera.delivery.sides.ports import Sides
from chimera.gateway.sides.ports import Loads, Noticed
from chimera.kernel.leases import Lease
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged
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

    async def roll_back(self, agent: str) -> None:
        """Somebody takes the agent back: a green side goes first."""

    async def own(self, agent: str) -> None:
        """The agent belongs to the resource `there/agent`."""

    async def owner(self, agent: str) -> str | None:
        """The resource that the live agent belongs to."""

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

    async def roll_back(self, agent: str) -> None:
        self.sides.roll_back(TENANT, agent)

    async def own(self, agent: str) -> None:
        self.sides.owned[TENANT, agent] = "there/agent"

    async def owner(self, agent: str) -> str | None:
        owner: str | None = self.sides.owned.get((TENANT, agent))
        return owner

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


class InDatabase:
    """The same on a database, where revisions are stored as batches store them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.catalogue = Catalogue(database, max_hosts=7, clock=self.clock)
        self.sides: Any = SideStorage(database, max_hosts=7, clock=self.clock)
        self.leases = StoredLeases(database)
        self.lease: Lease | None = None

    async def store(self, agent: str, words: str) -> str:
        made = _revision(agent, words)
        batch = await self.catalogue.open_batch(TENANT)
        await self.catalogue.stage(TENANT, batch, staged(made))
        return made.digest

    async def apply(self, agent: str, words: str) -> str:
        made = _revision(agent, words)
        await self.catalogue.apply(TENANT, staged(made), keep_going=False, expect=None, by=None)
        return made.digest

    async def delete(self, agent: str) -> None:
        await self.catalogue.delete_agents(TENANT, [agent])

    async def roll_back(self, agent: str) -> None:
        rollbacks = Rollbacks(self.database, max_hosts=7, clock=self.clock)
        done = await rollbacks.agents(TENANT, [agent], to=None, by="user:bob", now=False)
        assert [one.agent for one in done.agents] == [agent]

    async def own(self, agent: str) -> None:
        owned = update(agents).where(agents.c.name == agent).values(owner="there/agent")
        await self.database.write(lambda connection: connection.execute(owned).rowcount)

    async def owner(self, agent: str) -> str | None:
        query = select(agents.c.owner).where(agents.c.name == agent)
        return await self.database.read(lambda connection: connection.execute(query).scalar())

    async def load(self, agent: str, wanted: int, holding: int, problem: str | None = None) -> None:
        green = (await self.sides.look(TENANT, [agent]))[agent].green
        told = Loads(tenant=TENANT, agent=agent, revision=green, wanted=wanted, holding=holding, problem=problem)
        await self.sides.loaded([told], held=await self.held())

    async def see(self, *seen: Seen) -> int:
        stand = await self.sides.look(TENANT, [one.agent for one in seen])
        noticed = [Noticed(tenant=TENANT, rollout=stand[one.agent].rollout, seen=one) for one in seen]
        return await self.sides.observing.add("gw-1", noticed)

    async def held(self, owner: str = "me") -> Lease:
        if self.lease is not None:
            await self.leases.release(self.lease)
        self.lease = await self.leases.acquire(LEASE, owner, 60.0)
        assert self.lease is not None
        return self.lease

    async def changes(self, agent: str) -> list[tuple[str | None, str | None]]:
        query = select(history.c.revision, history.c.change).where(history.c.agent == agent)
        rows = await self.database.read(lambda connection: connection.execute(query.order_by(history.c.sequence)).all())
        return [(row.revision, row.change) for row in rows]

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)


def _revision(agent: str, words: str) -> CompiledAgent:
    return compiled(agent, metadata={"description": f"It is the {words}."})


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if dialect == "memory":
        yield InMemory()
        return
    database = open_database(request.getfixturevalue("database_name"))
    yield InDatabase(database)
    await asyncio.to_thread(database.close)
