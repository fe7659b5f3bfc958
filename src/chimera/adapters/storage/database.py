"""One database, whichever it is: what reads it, what writes it, and what differs between dialects.

Queries and jobs are plain functions of a SQLAlchemy `Connection`; the database chooses where they run, so that no
caller's event loop waits for a disk. Statements are SQLAlchemy Core and the same for both dialects.

What a job may rely on, on both: it runs in a transaction that others' jobs may share, in a savepoint of its own; if it
raises, nothing of it stays; its caller is answered after the commit. Two things follow from several processes sharing a
PostgreSQL database (on SQLite the write lock makes them true by itself):

- A job that decides by what it reads locks that (`select(…).with_for_update()`, which SQLite leaves out) or writes
  conditionally (`update … where version = …`) and looks at the count. Each statement sees what was committed before it.
- A job may be run again, where the first transaction was given up (a deadlock, a connection lost before the commit). So
  its one effect is on its connection; what it tells its caller, it returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from sqlalchemy import Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import CompilerElement

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]
Insert: TypeAlias = sqlite.Insert | postgresql.Insert


class Prepared(ABC):
    """A statement compiled once and run on the driver, for what happens with every call or definition.

    SQLAlchemy's execution costs 140 to 280 µs for a look-up by key that SQLite answers in 10 (measured); a gateway
    does several for each call, and an apply one for each of 17,597 definitions. So the statement is written with
    SQLAlchemy Core, which keeps it portable and checked against the tables, compiled at the start, and then run as
    text. Parameters are named (`bindparam`, or the columns of an insert). Rare statements run in the ordinary way.
    """

    @abstractmethod
    def one(self, connection: Connection, **values: Any) -> Row | None:
        """The first row."""

    @abstractmethod
    def all(self, connection: Connection, **values: Any) -> list[Row]:
        """All rows."""

    @abstractmethod
    def run(self, connection: Connection, **values: Any) -> int:
        """Run it; the number of rows that it changed."""

    @abstractmethod
    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run it for each of `rows`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """`server` names the product and its version; each of `faults` is a sentence that says what to do."""

    server: str
    faults: tuple[str, ...] = ()


class Database(ABC):
    """A database, opened. Any event loop may use it; `close` ends its threads and connections."""

    dialect: Literal["sqlite", "postgresql"]

    @abstractmethod
    async def read(self, query: Callable[[Connection], T], *, quick: bool = False) -> T:
        """Run a query that writes nothing, on one snapshot of the database; raises `StorageError`.

        `quick` is for one look-up by key that takes less than 100 µs: SQLite runs it in the caller's event loop, and
        neither dialect begins a transaction for it.
        """

    @abstractmethod
    async def write(self, job: Callable[[Connection], T]) -> T:
        """Run `job` in the next transaction; its result once that is committed, or its error.

        Raises `StorageError`: with `retry_after` where it passes by itself, `StorageFull` where there is no room. A
        caller that is cancelled does not take its job back.
        """

    @abstractmethod
    async def exclusive(self, job: Callable[[Connection], T]) -> T:
        """Run `job` in a transaction of its own, without limits of time, while no other process does such a thing."""

    @abstractmethod
    def insert(self, table: Table) -> Insert:
        """An insert with `on_conflict_do_nothing` and `on_conflict_do_update`."""

    @abstractmethod
    def prepared(self, statement: Executable, columns: Iterable[str] = ()) -> Prepared:
        """Compile `statement`; `columns` are those that an insert sets, where they are not said in it."""

    @abstractmethod
    def now(self, connection: Connection) -> float:
        """Seconds since the epoch by the clock that all who share the database share: on PostgreSQL the server's."""

    @abstractmethod
    def health(self, connection: Connection) -> "Health":
        """What it is, and what about its set-up should be otherwise."""

    @abstractmethod
    def size(self, connection: Connection) -> int:
        """The database's size in bytes."""

    @abstractmethod
    def free(self, connection: Connection) -> int | None:
        """Bytes of that which hold nothing and are used before it grows; None where that can't be told cheaply."""

    @abstractmethod
    def close(self) -> None:
        """Finish what was submitted and let go of everything; it blocks, and a second time does nothing."""

    def upsert(self, table: Table, key: Iterable[str]) -> Insert:
        """An insert that replaces all other columns where a row with this `key` is there."""
        names = list(key)
        statement = self.insert(table)
        changed = {column.name: statement.excluded[column.name] for column in table.c if column.name not in names}
        return statement.on_conflict_do_update(index_elements=names, set_=changed)

    def prepared_insert(self, table: Table, statement: Executable | None = None) -> Prepared:
        """A prepared insert (`statement`, or a plain one) that is given all columns of `table`."""
        return self.prepared(self.insert(table) if statement is None else statement, [c.name for c in table.c])


def insert_into(connection: Connection, table: Table) -> Insert:
    """An insert in the dialect of `connection`, for a function of a connection that has no `Database`."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def compiled(
    statement: Executable, columns: Iterable[str], dialect: Any
) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The text of `statement` in `dialect`, its parameters in their order, and those of them that are given in it."""
    assert isinstance(statement, CompilerElement)
    made = statement.compile(dialect=dialect, column_keys=list(columns) or None)
    assert isinstance(made, SQLCompiler)
    assert made.positiontup is not None
    fixed = {name: value for name, value in made.params.items() if not made.binds[name].required and value is not None}
    return str(made), tuple(made.positiontup), fixed
