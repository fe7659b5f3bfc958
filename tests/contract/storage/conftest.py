"""The gateway's storage, on both databases and in memory, with one way of filling both."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.opening import open_database
from chimera.agents.compile import CompiledAgent
from chimera.platform.cells import cell_spec
from chimera.testing.definitions import staged
from chimera.testing.storage import MemoryStorage

MAX_HOSTS = 7


class Filled(Protocol):
    """A store, and what changes the catalogue behind it."""

    store: Any

    async def apply(self, agents: Sequence[CompiledAgent]) -> None: ...

    async def delete(self, tenant: str, name: str) -> None: ...


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


class InDatabase:
    def __init__(self, catalogue: Catalogue, store: GatewayStorage) -> None:
        self.catalogue = catalogue
        self.store = store

    async def apply(self, agents: Sequence[CompiledAgent]) -> None:
        tenant = agents[0].value.agent.tenant
        await self.catalogue.apply(tenant, staged(*agents), keep_going=False, expect=None, by=None)

    async def delete(self, tenant: str, name: str) -> None:
        await self.catalogue.delete_agents(tenant, [name])


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def filled(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[Filled]:
    if dialect == "memory":
        yield InMemory()
        return
    database = open_database(request.getfixturevalue("database_name"))
    yield InDatabase(Catalogue(database, max_hosts=MAX_HOSTS), GatewayStorage(database))
    await asyncio.to_thread(database.close)
