"""SQLite: one file, any number of readers, one writing thread a process.

WAL lets readers go on while one process writes; `synchronous=FULL` makes a commit survive a power cut. All processes
that write (control plane: catalogue; gateway: sessions and the rest) take the write lock at the start of a transaction
and wait for each other up to the busy time-out. Readers' connections refuse to write.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import URL, Connection, Engine, Executable, Table, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from chimera.adapters.storage.database import Database, Health, Prepared, Row, compiled
from chimera.adapters.storage.errors import StorageBusy, StorageError, closing_down, failed, full, locked
from chimera.adapters.storage.group import MOST_JOBS, Item, Outcome, answer, log_given_up, refuse, run_group
from chimera.adapters.storage.journal import JournalStatements
from chimera.kernel.clock import Clock, SystemClock

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_MS = 20_000
WAIT_FOR_THE_MODE_S = 0.005


class SQLiteDatabase(Database):
    """A database file; its folder must exist."""

    dialect: Literal["sqlite", "postgresql"] = "sqlite"

    def __init__(self, file: Path, *, clock: Clock | None = None) -> None:
        """Open it; nothing is read or migrated yet."""
        self._clock = clock or SystemClock()
        self._readers = _engine(file, writes=False)
        self._writers = _engine(file, writes=True)
        self._quick: Connection | None = None
        self._quick_lock = threading.Lock()
        self._journal = JournalStatements(self)
        self._writer = _Writer(self._writers, self._journal)

    async def read(self, query: Callable[[Connection], T], *, quick: bool = False) -> T:
        """See `Database`."""
        return self._look_up(query) if quick else await asyncio.to_thread(self._read, query)

    async def write(self, job: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._writer.submit(job)

    async def exclusive(self, job: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await asyncio.to_thread(self._exclusive, job)

    def insert(self, table: Table) -> sqlite.Insert:
        """See `Database`."""
        return sqlite.insert(table)

    def prepared(self, statement: Executable, columns: Iterable[str] = ()) -> Prepared:
        """See `Database`."""
        return _Prepared(*compiled(statement, columns, sqlite.dialect()))

    def now(self, connection: Connection) -> float:
        """See `Database`: whoever shares the file shares the machine's clock."""
        return self._clock.wall()

    def health(self, connection: Connection) -> Health:
        """See `Database`."""
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        faults = () if mode == "wal" else (f"the journal's mode is {mode} and not WAL; put the home on a local disk",)
        return Health(server=f"SQLite {sqlite3.sqlite_version}", faults=faults)

    def size(self, connection: Connection) -> int:
        """See `Database`."""
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
        return int(pages * (connection.exec_driver_sql("PRAGMA page_size").scalar() or 0))

    def free(self, connection: Connection) -> int | None:
        """See `Database`."""
        pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
        return int(pages * (connection.exec_driver_sql("PRAGMA page_size").scalar() or 0))

    def close(self) -> None:
        """See `Database`."""
        self._writer.close()
        with self._quick_lock:
            if self._quick is not None:
                self._quick.close()
                self._quick = None
        self._readers.dispose()
        self._writers.dispose()

    def _look_up(self, query: Callable[[Connection], T]) -> T:
        # The pool and a transaction would cost more than the look-up: one connection is kept for these.
        with self._quick_lock, translated_errors():
            if self._quick is None:
                self._quick = self._readers.connect()
            try:
                return query(self._quick)
            finally:
                if self._quick.in_transaction():
                    self._quick.rollback()

    def _read(self, query: Callable[[Connection], T]) -> T:
        with translated_errors(), self._readers.begin() as connection:
            return query(connection)

    def _exclusive(self, job: Callable[[Connection], T]) -> T:
        with translated_errors(), self._writers.begin() as connection:
            result: T = run_group(connection, [job], self._journal, _Transactions())[0][0]
        return result


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise what SQLite refuses as `StorageError`, with its words and what to do."""
    try:
        yield
    except DBAPIError as error:
        raise storage_error(error.orig or error) from error
    except (sqlite3.Error, PoolTimeout) as error:
        raise storage_error(error) from error


def storage_error(error: BaseException) -> StorageError:
    """SQLite's error as ours; a lock and a full disk pass, so they say when to come back."""
    words = str(error)
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in words:
        return locked(words)
    # Where the write-ahead log's index can't grow, SQLite speaks of an I/O error.
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE") or "is full" in words:
        return full(words)
    return failed(words)


