"""Databases of both kinds for any test: `database_name` and `database` run a test once on each.

The PostgreSQL server starts with the first test that asks for it and serves the whole run. A test that needs a server
of its own, to kill it, makes a `PostgreSQLServer(durable=True)`.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.testing.elsewhere import elsewhere
from chimera.testing.postgresql import PostgreSQLServer


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database of this release's schema, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "chimera.db"
    database = open_database(file)
    elsewhere(lambda: migrate(database))
    database.close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database_name(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The name of an empty, migrated database, for `open_database` and for `node.database`."""
    if dialect == "sqlite":
        file = tmp_path / "chimera.db"
        shutil.copy(request.getfixturevalue("migrated_file"), file)
        yield str(file)
        return
    server: PostgreSQLServer = request.getfixturevalue("postgresql_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
async def database(database_name: str) -> AsyncIterator[Database]:
    made = open_database(database_name)
    yield made
    await asyncio.to_thread(made.close)
