"""Moving a SQLite file's state to a PostgreSQL server; it may be killed at any moment and begun again.

The file is locked for writing from the beginning to the end, by one transaction that is held open, so that nothing
changes while it is copied. What goes over in a batch, and how far that is, is one transaction at the server. Who goes
on with a move reads the part of each table that is there already once more from the file, and compares its digest: a
file that somebody went on to write meanwhile is copied anew.

There is never a moment in which both can be used, or the wrong one. While rows go over, the server's database says
`moving` in the place of its version; then, in this order, each step durable before the next:

1. every table is read back from the server, and its digest is that of the file;
2. the file says `moved`, and no release starts on it;
3. the server's database gets its version, and can be used.
"""

import asyncio
import hashlib
import platform
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from chimera.adapters.storage.backup.errors import InUse, MoveFailed, NotEmpty
from chimera.adapters.storage.backup.restoring import Seen, digest_of, refuse_in_use, settle
from chimera.adapters.storage.backup.rows import Layout, RowCodec, TableDigest, Values, check_fits
from chimera.adapters.storage.backup.tables import empty, layouts_at, without_limits, write_rows
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import (
    MOVED,
    MOVING,
    head_version,
    mark_version,
    schema_version,
    split_version,
    upgrade_to,
)
from chimera.adapters.storage.sqlite import translated_errors

Progress = Callable[[str, int, int], None]

BATCH_BYTES = 4 * 1024 * 1024
BATCH_ROWS = 10_000
_BUSY = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """What a move has done: rows that are at the server, of them those that an earlier try had copied."""

    rows: int
    resumed: int
    digests: dict[str, str]


@dataclass(slots=True)
class _Table:
    layout: Layout
    digest: TableDigest
    last: int  # the rowid of the last row that was copied


async def move_to_server(source: Path, target: Database, *, progress: Progress = lambda table, rows, of: None) -> Moved:
    """Move `source`, which no process may use, to `target`, which must be empty or hold an unfinished move of it.

    Raises `InUse`, `NotEmpty`, `MoveFailed`, `UnfitValue` for a row that PostgreSQL can't hold, or any `StorageError`;
    the file can be used then as before, unless only the last step was missing, and the move can be begun again.
    """
    file = _Source(source)
    try:
        await asyncio.to_thread(file.lock)
        mine = _name_of(source)
        if file.mark is not None:
            return await _finish_late(file, target, mine)
        if file.version != head_version():
            raise MoveFailed(
                f"{source}: its schema is {file.version}, this release's is {head_version()}",
                next_step="run `chimera upgrade` first",
            )
        layouts = layouts_at(file.version)
        await _begin(target, layouts, file.version, mine)
        tables = await _standing(file, target, layouts)
        resumed = sum(table.digest.rows for table in tables)
        for table in tables:
            await _copy(file, target, table, progress)
        await target.read(lambda connection: _compare(connection, tables))
        await asyncio.to_thread(file.mark_moved, mine)
        await target.exclusive(lambda connection: _open(connection, layouts, file.version))
    finally:
        await asyncio.to_thread(file.close)
    return Moved(
        rows=sum(table.digest.rows for table in tables),
        resumed=resumed,
        digests={table.layout.table: table.digest.text for table in tables},
    )


def unmark(source: Path) -> str:
    """Let a file that was moved be used again, as it was then; its version. Raises `MoveFailed` where it wasn't."""
    file = _Source(source)
    try:
        file.lock()
        if file.mark is None:
            raise MoveFailed(f"{source} was not moved", next_step="nothing: it can be used")
        file.write_version(file.version)
        return file.version
    finally:
        file.close()