class _Transactions:
    translated = staticmethod(translated_errors)

    def execute(self, connection: Connection, *statements: str) -> None:
        driver = _driver(connection)
        for statement in statements:
            driver.execute(statement)


class _Writer:
    """The process's one writing thread."""

    def __init__(self, engine: Engine, journal: JournalStatements) -> None:
        self._engine = engine
        self._journal = journal
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    async def submit(self, job: Callable[[Connection], T]) -> T:
        if self._closed:
            raise closing_down()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(Item(job, loop, future))
        return await future

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            items = [first]
            last = False
            while len(items) < MOST_JOBS and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    last = True
                    break
                items.append(following)
            answer(items, self._commit(items))
            if last:
                break
        refuse([self._queue.get_nowait() for _ in range(self._queue.qsize())])

    def _commit(self, items: list[Item]) -> list[Outcome]:
        try:
            with translated_errors(), self._engine.begin() as connection:
                return run_group(connection, [item.job for item in items], self._journal, _Transactions())
        except Exception as error:
            # Nothing of the transaction is there, whatever its jobs returned.
            if len(items) == 1 or isinstance(error, StorageBusy):
                return [(None, error)] * len(items)
            log_given_up(error, len(items))
        return [outcome for item in items for outcome in self._commit([item])]


class _Prepared(Prepared):
    def __init__(self, sql: str, names: tuple[str, ...], fixed: dict[str, Any]) -> None:
        self._sql = sql
        self._names = names
        self._fixed = fixed

    def one(self, connection: Connection, **values: Any) -> Row | None:
        row: Row | None = _driver(connection).execute(self._sql, self._row(values)).fetchone()
        return row

    def all(self, connection: Connection, **values: Any) -> list[Row]:
        rows: list[Row] = _driver(connection).execute(self._sql, self._row(values)).fetchall()
        return rows

    def run(self, connection: Connection, **values: Any) -> int:
        count: int = _driver(connection).execute(self._sql, self._row(values)).rowcount
        return count

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        names, fixed = self._names, self._fixed
        if fixed:
            rows = ({**fixed, **row} for row in rows)
        _driver(connection).executemany(self._sql, [tuple([row[name] for name in names]) for row in rows])

    def _row(self, values: Mapping[str, Any]) -> Row:
        fixed = self._fixed
        return tuple([values[name] if name in values else fixed[name] for name in self._names])


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Turn write-ahead logging on, however many processes do the same to a file that nobody used yet.

    The change needs the file alone, and SQLite answers "locked" at once rather than wait where two hold a read
    lock and both want more (its busy handler would wait without end), so `busy_timeout` doesn't cover it. One of
    the two wins at once, and in a file that has the mode already the same statement takes no lock.

    Raises:
        sqlite3.OperationalError: the file stayed locked for `BUSY_TIMEOUT_MS`, or can't be written.
    """
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(WAIT_FOR_THE_MODE_S)


def _engine(file: Path, *, writes: bool) -> Engine:
    url = URL.create("sqlite", database=str(file))
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 if writes else 4,
        max_overflow=4,
        connect_args={"check_same_thread": False},
    )

    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        # SQLAlchemy begins transactions itself (see `begin`); the driver must not do so a second time.
        connection.isolation_level = None
        write_ahead(connection)
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16000",
            "journal_size_limit=67108864",
            f"query_only={not writes}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Any) -> None:
        # A reader that later writes would deadlock with another; writers say so at the start.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine
