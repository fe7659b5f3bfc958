"""Opening the database: its safety, its schema, and the refusal of one from a newer release."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase, StorageError, StorageFull
from chimera.adapters.storage.migrating import is_current, migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema import metadata
from chimera.adapters.storage.sqlite import storage_error


def run(sql: str) -> Callable[[Connection], int]:
    return lambda connection: connection.execute(text(sql)).rowcount


async def test_the_migrations_make_the_schema(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)

    assert await database.read(differences) == []


def test_every_key_holds_the_tenant() -> None:
    # A cell's id is a digest over the tenant; the others are the platform's own, in one order over all tenants.
    apart = {"counter", "cell", "journal_head", "event", "audit_entry", "lease", "tenant"}
    for table in metadata.tables.values():
        if table.name not in apart:
            assert "tenant" in {column.name for column in table.primary_key}, table.name


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.write(run("UPDATE counter SET value = 41 WHERE name = 'sequence'"))
    await migrate(database)
    values = text("SELECT value FROM counter WHERE name = 'sequence'")
    assert await database.read(lambda connection: connection.execute(values).scalars().all()) == [41]


async def test_a_newer_database_is_refused_with_the_next_step(database: Database) -> None:
    await database.write(run("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(NewerDatabase) as caught:
        await migrate(database)

    assert "9999" in caught.value.detail
    assert caught.value.next_step
    assert not await is_current(database)


async def test_a_database_is_current_once_it_is_migrated(tmp_path: Path) -> None:
    database = open_database(tmp_path / "a.db")
    assert not await is_current(database)
    await migrate(database)
    assert await is_current(database)
    database.close()


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 20_000)]
)
async def test_every_connection_is_safe(database: Database, pragma: str, value: object) -> None:
    def look(connection: Connection) -> object:
        return connection.execute(text(f"PRAGMA {pragma}")).scalar()

    assert await database.read(look) == value
    assert await database.read(look, quick=True) == value
    assert await database.write(look) == value


async def test_an_agent_can_not_point_to_a_revision_that_is_not_there(database: Database) -> None:
    columns = "tenant, name, revision, version, status, sequence, framework, cell, description, tags, protocols, model"
    more = "concurrency, min_instances, source, compiler, created, updated"
    row = "'t', 'a', 'sha256:0', '1.0.0', 'live', 1, 'autogen', 'c', '', '', '', 'm', 1, 0, '', '', 0, 0"
    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await database.write(run(f"INSERT INTO agent ({columns}, {more}) VALUES ({row})"))


@pytest.mark.parametrize("quick", [False, True])
async def test_a_reader_can_not_write(database: Database, quick: bool) -> None:
    with pytest.raises(StorageError, match="readonly"):
        await database.read(run("UPDATE counter SET value = 41 WHERE name = 'sequence'"), quick=quick)


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


@pytest.mark.parametrize("quick", [False, True])
async def test_a_fault_in_a_statement_is_ours_with_the_cause(database: Database, quick: bool) -> None:
    with pytest.raises(StorageError) as caught:
        await database.read(run("SELECT * FROM nowhere"), quick=quick)
    assert "nowhere" in caught.value.detail
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("words", "passes"), [("database is locked", True), ("database or disk is full", True), ("malformed", False)]
)
def test_what_passes_by_itself_says_when_to_come_back(words: str, passes: bool) -> None:
    error = storage_error(sqlite3.OperationalError(words))
    assert (error.retry_after is not None) is passes
    assert error.status == (507 if isinstance(error, StorageFull) else 503)
    assert isinstance(error, StorageFull) is ("full" in words)
    assert error.next_step
