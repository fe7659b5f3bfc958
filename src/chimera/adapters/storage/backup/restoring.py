"""Bringing a backup back, all of it or nothing.

The backup is read and checked from its first to its last byte before anything is touched. Then it is loaded into a
schema of its own version, and the tables are read back and compared by digest before they count.

- A SQLite file is built beside the old one and takes its name by one rename, when it is whole and on the disk.
- On a server all of it is one transaction: what was there is dropped, and what comes is loaded, or neither.

What a restored database must not have is put right in the same step (`settle`): leases, holders and workers belong to
processes that are gone, and numbers that others have seen go on above the highest that they can have seen.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from chimera.adapters.storage.backup.archive import BackupReader, sync_folder
from chimera.adapters.storage.backup.errors import InUse, InvalidBackup, MoveFailed, NotEmpty, file_failed
from chimera.adapters.storage.backup.rows import Layout, RowCodec, TableDigest, Values, check_fits
from chimera.adapters.storage.backup.tables import empty, layouts_at, read_rows, without_limits, write_rows
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase
from chimera.adapters.storage.migrating import (
    SchemaState,
    known_versions,
    schema_state,
    schema_version,
    split_version,
    upgrade_to,
)
from chimera.adapters.storage.postgresql import APPLICATION, PostgreSQLDatabase
from chimera.adapters.storage.sqlite import SQLiteDatabase

Progress = Callable[[str, int], None]

AHEAD = 1_000_000
"""How far numbers that others may have seen jump: what was given out after the backup was made is not known."""
_EPHEMERAL = ("run_holder", "gateway_alive", "task_worker")
_OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :platform "
    "AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The highest numbers that were given out in the database that is replaced."""

    events: int = 0
    tokens: int = 0


def check_backup(reader: BackupReader) -> tuple[Layout, ...]:
    """Read all of a backup and hold its tables against this release's; raises `InvalidBackup`, `NewerDatabase`."""
    manifest = reader.manifest
    if manifest.schema not in known_versions():
        raise NewerDatabase(
            f"{reader.file}: its schema is {manifest.schema}, which this release doesn't know",
            next_step=f"use release {manifest.release}, which made it, or a newer one",
        )
    layouts = layouts_at(manifest.schema)
    if {layout.table: layout for layout in layouts} != {entry.layout.table: entry.layout for entry in manifest.tables}:
        raise InvalidBackup(
            f"{reader.file}: its tables are not those of the schema {manifest.schema}", next_step="use another backup"
        )
    reader.verify()
    return layouts


async def restore_file(reader: BackupReader, target: Path, *, replace: bool, progress: Progress) -> None:
    """Restore into a SQLite file; the caller sees to it that nobody uses it. Raises `NotEmpty`, or what a check raises.

    What a crash leaves is a file `.<name>.restoring`, which the next restore begins anew.
    """
    layouts = await asyncio.to_thread(check_backup, reader)
    seen = Seen()
    if await asyncio.to_thread(target.exists):
        database = SQLiteDatabase(target)
        try:
            seen = await database.read(lambda connection: _look(connection, replace=replace, name=str(target)))
        finally:
            await asyncio.to_thread(database.close)
    made = target.with_name(f".{target.name}.restoring")
    _remove(made)
    try:
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        database = SQLiteDatabase(made)
        try:
            await database.exclusive(lambda connection: load(connection, reader, layouts, seen, progress))
        finally:
            await asyncio.to_thread(database.close)
        await asyncio.to_thread(_swap, made, target)
    except OSError as error:
        raise file_failed(target, error) from None
    finally:
        _remove(made)


async def restore_server(database: Database, reader: BackupReader, *, replace: bool, progress: Progress) -> None:
    """Restore into a server's database in one transaction; raises `NotEmpty`, `InUse`, or what a check raises."""
    assert isinstance(database, PostgreSQLDatabase)
    layouts = await asyncio.to_thread(check_backup, reader)

    def job(connection: Connection) -> None:
        without_limits(connection)
        refuse_in_use(connection)
        seen = _look(connection, replace=replace, name="the server's database")
        _drop(connection)
        load(connection, reader, layouts, seen, progress)

    await database.exclusive(job)


