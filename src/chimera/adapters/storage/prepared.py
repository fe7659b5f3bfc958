"""Statements compiled once and run on the driver, for the reads and writes that happen for every call or definition.

SQLAlchemy's execution costs 140 to 280 µs for a look-up by key that SQLite answers in 10 (measured); a gateway does
several for each call, and an apply one for each of 17,597 definitions. So the statement is written with SQLAlchemy
Core, which keeps it portable and checked against the tables, compiled for the dialect at the start, and then run
as text. Rare statements run in the ordinary way.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import CompilerElement

from chimera.adapters.storage.database import translated_errors

Row = tuple[Any, ...]


class Prepared:
    """One statement; its parameters are named (`bindparam`, or the columns of an insert)."""

    def __init__(self, engine: Engine, statement: Executable, columns: Iterable[str] = ()) -> None:
        """Compile `statement`; `columns` are those that an insert sets, where they are not said in it."""
        assert isinstance(statement, CompilerElement)
        compiled = statement.compile(dialect=engine.dialect, column_keys=list(columns) or None)
        assert isinstance(compiled, SQLCompiler)
        assert compiled.positiontup is not None
        self._sql = str(compiled)
        self._names = tuple(compiled.positiontup)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def one(self, engine: Engine, **values: Any) -> Row | None:
        """The first row, read on a connection of the pool."""
        with translated_errors(), closing(engine.raw_connection()) as pooled:
            row: Row | None = pooled.driver_connection.execute(self._sql, self._row(values)).fetchone()  # type: ignore[union-attr]
            return row

    def all(self, engine: Engine, **values: Any) -> list[Row]:
        """All rows, read on a connection of the pool."""
        with translated_errors(), closing(engine.raw_connection()) as pooled:
            rows: list[Row] = pooled.driver_connection.execute(self._sql, self._row(values)).fetchall()  # type: ignore[union-attr]
            return rows

    def read(self, connection: Connection, **values: Any) -> list[Row]:
        """All rows, read in a transaction."""
        rows: list[Row] = _driver(connection).execute(self._sql, self._row(values)).fetchall()
        return rows

    def run(self, connection: Connection, **values: Any) -> int:
        """Run it in a transaction; the number of rows that it changed."""
        count: int = _driver(connection).execute(self._sql, self._row(values)).rowcount
        return count

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run it for each of `rows`, in a transaction."""
        names, fixed = self._names, self._fixed
        if fixed:
            rows = ({**fixed, **row} for row in rows)
        _driver(connection).executemany(self._sql, [tuple([row[name] for name in names]) for row in rows])

    def _row(self, values: Mapping[str, Any]) -> Row:
        fixed = self._fixed
        return tuple([values[name] if name in values else fixed[name] for name in self._names])


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
