"""How much there is of a kind, estimated: a million rows cost no more than ten thousand.

PostgreSQL keeps estimates of its own. On SQLite, rows are drawn: a table's rows have numbers, given in the order in
which they were made, so a few short stretches of numbers, spread evenly, tell how many of the numbers are taken and
how long the rows are. Tables with few rows are counted, on both.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, LargeBinary, String, Table, func, literal, select, text

EXACT = 10_000
"""Rows up to which they are counted."""
STRETCHES, STRETCH = 64, 64
_ROW_BYTES = 24
"""Bytes that a row takes beside its texts and values, about."""
_NUMBER_BYTES = 8


def measure(connection: Connection, tables: Sequence[Table]) -> tuple[int, int]:
    """The rows of the first table, and the bytes of all."""
    if not tables:
        return 0, 0
    of_one = _on_sqlite if connection.dialect.name == "sqlite" else _on_postgresql
    found = [of_one(connection, table) for table in tables]
    return found[0][0], sum(size for _, size in found)


def _on_postgresql(connection: Connection, table: Table) -> tuple[int, int]:
    its = text("SELECT reltuples, pg_total_relation_size(oid) FROM pg_class WHERE oid = to_regclass(:name)")
    rows, size = connection.execute(its, {"name": f'"{table.name}"'}).one()
    counted = _counted(connection, table)
    return (counted if counted < EXACT else max(EXACT, int(rows))), int(size)


def _on_sqlite(connection: Connection, table: Table) -> tuple[int, int]:
    length = _length(table)
    rows = _counted(connection, table)
    if rows < EXACT:
        return rows, int(connection.execute(select(func.sum(length)).select_from(table)).scalar() or 0)
    first, last = connection.execute(text(f'SELECT min(rowid), max(rowid) FROM "{table.name}"')).one()
    span = last - first + 1
    stretch = select(func.count(), func.sum(length)).select_from(table)
    stretch = stretch.where(text("rowid BETWEEN :begin AND :begin + :more"))
    seen = size = 0
    for number in range(STRETCHES):
        begin = first + (span - STRETCH) * number // (STRETCHES - 1)
        count, long = connection.execute(stretch, {"begin": begin, "more": STRETCH - 1}).one()
        seen, size = seen + count, size + (long or 0)
    if not seen:
        return EXACT, 0
    share = min(1.0, seen / (STRETCHES * STRETCH))
    found = max(EXACT, round(span * share))
    return found, round(found * size / seen)


def _counted(connection: Connection, table: Table) -> int:
    some = select(func.count()).select_from(select(1).select_from(table).limit(EXACT).subquery())
    return int(connection.execute(some).scalar() or 0)


def _length(table: Table) -> ColumnElement[int]:
    """The bytes of a row, about. Keys count twice: they stand once more in the index of the primary key."""
    length: ColumnElement[int] = literal(_ROW_BYTES)
    for column in (*table.c, *table.primary_key.columns):
        long = isinstance(column.type, LargeBinary | String)
        length += func.coalesce(func.length(column), 0) if long else literal(_NUMBER_BYTES)
    return length
