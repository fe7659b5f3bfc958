"""The gateway's storage, on both databases and in memory, with one way of filling both."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.sides.store import SideStorage
from chimera.agents.compile import CompiledAgent
from chimera.delivery.sides.model import Green
from chimera.kernel.leases import Lease
from chimera.platform.cells import cell_spec
from chimera.testing.definitions import staged
from chimera.testing.storage import MemoryStorage

MAX_HOSTS = 7
TENANT = "default"


class Filled(Protocol):
    """A store, and what changes the catalogue behind it."""

    store: Any

    async def apply(self, agents: Sequence[CompiledAgent]) -> None: ...

    async def delete(self, tenant: str, name: str) -> None: ...

    async def green(self, agents: Sequence[CompiledAgent]) -> None:
        """These agents, none of which is live, are rolled out by `ro-1`."""

    async def back(self, agents: Sequence[CompiledAgent], *, cancel: bool = False) -> None:
        """They are taken back from it."""

    async def promote(self, agents: Sequence[CompiledAgent]) -> None:
        """They become live by it."""


class InMemory:
    def __init__(self) -> None:
        self.store = MemoryStorage()

    async def apply(self, agents: Sequence[CompiledAgent]) -> None:
        for one in agents:
            spec = cell_spec(one.value, max_hosts=MAX_HOSTS)
            self.store.put_cell(spec)
            fields = {"protocols": one.value.protocols, "subscriptions": one.value.subscriptions}
            self.store.put_agent(one.value.agent, spec.cell, **fields)

    async def delete(self, tenant: str, name: str) -> None:
        self.store.remove_agent(tenant, name)

    async def green(self, agents: Sequence[CompiledAgent]) -> None:
        self._put(agents, side="green", rollout="ro-1")

    async def back(self, agents: Sequence[CompiledAgent], *, cancel: bool = False) -> None:
        for one in agents:
            self.store.take_back(TENANT, one.value.agent.name, cancel=cancel)

    async def promote(self, agents: Sequence[CompiledAgent]) -> None:
        self._put(agents)

    def _put(self, agents: Sequence[CompiledAgent], **fields: Any) -> None:
        for one in agents:
            spec = cell_spec(one.value, max_hosts=MAX_HOSTS)
            self.store.put_cell(spec)
            told = {"protocols": one.value.protocols, "tags": one.value.tags, "revision": one.digest, **fields}
            self.store.put_agent(one.value.agent, spec.cell, **told)


class InDatabase:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalogue = Catalogue(database, max_hosts=MAX_HOSTS)
        self.store = GatewayStorage(database)
        self.sides = SideStorage(database, max_hosts=MAX_HOSTS)

    async def apply(self, agents: Sequence[CompiledAgent]) -> None:
        tenant = agents[0].value.agent.tenant
        await self.catalogue.apply(tenant, staged(*agents), keep_going=False, expect=None, by=None)

    async def delete(self, tenant: str, name: str) -> None:
        await self.catalogue.delete_agents(tenant, [name])

    async def green(self, agents: Sequence[CompiledAgent]) -> None:
        await self.catalogue.stage(TENANT, await self.catalogue.open_batch(TENANT), staged(*agents))
        refused = await self.sides.set_green(TENANT, _greens(agents), rollout="ro-1", held=await self._held())
        assert refused == {}

    async def back(self, agents: Sequence[CompiledAgent], *, cancel: bool = False) -> None:
        await self._finish(blue=_greens(agents), now=cancel)

    async def promote(self, agents: Sequence[CompiledAgent]) -> None:
        await self._finish(green=_greens(agents))

    async def _finish(self, **told: Any) -> None:
        ends = {"rollout": "ro-1", "keep": 60.0, "by": "user:ann", "held": await self._held(), **told}
        assert await self.sides.finish(TENANT, **ends) == {}

    async def _held(self) -> Lease:
        lease = await StoredLeases(self.database).acquire("rollouts", "me", 60.0)
        assert lease is not None
        return lease


def _greens(agents: Sequence[CompiledAgent]) -> list[Green]:
    return [Green(agent=one.value.agent.name, revision=one.digest, before=None) for one in agents]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def filled(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[Filled]:
    if dialect == "memory":
        yield InMemory()
        return
    database = open_database(request.getfixturevalue("database_name"))
    yield InDatabase(database)
    await asyncio.to_thread(database.close)
