"""The database: its schema, the refusal of one from a newer release, and what a reader can not do."""

import asyncio
from collections.abc import Callable

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase, StorageError
from chimera.adapters.storage.migrating import is_current, migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.tables import metadata


def run(sql: str) -> Callable[[Connection], int]:
    return lambda connection: connection.execute(text(sql)).rowcount


async def test_the_migrations_make_the_schema(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, metadata)

    assert await database.read(differences) == []


def test_every_key_holds_the_tenant() -> None:
    # A cell's id is a digest over the tenant, and an environment is one. The others are the platform's own, in one
    # order over all tenants.
    apart = {
        "counter",
        "cell",
        "cell_bound",
        "environment",
        "journal_head",
        "event",
        "audit_entry",
        "lease",
        "run_holder",
        "task_worker",
        "tenant",
        "audit_checkpoint",
        "gateway_alive",
        "upkeep",
    }
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


async def test_a_database_is_current_once_it_is_migrated(empty_database: Database) -> None:
    assert not await is_current(empty_database)
    await migrate(empty_database)
    assert await is_current(empty_database)


async def test_several_processes_may_migrate_at_once(empty_name: str) -> None:
    several = [open_database(empty_name) for _ in range(4)]
    await asyncio.gather(*(migrate(one) for one in several))
    assert all([await is_current(one) for one in several])
    for one in several:
        await asyncio.to_thread(one.close)


async def test_an_agent_can_not_point_to_a_revision_that_is_not_there(database: Database) -> None:
    columns = "tenant, name, revision, version, status, sequence, framework, cell, description, tags, protocols, model"
    more = "concurrency, min_instances, source, compiler, created, updated"
    row = "'t', 'a', 'sha256:0', '1.0.0', 'live', 1, 'autogen', 'c', '', '', '', 'm', 1, 0, '', '', 0, 0"
    with pytest.raises(StorageError, match=r"(?i)foreign key"):
        await database.write(run(f"INSERT INTO agent ({columns}, {more}) VALUES ({row})"))


@pytest.mark.parametrize("quick", [False, True])
async def test_a_reader_can_not_write(database: Database, quick: bool) -> None:
    with pytest.raises(StorageError, match=r"read-?only"):
        await database.read(run("UPDATE counter SET value = 41 WHERE name = 'sequence'"), quick=quick)


@pytest.mark.parametrize("quick", [False, True])
async def test_a_fault_in_a_statement_is_ours_with_the_cause(database: Database, quick: bool) -> None:
    with pytest.raises(StorageError) as caught:
        await database.read(run("SELECT * FROM nowhere"), quick=quick)
    assert "nowhere" in caught.value.detail
    assert caught.value.__cause__ is not None
