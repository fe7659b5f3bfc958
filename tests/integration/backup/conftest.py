"""Filled databases of both kinds, and empty ones to restore and move to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.naming import MAINTENANCE
from chimera.adapters.storage.opening import open_database
from chimera.testing.postgresql import PostgreSQLServer
from chimera.testing.rows import fill


@pytest.fixture
async def filled(database_name: str) -> AsyncIterator[Database]:
    """A database with rows in every table; the connections are those of a command."""
    opened = open_database(database_name, application=MAINTENANCE)
    await fill(opened, seed=3, rows=25)
    yield opened
    await asyncio.to_thread(opened.close)


@pytest.fixture
def new_name(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    """Gives the name of a database of a dialect in which nothing is yet."""
    urls: list[str] = []

    def make(dialect: str) -> str:
        if dialect == "sqlite":
            return str(tmp_path / f"new-{len(list(tmp_path.iterdir()))}.db")
        server: PostgreSQLServer = request.getfixturevalue("postgresql_server")
        urls.append(server.new_database(migrated=False))
        return urls[-1]

    yield make
    for url in urls:
        request.getfixturevalue("postgresql_server").drop_database(url)
