"""A database of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.testing.clock import ManualClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = open_database(tmp_path / "chimera.db")
    await migrate(made)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalogue(database: Database, clock: ManualClock) -> Catalogue:
    return Catalogue(database, max_hosts=4, clock=clock)
