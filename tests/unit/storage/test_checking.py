"""What `chimera doctor` says of the database."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from chimera.adapters.storage.checking import check
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageAway
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.platform.settings import NodeSettings
from chimera.testing.postgresql import PostgreSQLServer


def settings(database_name: str) -> NodeSettings:
    return NodeSettings(database=database_name if database_name.startswith("postgresql:") else "")


async def looked(database_name: str, home: Path) -> str:
    return (await asyncio.to_thread(check, settings(database_name), home, {})).detail


async def test_a_database_in_use_is_told_with_its_server_and_schema(database_name: str, tmp_path: Path) -> None:
    detail = await looked(database_name, tmp_path)
    assert detail.startswith(("SQLite 3", "PostgreSQL 1"))
    assert "its schema is this release's" in detail


async def test_a_newer_schema_is_a_fault(database: Database, database_name: str, tmp_path: Path) -> None:
    later = text("UPDATE alembic_version SET version_num = '9999'")
    await database.write(lambda connection: connection.execute(later).rowcount)
    found = await asyncio.to_thread(check, settings(database_name), tmp_path, {})
    assert any("newer release" in fault for fault in found.faults)


@pytest.mark.parametrize(("mark", "fault"), [("moved 1a2b3c4d", "was moved"), ("moving 1a2b3c4d", "not finished")])
async def test_a_move_is_a_fault(database: Database, database_name: str, tmp_path: Path, mark: str, fault: str) -> None:
    marked = text(f"UPDATE alembic_version SET version_num = version_num || ' {mark}'")
    await database.write(lambda connection: connection.execute(marked).rowcount)
    found = await asyncio.to_thread(check, settings(database_name), tmp_path, {})
    assert any(fault in one for one in found.faults)


async def test_an_empty_database_and_none_are_no_faults(postgresql_server: PostgreSQLServer, tmp_path: Path) -> None:
    assert "not used yet" in await looked("", tmp_path)
    assert not (tmp_path / "chimera.db").exists()
    url = postgresql_server.new_database(migrated=False)
    assert "empty" in await looked(url, tmp_path)


async def test_a_server_that_does_not_flush_is_a_fault(postgresql_server: PostgreSQLServer, tmp_path: Path) -> None:
    url = postgresql_server.new_database()  # the tests' server doesn't flush: nothing of it is to survive
    found = await asyncio.to_thread(check, settings(url), tmp_path, {})
    assert any(fault.startswith("fsync is off") for fault in found.faults)


async def test_a_server_that_is_not_there_is_told_without_its_secrets(tmp_path: Path) -> None:
    given = NodeSettings(
        database=f"postgresql://me@/none?host={tmp_path}", database_password=f"file:{tmp_path / 'password'}"
    )
    (tmp_path / "password").write_text("hunter2")
    (tmp_path / "password").chmod(0o600)
    with pytest.raises(StorageAway) as caught:
        await asyncio.to_thread(check, given, tmp_path, {})
    assert "hunter2" not in str(caught.value) + caught.value.detail


async def test_a_wrong_name_is_told_as_such(postgresql_server: PostgreSQLServer, tmp_path: Path) -> None:
    database = open_database(postgresql_server.url("nowhere"))
    with pytest.raises(Exception, match=r"nowhere.*does not exist") as caught:
        await migrate(database)
    assert "node.database" in (getattr(caught.value, "next_step", "") or "")
    await asyncio.to_thread(database.close)