class _Source:
    """The SQLite file, locked by a transaction of its own."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self.version = ""
        self.mark: str | None = None

    def lock(self) -> None:
        if not self._file.exists():
            raise MoveFailed(f"{self._file} is not there", next_step="there is nothing to move")
        self._connection = sqlite3.connect(self._file, timeout=_BUSY, check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            row = self._connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InUse(f"{self._file} is in use", next_step="stop Chimera in this home first") from None
            raise MoveFailed(f"{self._file}: {error}", next_step="give the home of a database of Chimera") from None
        except sqlite3.DatabaseError as error:
            raise MoveFailed(f"{self._file}: {error}", next_step="restore it from a backup first") from None
        self.version, self.mark = split_version(str(row[0]))

    def rows(self, layout: Layout, after: int, through: int | None = None) -> Iterator[tuple[int, Values]]:
        """Rows by their place in the file, with that."""
        assert self._connection is not None
        names = ", ".join(f'"{name}"' for name in layout.names)
        query = f'SELECT rowid, {names} FROM "{layout.table}" WHERE rowid > ? AND rowid <= ? ORDER BY rowid'
        with translated_errors():
            for row in self._connection.execute(query, (after, through if through is not None else 2**63 - 1)):
                yield row[0], row[1:]

    def count(self, layout: Layout) -> int:
        assert self._connection is not None
        return int(self._connection.execute(f'SELECT count(*) FROM "{layout.table}"').fetchone()[0])

    def head(self) -> tuple[int, bytes]:
        """The end of the audit log."""
        assert self._connection is not None
        row = self._connection.execute("SELECT audit_seq, audit_hash FROM journal_head").fetchone()
        return int(row[0]), bytes(row[1])

    def mark_moved(self, name: str) -> None:
        self.write_version(f"{self.version} {MOVED} {name}")

    def write_version(self, version: str) -> None:
        assert self._connection is not None
        with translated_errors():
            self._connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
            self._connection.execute("COMMIT")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _begin(target: Database, layouts: tuple[Layout, ...], version: str, mine: str) -> None:
    """Make the tables and the marks at the server, or find those of an earlier try."""

    def job(connection: Connection) -> None:
        without_limits(connection)
        refuse_in_use(connection)
        found = schema_version(connection)
        if found is None:
            upgrade_to(connection, version)
            empty(connection, layouts)
            connection.execute(
                text(
                    "CREATE TABLE chimera_move (name VARCHAR(63) PRIMARY KEY, "
                    "rows BIGINT NOT NULL, last BIGINT NOT NULL, total VARCHAR(64) NOT NULL)"
                )
            )
            mark_version(connection, f"{version} {MOVING} {mine}")
        elif found.startswith(f"{version} {MOVING}") and found != f"{version} {MOVING} {mine}":
            raise MoveFailed(
                "a move of another database to it is not finished",
                next_step="finish that one, or give an empty database",
            )
        elif found != f"{version} {MOVING} {mine}":
            raise NotEmpty("the server's database holds something", next_step="give an empty database")

    await target.exclusive(job)


async def _standing(file: _Source, target: Database, layouts: tuple[Layout, ...]) -> list[_Table]:
    """How far each table is, if what is there is what the file still says; else everything begins anew."""
    query = text("SELECT name, rows, last, total FROM chimera_move")
    rows = await target.read(lambda connection: connection.execute(query).all())
    found = {row.name: row for row in rows}
    tables = []
    for layout in layouts:
        row = found.get(layout.table)
        digest, last = TableDigest(layout.table), -(2**63)
        if row is not None:
            last = int(row.last)
            await asyncio.to_thread(_digest_file, file, layout, digest, last)
            if (digest.rows, digest.text) != (row.rows, row.total):
                await target.exclusive(lambda connection: _clear(connection, layouts))
                return [_Table(one, TableDigest(one.table), -(2**63)) for one in layouts]
        tables.append(_Table(layout, digest, last))
    return tables


def _digest_file(file: _Source, layout: Layout, digest: TableDigest, through: int) -> None:
    codec = RowCodec(layout)
    for _, values in file.rows(layout, -(2**63), through):
        digest.add(codec.encode(values))


def _clear(connection: Connection, layouts: tuple[Layout, ...]) -> None:
    without_limits(connection)
    empty(connection, layouts)
    connection.execute(text("DELETE FROM chimera_move"))


async def _copy(file: _Source, target: Database, table: _Table, progress: Progress) -> None:
    """Copy the rest of a table, batch by batch."""
    total = await asyncio.to_thread(file.count, table.layout)
    rest = file.rows(table.layout, table.last)
    codec = RowCodec(table.layout)
    while True:
        before = table.last
        batch = await asyncio.to_thread(_batch, table, rest, codec)
        if not batch:
            return
        await target.write(partial(_store, table=table, batch=batch, before=before))
        progress(table.layout.table, table.digest.rows, total)


def _batch(table: _Table, rest: Iterator[tuple[int, Values]], codec: RowCodec) -> list[Values]:
    """The next rows that go over together; the table's digest and place go along."""
    batch: list[Values] = []
    size = 0
    for place, values in rest:
        encoded = codec.encode(values)
        canonical = codec.decode(encoded)
        check_fits(table.layout, canonical, "postgresql")
        table.digest.add(encoded)
        table.last = place
        batch.append(canonical)
        size += len(encoded)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            break
    return batch


