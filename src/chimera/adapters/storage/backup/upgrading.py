"""Bringing a database up to this release's schema: what it takes, a backup before, and the proof that nothing was lost.

Migrations run in one transaction, so one that fails leaves the schema as it was. The backup is for what a migration did
wrong and for going back to the release before.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from chimera.adapters.storage.backup.archive import Manifest
from chimera.adapters.storage.backup.tables import layouts_at, without_limits
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageError
from chimera.adapters.storage.migrating import (
    SchemaState,
    head_version,
    pending,
    refuse_unusable,
    schema_state,
    schema_version,
    split_version,
    upgrade,
)
from chimera.adapters.storage.opening import is_url
from chimera.adapters.storage.postgresql import APPLICATION

Backup = Callable[[Database], Awaitable[Manifest]]

FOLDER = "backups"
SUFFIX = ".backup"
BYTES_PER_SECOND = 20_000_000
"""How much of a database a backup reads in a second at least (benchmarks/backup.py has what was measured)."""
_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :platform"
)


class UpgradeFailed(StorageError):
    """A database could not be brought up to this release's schema."""

    code = "upgrade-failed"
    title = "The database could not be upgraded"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What this release would do to a database. `others` counts connections of running platforms, on a server."""

    state: SchemaState
    version: str | None
    head: str
    migrations: tuple[tuple[str, str], ...]
    size: int
    server: str
    others: int

    @property
    def seconds(self) -> float:
        """About how long the backup takes, which is the longest part; migrations that only add take milliseconds."""
        return self.size / BYTES_PER_SECOND


def new_backup(home: Path, why: str) -> Path:
    """Where a backup goes for which nobody gave a path; the folder is made."""
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{SUFFIX}"


async def plan(database: Database) -> Plan:
    """Look at a database; nothing is written."""

    def query(connection: Connection) -> Plan:
        state, found = schema_state(connection), schema_version(connection)
        others = 0
        if connection.dialect.name != "sqlite":
            others = int(connection.execute(_OTHERS, {"platform": APPLICATION}).scalar() or 0)
        version = None if found is None else split_version(found)[0]
        return Plan(
            state=state,
            version=found,
            head=head_version(),
            migrations=tuple(pending(version)) if state is SchemaState.OLDER else (),
            size=database.size(connection),
            server=database.health(connection).server,
            others=others,
        )

    return await database.read(query)


async def bring_up(database: Database, backup: Backup | None) -> tuple[str, Manifest | None] | None:
    """Upgrade a database that is older, after a backup (None: without); what version it had, and the backup.

    None where there is nothing to do: the schema is this release's, or there is none yet. Raises `NewerDatabase` and
    its like for one that this release may not work on, `UpgradeFailed` where a migration failed or lost rows; either
    way the database is as it was.
    """
    await database.read(refuse_unusable)
    if await database.read(schema_state) is not SchemaState.OLDER:
        return None
    version = str(await database.read(schema_version))
    manifest = None if backup is None else await backup(database)
    try:
        await database.exclusive(_checked_upgrade)
    except Exception as error:
        detail = error.detail if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
        raise UpgradeFailed(
            f"the migration from {version} to {head_version()} failed and was taken back: {detail}",
            next_step="run the release before on it, as it is, and report this"
            + ("" if manifest is None else "; the backup that was made before can be restored too"),
        ) from error
    return version, manifest


def _checked_upgrade(connection: Connection) -> None:
    """Migrate, and count every table before and after; another process may have done it meanwhile."""
    without_limits(connection)
    if schema_state(connection) is SchemaState.CURRENT:
        return
    layouts = layouts_at(str(schema_version(connection)))

    def counts() -> dict[str, int]:
        names = [layout.table for layout in layouts]
        return {name: int(connection.exec_driver_sql(f'SELECT count(*) FROM "{name}"').scalar() or 0) for name in names}

    before = counts()
    upgrade(connection)
    after = counts()
    if lost := [name for name in before if after[name] < before[name]]:
        raise UpgradeFailed(f"rows are missing afterwards in {', '.join(lost)}")


def is_there(name: str) -> bool:
    """Whether a database of this name may hold something, so that it is worth opening."""
    return is_url(name) or Path(name).exists()