def load(
    connection: Connection, reader: BackupReader, layouts: tuple[Layout, ...], seen: Seen, progress: Progress
) -> None:
    """Make the schema of the backup's version, fill it, compare it, and settle it, in the connection's transaction."""
    manifest = reader.manifest
    upgrade_to(connection, manifest.schema)
    empty(connection, layouts)
    entries = {entry.layout.table: entry for entry in manifest.tables}
    for layout in layouts:
        entry = entries[layout.table]
        write_rows(connection, layout, _fitting(layout, reader.rows(entry), connection.dialect.name))
        found = digest_of(connection, layout)
        if (found.rows, found.text) != (entry.rows, entry.digest):
            raise MoveFailed(
                f"{layout.table}: what was stored is not what the backup holds",
                next_step="nothing was changed; check the disk, and try again",
            )
        progress(layout.table, entry.rows)
    settle(connection, layouts, seen, ahead=AHEAD)


def _fitting(layout: Layout, rows: Iterator[Values], dialect: str) -> Iterator[Values]:
    for values in rows:
        check_fits(layout, values, dialect)
        yield values


def digest_of(connection: Connection, layout: Layout) -> TableDigest:
    """Read a table and digest it."""
    codec, digest = RowCodec(layout), TableDigest(layout.table)

    def take(values: Values) -> None:
        digest.add(codec.encode(values))

    read_rows(connection, layout, take)
    return digest


def settle(connection: Connection, layouts: tuple[Layout, ...], seen: Seen, *, ahead: int) -> None:
    """Take from the database what belongs to processes that are gone, and let numbers go on above what was seen.

    Rows of holders, workers and gateways go: whatever they held counts as lost, and is taken up as after a crash.
    Leases end, and their tokens go on higher, so that an owner from before the restore is refused. The events' places
    do the same: a follower who has seen one that the backup doesn't have would otherwise pass over as many new ones.
    The audit log's places have no gaps, and stay.
    """
    tables = {layout.table for layout in layouts}
    for name in _EPHEMERAL:
        if name in tables:
            connection.execute(text(f"DELETE FROM {name}"))
    if "lease" in tables:
        token = text(
            "UPDATE lease SET owner = '', expires = 0, "
            "token = (CASE WHEN token > :seen THEN token ELSE :seen END) + :ahead"
        )
        connection.execute(token, {"seen": seen.tokens, "ahead": ahead})
    if "journal_head" in tables and ahead:
        last = int(connection.execute(text("SELECT event_seq FROM journal_head")).scalar_one())
        place = {"last": last, "new": max(last, seen.events) + ahead}
        connection.execute(text("UPDATE journal_head SET event_seq = :new"), {"new": place["new"]})
        if "subscription" in tables:
            # Whoever had all events still has all: the places in between were never given to one.
            connection.execute(text("UPDATE subscription SET cursor = :new WHERE cursor >= :last"), place)


def refuse_in_use(connection: Connection) -> None:
    """Refuse a server's database that processes of the platform are connected to."""
    others = int(connection.execute(_OTHERS, {"platform": APPLICATION}).scalar() or 0)
    if others:
        raise InUse(
            f"{others} connections of running homes are open on the database",
            next_step="stop Chimera in every home that uses it, then try again",
        )


def _look(connection: Connection, *, replace: bool, name: str) -> Seen:
    """The highest numbers given out; raises `NotEmpty` where something is there that may not be replaced."""
    state = schema_state(connection)
    if state is SchemaState.NONE:
        return Seen()
    if not replace:
        raise NotEmpty(f"{name} holds a database", next_step="give --replace, which makes a backup of it first")
    events = tokens = 0
    tables = {layout.table for layout in layouts_at(split_version(schema_version(connection) or "")[0])}
    if "journal_head" in tables:
        events = int(connection.execute(text("SELECT max(event_seq) FROM journal_head")).scalar() or 0)
    if "lease" in tables:
        tokens = int(connection.execute(text("SELECT max(token) FROM lease")).scalar() or 0)
    return Seen(events=events, tokens=tokens)


def _drop(connection: Connection) -> None:
    found = schema_version(connection)
    if found is None:
        return
    for layout in reversed(layouts_at(split_version(found)[0])):
        connection.execute(text(f'DROP TABLE "{layout.table}"'))
    connection.execute(text("DROP TABLE alembic_version"))


def _swap(made: Path, target: Path) -> None:
    """Give the new file the old one's name; neither may have a write-ahead log, which would count as the new one's."""
    for file in (target, made):
        if file.exists():
            fold(file)
    descriptor = os.open(made, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    made.rename(target)
    sync_folder(target.parent)


def fold(file: Path) -> None:
    """Fold the write-ahead log into a SQLite file that nobody else uses; raises `InUse`."""
    connection = sqlite3.connect(file, timeout=5.0)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        mode = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise InUse(f"{file}: {error}", next_step="stop what uses the database, then try again") from None
    finally:
        connection.close()
    if mode != "delete":
        raise InUse(f"{file} is in use", next_step="stop what uses the database, then try again")


def _remove(file: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
