"""Whole tables in and out of a database, fast and in bounded memory, whichever database it is.

Which tables and columns a version of the schema has is asked of the migrations, by running them on an empty SQLite
database in memory: that is right for older versions too, and leaves alone what else may be in a server's database.

Rows stream by the driver: SQLite's cursor and `executemany`, PostgreSQL's `COPY` in its binary format, which sends one
row after the other without a cursor to keep and is several times faster than statements.
"""

import struct
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, types
from sqlalchemy.util import await_only

from chimera.adapters.storage.backup.rows import Column, Kind, Layout, Values
from chimera.adapters.storage.migrating import upgrade_to
from chimera.adapters.storage.postgresql_errors import translated_errors as postgresql_errors
from chimera.adapters.storage.sqlite import translated_errors as sqlite_errors

Take = Callable[[Values], None]

_ALL_THE_TIME = 7 * 86_400.0
_HEADER = b"PGCOPY\n\xff\r\n\0"
_FIXED = len(_HEADER) + 8


@cache
def layouts_at(version: str) -> tuple[Layout, ...]:
    """The tables of a version of the schema, those first that others refer to."""
    engine = create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            upgrade_to(connection, version)
            found = MetaData()
            found.reflect(connection)
    finally:
        engine.dispose()
    return tuple(
        Layout(
            table=str(table.name),
            columns=tuple(
                Column(
                    name=str(column.name),
                    kind=_kind(column.type),
                    nullable=bool(column.nullable),
                    length=column.type.length if isinstance(column.type, types.String) else None,
                )
                for column in sorted(table.columns, key=lambda column: column.name)
            ),
        )
        for table in found.sorted_tables
        if table.name != "alembic_version"
    )


def read_rows(connection: Connection, layout: Layout, take: Take) -> None:
    """Give each row of a table to `take`, in no order."""
    query = f"SELECT {_listed(layout)} FROM {_quoted(layout.table)}"
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        with sqlite_errors():
            for row in driver.execute(query):  # type: ignore[union-attr]
                take(row)
        return
    reader = _CopyReader(layout, take)

    async def chunk(data: bytes) -> None:
        reader.feed(data)

    with postgresql_errors():
        await_only(
            driver.copy_from_query(query, output=chunk, format="binary", timeout=_ALL_THE_TIME)  # type: ignore[union-attr]
        )
    reader.end()


def write_rows(connection: Connection, layout: Layout, rows: Iterable[Values]) -> None:
    """Insert rows into a table, in the connection's transaction."""
    driver = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(layout.columns))
        statement = f"INSERT INTO {_quoted(layout.table)} ({_listed(layout)}) VALUES ({places})"
        with sqlite_errors():
            driver.executemany(statement, rows)  # type: ignore[union-attr]
        return
    with postgresql_errors():
        await_only(
            driver.copy_records_to_table(  # type: ignore[union-attr]
                layout.table, records=rows, columns=layout.names, timeout=_ALL_THE_TIME
            )
        )


def empty(connection: Connection, layouts: Iterable[Layout]) -> None:
    """Remove every row, also those that migrations have put there."""
    for layout in reversed(tuple(layouts)):
        connection.exec_driver_sql(f"DELETE FROM {_quoted(layout.table)}")


def without_limits(connection: Connection) -> None:
    """Let the transaction's statements take as long as they take, where the database would end them."""
    if connection.dialect.name != "sqlite":
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = 0")


class _CopyReader:
    """PostgreSQL's binary COPY format, in pieces of any size: a header, then each row's fields after their lengths."""

    def __init__(self, layout: Layout, take: Take) -> None:
        self._take = take
        self._decoders = [_DECODERS[column.kind] for column in layout.columns]
        self._buffer = bytearray()
        self._begun = False
        self._ended = False

    def feed(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        place = 0
        if not self._begun:
            if len(buffer) < _FIXED:
                return
            (extension,) = struct.unpack_from(">I", buffer, len(_HEADER) + 4)
            if not buffer.startswith(_HEADER):
                raise ValueError("the server's COPY is in no format known here")
            if len(buffer) < _FIXED + extension:
                return
            self._begun, place = True, _FIXED + extension
        view = memoryview(buffer)
        try:
            while (following := self._row(view, place)) is not None:
                place = following
        finally:
            view.release()
        del buffer[:place]

    def end(self) -> None:
        if not self._ended:
            raise ValueError("the server's COPY ended in the middle")

    def _row(self, view: memoryview, place: int) -> int | None:
        """Take the row at `place`; where the next begins, or None where not all of it is there."""
        if self._ended or len(view) - place < 2:
            return None
        (fields,) = struct.unpack_from(">h", view, place)
        place += 2
        if fields == -1:
            self._ended = True
            return place
        values: list[Any] = []
        for decode in self._decoders:
            if len(view) - place < 4:
                return None
            (length,) = struct.unpack_from(">i", view, place)
            place += 4
            if length < 0:
                values.append(None)
                continue
            if len(view) - place < length:
                return None
            values.append(decode(bytes(view[place : place + length])))
            place += length
        self._take(tuple(values))
        return place


def _unpacked(form: str) -> Callable[[bytes], Any]:
    unpack = struct.Struct(form).unpack
    return lambda data: unpack(data)[0]


_DECODERS: dict[Kind, Callable[[bytes], Any]] = {
    Kind.TEXT: lambda data: data.decode("utf-8"),
    Kind.BYTES: lambda data: data,
    Kind.INT32: _unpacked(">i"),
    Kind.INT64: _unpacked(">q"),
    Kind.FLOAT: _unpacked(">d"),
    Kind.BOOL: lambda data: data != b"\0",
}


def _kind(found: Any) -> Kind:
    for kind, classes in _KINDS:
        if isinstance(found, classes):
            return kind
    raise TypeError(f"a column of type {found!r} has no place in a backup; give it a kind in backup/rows.py")


_KINDS: tuple[tuple[Kind, Any], ...] = (
    (Kind.TEXT, types.String),
    (Kind.BYTES, types.LargeBinary),
    (Kind.BOOL, types.Boolean),
    (Kind.INT64, types.BigInteger),
    (Kind.INT32, types.Integer),
    (Kind.FLOAT, types.Float),
)


def _listed(layout: Layout) -> str:
    return ", ".join(map(_quoted, layout.names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
