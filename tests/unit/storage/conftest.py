"""The catalogue on a database of its own, for each test on each kind of database."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import open_database
from chimera.testing.clock import ManualClock
from chimera.testing.postgresql import PostgreSQLServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalogue(database: Database, clock: ManualClock) -> Catalogue:
    return Catalogue(database, max_hosts=4, clock=clock)


@pytest.fixture
def empty_name(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if dialect == "sqlite":
        yield str(tmp_path / "empty.db")
        return
    server: PostgreSQLServer = request.getfixturevalue("postgresql_server")
    url = server.new_database(migrated=False)
    yield url
    server.drop_database(url)


@pytest.fixture
async def empty_database(empty_name: str) -> AsyncIterator[Database]:
    made = open_database(empty_name)
    yield made
    await asyncio.to_thread(made.close)
