"""A SQLite file: its safety, its names, its faults."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageError, StorageFull
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.sqlite import storage_error, write_ahead


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = open_database(tmp_path / "chimera.db")
    await migrate(made)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 20_000)]
)
async def test_every_connection_is_safe(database: Database, pragma: str, value: object) -> None:
    def look(connection: Connection) -> object:
        return connection.execute(text(f"PRAGMA {pragma}")).scalar()

    assert await database.read(look) == value
    assert await database.read(look, quick=True) == value
    assert await database.write(look) == value


@pytest.mark.parametrize("name", ["with space.db", "what?mode=ro#x.db", "100%25.db", "Zoë.db"])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    database = open_database(tmp_path / name)
    await migrate(database)
    database.close()
    assert (tmp_path / name).stat().st_size > 0


async def test_a_file_that_is_no_database_is_told_plainly(tmp_path: Path) -> None:
    file = tmp_path / "chimera.db"
    file.write_bytes(b"this is a letter, not a database" * 100)
    database = open_database(file)

    with pytest.raises(StorageError) as caught:
        await migrate(database)

    assert "not a database" in caught.value.detail
    assert caught.value.next_step
    database.close()


@pytest.mark.parametrize(
    ("words", "passes"), [("database is locked", True), ("database or disk is full", True), ("malformed", False)]
)
def test_what_passes_by_itself_says_when_to_come_back(words: str, passes: bool) -> None:
    error = storage_error(sqlite3.OperationalError(words))
    assert (error.retry_after is not None) is passes
    assert error.status == (507 if isinstance(error, StorageFull) else 503)
    assert isinstance(error, StorageFull) is ("full" in words)
    assert error.next_step


@pytest.mark.parametrize("file", range(40))
def test_a_file_that_nobody_used_yet_is_opened_by_many_at_once(tmp_path: Path, file: int) -> None:
    # "journal_mode=WAL" answers "locked" at once, whatever busy_timeout says, where two ask for it together.
    together = threading.Barrier(8)

    def opened() -> str:
        connection = sqlite3.connect(tmp_path / f"{file}.db", isolation_level=None)
        try:
            together.wait()
            write_ahead(connection)
            return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        assert [one.result() for one in [threads.submit(opened) for _ in range(8)]] == ["wal"] * 8
