"""Opening the database: pragmas, migrations, and a refusal of one that a newer release has written.

WAL lets readers go on while one process writes; `synchronous=FULL` makes a commit survive a power cut. Both processes
that write (control plane: catalogue; gateway: sessions and usage) take the write lock at the start of a transaction
and wait for each other up to the busy time-out.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from chimera_host.contract.problem import ProblemError

BUSY_TIMEOUT_MS = 20_000


class StorageError(ProblemError):
    """The database could not be used."""

    code = "storage"
    status = 503
    title = "The database failed"


class NewerDatabase(StorageError):
    """The database was written by a newer release."""

    code = "newer-database"
    title = "The database is newer than this release"


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what the database refuses as `StorageError`, with its words and what to do."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(error.orig or error) from error
    except (sqlite3.Error, PoolTimeout) as error:
        raise storage_error(error) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reading, whose errors are ours."""
    with translated_errors(), engine.connect() as connection:
        yield connection


def storage_error(error: BaseException) -> StorageError:
    """The database's error as ours; a lock and a full disk pass, so they say when to come back."""
    words = str(error)
    if "locked" in words or "busy" in words:
        return StorageError(f"the database is locked: {words}", next_step="try again", retry_after=1.0)
    if "full" in words:
        return StorageError(f"the disk is full: {words}", next_step="make room on the disk", retry_after=30.0)
    return StorageError(f"the database failed: {words}", next_step="see the log; `chimera doctor` checks the database")


def open_engine(file: Path) -> Engine:
    """An engine on the SQLite file; the folder must exist. Nothing is migrated."""
    url = URL.create("sqlite", database=str(file))
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=4, max_overflow=4, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to this release's; raises `NewerDatabase` for one that is ahead."""
    config = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with reading(engine) as connection:
        if inspect(connection).has_table("alembic_version"):
            current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            if current is not None and current not in known:
                raise NewerDatabase(
                    f"the schema is at {current}, which this release doesn't know",
                    next_step="run the release that wrote it, or a newer one",
                )
    with translated_errors(), engine.execution_options(write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """Whether the schema is this release's; for a process that waits until another has migrated it."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == head


def alembic_config() -> Config:
    """Alembic's configuration for the migrations inside this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _prepare(connection: sqlite3.Connection, _: Any) -> None:
    # SQLAlchemy begins transactions itself (see `_begin`); the driver must not do so a second time.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "cache_size=-16000",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    # A reader that later writes would deadlock with another; writers say so at the start.
    mode = "IMMEDIATE" if connection.get_execution_options().get("write") else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")
