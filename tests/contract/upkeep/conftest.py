"""A catalogue and upkeep on one database, by a clock that stands until it is moved."""

from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.store import UpkeepStorage
from chimera.agents.compile import CompiledAgent
from chimera.platform.upkeep.model import START
from chimera.platform.upkeep.settings import RetentionSettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import staged

TENANT = "default"


@dataclass(kw_only=True)
class Kept:
    """What upkeep is done on."""

    database: Database
    clock: ManualClock
    catalogue: Catalogue

    def store(self, **settings: Any) -> UpkeepStorage:
        return UpkeepStorage(self.database, make_jobs(RetentionSettings(**settings)))

    async def work(self, kind: str, *, limit: int = 3, **settings: Any) -> int:
        """A whole pass over a kind; how many rows it removed, which is how many it said would go."""
        store = self.store(**settings)
        lease = await StoredLeases(self.database).acquire("upkeep", "me", 3_600.0)
        assert lease is not None
        said = await store.due(kind, 1_000)
        removed, step = 0, await store.step(kind, limit, START, lease)
        while step.after is not None:
            removed += step.removed
            step = await store.step(kind, limit, step.after, lease)
        assert removed + step.removed == said
        return said

    async def apply(self, *agents: CompiledAgent) -> None:
        await self.catalogue.apply(TENANT, staged(*agents), keep_going=False, expect=None, by=None)

    async def rows(self, table: Table) -> int:
        counting = select(func.count()).select_from(table)
        return await self.database.read(lambda connection: int(connection.execute(counting).scalar() or 0))


@pytest.fixture
def kept(database_name: str, request: pytest.FixtureRequest) -> Kept:
    clock = ManualClock(1_900_000_000.0)
    database = open_database(database_name, clock=clock)
    request.addfinalizer(database.close)
    return Kept(database=database, clock=clock, catalogue=Catalogue(database, max_hosts=4, clock=clock))
