"""Removing many rows by one statement: by their keys, or those that come first.

A statement for each row costs PostgreSQL a plan and an execution for each; a list in the statement's text makes a new
text for each length, which both databases read anew. So keys travel as one value, and the statement takes them for a
table: arrays side by side on PostgreSQL, a JSON list on SQLite.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Select, Table, column, delete, func, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

Keys = Sequence[Sequence[Any]]


def rows_of(connection: Connection, columns: Sequence[Column[Any]], keys: Keys) -> Select[Any]:
    """The `keys` as rows of a query, by the names and types of `columns`: texts or numbers, none of them null."""
    if connection.dialect.name == "sqlite":
        sent = msgspec.json.encode([list(key) for key in keys]).decode()
        each = func.json_each(sent).table_valued("value")
        parts = [func.json_extract(each.c.value, f"$[{number}]", type_=one.type) for number, one in enumerate(columns)]
        return select(*(part.label(one.name) for part, one in zip(parts, columns, strict=True)))
    sides = zip(*keys, strict=True) if keys else ((),) * len(columns)
    arrays = [literal(list(side), ARRAY(one.type)) for side, one in zip(sides, columns, strict=True)]
    table = func.unnest(*arrays).table_valued(*(column(one.name, one.type) for one in columns), name="sent")
    return select(*table.render_derived().c)


def is_one_of(connection: Connection, columns: Sequence[Column[Any]], keys: Keys) -> ColumnElement[bool]:
    """Whether a row's `columns` are one of `keys`."""
    return tuple_(*columns).in_(rows_of(connection, columns, keys))


def delete_keys(connection: Connection, columns: Sequence[Column[Any]], keys: Keys, *where: ColumnElement[bool]) -> int:
    """Remove the rows of a table whose `columns` are one of `keys`, and of which `where` holds; how many."""
    return connection.execute(delete(columns[0].table).where(is_one_of(connection, columns, keys), *where)).rowcount


def delete_first(connection: Connection, table: Table, due: ColumnElement[bool], order: Column[Any], limit: int) -> int:
    """Remove the `limit` rows of a table that are `due` and come first by `order`; how many that were.

    Two who do this at once take different rows, and what somebody else changes meanwhile is left to him.
    """
    key = list(table.primary_key.columns)
    first = select(*key).where(due).order_by(order).limit(limit).with_for_update(skip_locked=True)
    # PostgreSQL may run a subquery twice, and would lock and remove more; SQLite's driver counts no rows behind a WITH.
    some = first.subquery() if connection.dialect.name == "sqlite" else first.cte("first")
    return connection.execute(delete(table).where(tuple_(*key).in_(select(some)), due)).rowcount
