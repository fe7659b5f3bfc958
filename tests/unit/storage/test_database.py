"""Opening the database: its safety, its schema, and the refusal of one from a newer release."""

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from chimera.adapters.storage.database import (
    NewerDatabase,
    StorageError,
    is_current,
    migrate,
    open_engine,
    reading,
    storage_error,
)
from chimera.adapters.storage.schema import metadata


def test_the_migrations_make_the_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_every_key_holds_the_tenant() -> None:
    apart = {"counter", "cell"}  # a cell's id is a digest over the tenant; the counter is the catalogue's own
    for table in metadata.tables.values():
        if table.name not in apart:
            assert "tenant" in {column.name for column in table.primary_key}, table.name


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE counter SET value = 41"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalars().all() == [41]


def test_a_newer_database_is_refused_with_the_next_step(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(NewerDatabase) as caught:
        migrate(engine)

    assert "9999" in caught.value.detail
    assert caught.value.next_step
    assert not is_current(engine)


def test_a_database_is_current_once_it_is_migrated(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "a.db")
    assert not is_current(engine)
    migrate(engine)
    assert is_current(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 20_000)]
)
def test_every_connection_is_safe(engine: Engine, pragma: str, value: object) -> None:
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value


def test_an_agent_can_not_point_to_a_revision_that_is_not_there(engine: Engine) -> None:
    columns = "tenant, name, revision, version, status, sequence, framework, cell, description, tags, protocols, model"
    more = "concurrency, min_instances, source, compiler, created, updated"
    row = "'t', 'a', 'sha256:0', '1.0.0', 'live', 1, 'autogen', 'c', '', '', '', 'm', 1, 0, '', '', 0, 0"
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(f"INSERT INTO agent ({columns}, {more}) VALUES ({row})"))


@pytest.mark.parametrize("name", ["with space.db", "what?mode=ro#x.db", "100%25.db", "Zoë.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    engine = open_engine(tmp_path / name)
    migrate(engine)
    engine.dispose()
    assert (tmp_path / name).stat().st_size > 0


def test_a_file_that_is_no_database_is_told_plainly(tmp_path: Path) -> None:
    file = tmp_path / "chimera.db"
    file.write_bytes(b"this is a letter, not a database" * 100)
    engine = open_engine(file)

    with pytest.raises(StorageError) as caught:
        migrate(engine)

    assert "not a database" in caught.value.detail
    assert caught.value.next_step
    engine.dispose()


def test_a_fault_in_a_statement_is_ours_with_the_cause(engine: Engine) -> None:
    with pytest.raises(StorageError) as caught, reading(engine) as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert "nowhere" in caught.value.detail
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("words", "passes"), [("database is locked", True), ("database or disk is full", True), ("malformed", False)]
)
def test_what_passes_by_itself_says_when_to_come_back(words: str, passes: bool) -> None:
    error = storage_error(sqlite3.OperationalError(words))
    assert (error.retry_after is not None) is passes
    assert error.status == 503
    assert error.next_step
