"""Bringing the schema to this release's, and the refusal of one that a newer release has written."""

from enum import Enum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase


async def migrate(database: Database) -> None:
    """Bring the schema to this release's; raises `NewerDatabase` for one that is ahead.

    It runs in one transaction, and of several processes that start at once one does it while the others wait.
    """
    await database.exclusive(upgrade)


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, in the connection's transaction; raises `NewerDatabase`."""
    config = alembic_config()
    if schema_state(connection) is SchemaState.NEWER:
        raise NewerDatabase(
            f"the schema is at {schema_version(connection)}, which this release doesn't know",
            next_step="run the release that wrote it, or a newer one",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


class SchemaState(Enum):
    """How a database's schema stands to this release's."""

    NONE = "none"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


def schema_state(connection: Connection) -> SchemaState:
    """How the schema stands to this release's."""
    current = schema_version(connection)
    if current is None:
        return SchemaState.NONE
    script = ScriptDirectory.from_config(alembic_config())
    if current == script.get_current_head():
        return SchemaState.CURRENT
    known = {one.revision for one in script.walk_revisions()}
    return SchemaState.OLDER if current in known else SchemaState.NEWER


async def is_current(database: Database) -> bool:
    """Whether the schema is this release's; for a process that waits until another has migrated it."""
    return await database.read(schema_state) is SchemaState.CURRENT


def schema_version(connection: Connection) -> str | None:
    """The schema's version; None for a database without one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def alembic_config() -> Config:
    """Alembic's configuration for the migrations inside this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