def _store(connection: Connection, table: _Table, batch: list[Values], before: int) -> None:
    without_limits(connection)
    name = table.layout.table
    place = text("SELECT last FROM chimera_move WHERE name = :name FOR UPDATE")
    there = connection.execute(place, {"name": name}).scalar()
    if there == table.last:
        return  # it was committed, and its answer was lost
    if (before if there is None else there) != before:
        raise MoveFailed("another process moves the same database", next_step="let it finish")
    write_rows(connection, table.layout, batch)
    values = {"name": name, "rows": table.digest.rows, "last": table.last, "total": table.digest.text}
    connection.execute(
        text(
            "INSERT INTO chimera_move (name, rows, last, total) VALUES (:name, :rows, :last, :total) "
            "ON CONFLICT (name) DO UPDATE SET rows = excluded.rows, last = excluded.last, total = excluded.total"
        ),
        values,
    )


def _compare(connection: Connection, tables: list[_Table]) -> None:
    without_limits(connection)
    for table in tables:
        found = digest_of(connection, table.layout)
        if (found.rows, found.text) != (table.digest.rows, table.digest.text):
            raise MoveFailed(
                f"{table.layout.table}: the server has {found.rows:,} rows with another digest than the file's "
                f"{table.digest.rows:,}",
                next_step="give an empty database, and move again; the file is as it was",
            )


def _open(connection: Connection, layouts: tuple[Layout, ...], version: str) -> None:
    """Let the server's database be used: nobody of before lives there, and its clock is another."""
    without_limits(connection)
    settle(connection, layouts, Seen(), ahead=0)
    connection.execute(text("DROP TABLE chimera_move"))
    mark_version(connection, version)


async def _finish_late(file: _Source, target: Database, mine: str) -> Moved:
    """Finish a move whose file says already that it was moved."""
    found = await target.read(schema_version)
    if found == f"{file.version} {MOVING} {mine}":
        layouts = layouts_at(file.version)
        await target.exclusive(lambda connection: _open(connection, layouts, file.version))
    elif found is None or split_version(found)[1] is not None:
        raise MoveFailed("the file was moved, and not to this database", next_step="give the URL that it was moved to")
    seq, last = file.head()
    query = text("SELECT hash FROM audit_entry WHERE seq = :seq")
    there: Any = await target.read(lambda connection: connection.execute(query, {"seq": seq}).scalar())
    if seq and (there is None or bytes(there) != last):
        raise MoveFailed("the file was moved, and not to this database", next_step="give the URL that it was moved to")
    return Moved(rows=0, resumed=0, digests={})


def _name_of(source: Path) -> str:
    """Tells this file's move from others', on whatever machine it is begun."""
    return hashlib.sha256(f"{platform.node()}\0{source.resolve()}".encode()).hexdigest()[:8]
