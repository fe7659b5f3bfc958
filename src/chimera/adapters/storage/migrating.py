"""Bringing the schema to this release's, and the refusal of one that a newer release has written.

A database that is being moved, or was, says so in the place of its version: `0008 moving 1a2b3c4d`, or `0008 moved
1a2b3c4d`. No release knows such a version, so none starts on a half of the state or goes on with a copy that was left
behind.
"""

from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy import text as sql

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import DatabaseMoved, DatabaseMoving, NewerDatabase


async def migrate(database: Database) -> None:
    """Bring the schema to this release's; raises `NewerDatabase` for one that is ahead.

    It runs in one transaction, and of several processes that start at once one does it while the others wait.
    """
    await database.exclusive(upgrade)


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, in the connection's transaction; raises `NewerDatabase` and its like."""
    refuse_unusable(connection)
    upgrade_to(connection, "head")


def upgrade_to(connection: Connection, version: str) -> None:
    """Run the migrations up to `version`, in the connection's transaction."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, version)


def refuse_unusable(connection: Connection) -> None:
    """Raise `NewerDatabase`, `DatabaseMoved` or `DatabaseMoving` for a database that this release may not work on."""
    match schema_state(connection):
        case SchemaState.NEWER:
            raise NewerDatabase(
                f"the schema is at {schema_version(connection)}, which this release doesn't know",
                next_step="run the release that wrote it, or a newer one",
            )
        case SchemaState.MOVED:
            raise DatabaseMoved(
                "this database was moved to another, which has gone on since",
                next_step="set node.database to that one; `chimera state move --help` says how to come back to this",
            )
        case SchemaState.MOVING:
            raise DatabaseMoving(
                "a database is being moved to this one, and not all of it is here",
                next_step="finish it: give the same `chimera state move --to` again",
            )
        case _:
            return


class SchemaState(Enum):
    """How a database's schema stands to this release's."""

    NONE = "none"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"
    MOVED = "moved"
    MOVING = "moving"


def schema_state(connection: Connection) -> SchemaState:
    """How the schema stands to this release's."""
    current = schema_version(connection)
    if current is None:
        return SchemaState.NONE
    version, mark = split_version(current)
    if mark is not None:
        return SchemaState.MOVED if mark.startswith(MOVED) else SchemaState.MOVING
    script = ScriptDirectory.from_config(alembic_config())
    if version == script.get_current_head():
        return SchemaState.CURRENT
    known = {one.revision for one in script.walk_revisions()}
    return SchemaState.OLDER if version in known else SchemaState.NEWER


MOVED, MOVING = "moved", "moving"


def split_version(text: str) -> tuple[str, str | None]:
    """A version and what a move has marked it with (`moved 1a2b3c4d`), if it has."""
    version, _, mark = text.partition(" ")
    return version, (mark if mark.startswith((MOVED, MOVING)) else None)


def mark_version(connection: Connection, text: str) -> None:
    """Write the version, with or without a mark."""
    connection.execute(sql("UPDATE alembic_version SET version_num = :text"), {"text": text})


def head_version() -> str:
    """The version of this release's schema."""
    return str(ScriptDirectory.from_config(alembic_config()).get_current_head())


def known_versions() -> frozenset[str]:
    """Every version that this release can bring up to its own."""
    return frozenset(one.revision for one in ScriptDirectory.from_config(alembic_config()).walk_revisions())


def pending(version: str | None) -> list[tuple[str, str]]:
    """The migrations after `version`, oldest first, each with its one line."""
    script = ScriptDirectory.from_config(alembic_config())
    found = list(script.iterate_revisions("head", version or "base"))
    return [(one.revision, (one.doc or "").partition("\n")[0]) for one in reversed(found)]


async def is_current(database: Database) -> bool:
    """Whether the schema is this release's; for a process that waits until another has migrated it."""
    return await database.read(schema_state) is SchemaState.CURRENT


def schema_version(connection: Connection) -> str | None:
    """The schema's version; None for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(sql("SELECT version_num FROM alembic_version")).scalar()
    return found


def alembic_config() -> Config:
    """Alembic's configuration for the migrations inside this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
