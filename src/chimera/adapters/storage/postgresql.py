"""PostgreSQL: one server that any number of control planes and gateways share.

The driver is asyncpg, in a thread of its own (`storage_thread`); queries and jobs stay plain functions, run by
SQLAlchemy's greenlets. Transactions are begun and ended here and not by SQLAlchemy, so that prepared statements, which
go past it, are in them, and so that it is known whether a commit was sent when the server goes away.

Reading is one `REPEATABLE READ` snapshot, or, for a quick look-up, one statement. Writing is group commit, in one
transaction after another, at `READ COMMITTED`. A group that meets a lock which somebody else keeps, or a deadlock, or
fails as a whole in any other way, is given up, and its jobs run again one by one, so that none suffers from another.
Where the server went away before the commit was sent, the work runs again once, on a connection made anew; after that
it is not known whether it was committed, and the caller is told so.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, TypeVar

import asyncpg
from sqlalchemy import Connection, Executable, Table, event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool
from sqlalchemy.util import await_only

from chimera.adapters.storage.database import Database, Health, Prepared, Row, compiled
from chimera.adapters.storage.errors import (
    StorageAway,
    StorageBusy,
    StorageUnsure,
    closing_down,
    failed,
    locked,
    unsure,
)
from chimera.adapters.storage.group import MOST_JOBS, Item, Outcome, answer, log_given_up, refuse, run_group
from chimera.adapters.storage.journal import JournalStatements
from chimera.adapters.storage.postgresql_errors import translated_errors
from chimera.adapters.storage.storage_thread import StorageThread
from chimera.kernel.clock import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")

APPLICATION = "chimera"
"""What the server calls connections of a running platform; those that look after a database have another name."""
OLDEST = 14
"""The oldest release of the server that is supported."""
CONNECTIONS = 8
"""Connections of a process for reading; writing has one more, migrations one while they run."""
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 30.0
GROUP_LOCK_TIMEOUT = 0.5
"""Seconds that a group of jobs waits for a lock before its jobs run one by one."""
LOCK_TIMEOUT = 20.0
"""Seconds that a job alone waits for a lock; SQLite's busy time-out."""
IDLE_TIMEOUT = 20.0
"""Seconds after which the server ends a transaction whose process has stopped in the middle, and frees its locks."""
_ANSWER_TIMEOUT = STATEMENT_TIMEOUT + 5.0
_ONE_PROCESS = 0x4368696D  # the key of the advisory lock behind `exclusive`

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_WRITE_GROUP = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{GROUP_LOCK_TIMEOUT * 1000:.0f}ms'"
_WRITE_ONE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_NOW = text("SELECT extract(epoch FROM clock_timestamp())::double precision")


class PostgreSQLDatabase(Database):
    """A server's database, by its URL. Connections are made when they are needed, and made again when they end."""

    dialect: Literal["sqlite", "postgresql"] = "postgresql"

    def __init__(
        self, url: str, *, password: str | None = None, clock: Clock | None = None, application: str = APPLICATION
    ) -> None:
        """Start the thread; nobody is connected yet. `clock` stands in for the server's, in tests."""
        self._application = application
        self._url = url
        self._password = password
        self._clock = clock
        self._thread = StorageThread("storage")
        self._readers = self._engine(size=CONNECTIONS, default_transaction_read_only="on")
        self._writers = self._engine(size=1)
        self._journal = JournalStatements(self)
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue()
        self._closed = False
        self._writer: asyncio.Task[None] | None = None
        self._thread.soon(self._start)

    async def read(self, query: Callable[[Connection], T], *, quick: bool = False) -> T:
        """See `Database`."""
        return await self._run(lambda: self._read(query, quick=quick))

    async def write(self, job: Callable[[Connection], T]) -> T:
        """See `Database`."""
        if self._closed:
            raise closing_down()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._thread.soon(self._queue.put_nowait, Item(job, loop, future))
        return await future

    async def exclusive(self, job: Callable[[Connection], T]) -> T:
        """See `Database`."""
        return await self._run(lambda: self._exclusive(job))

    def insert(self, table: Table) -> postgresql.Insert:
        """See `Database`."""
        return postgresql.insert(table)

    def prepared(self, statement: Executable, columns: Iterable[str] = ()) -> Prepared:
        """See `Database`."""
        return _Prepared(*compiled(statement, columns, self._readers.dialect))

    def now(self, connection: Connection) -> float:
        """See `Database`."""
        return float(connection.execute(_NOW).scalar_one()) if self._clock is None else self._clock.wall()

    def health(self, connection: Connection) -> Health:
        """See `Database`."""
        names = ("server_version", "server_version_num", "fsync", "full_page_writes", "server_encoding")
        said = {name: str(connection.execute(text(f"SHOW {name}")).scalar()) for name in names}
        faults = []
        if int(said["server_version_num"]) < OLDEST * 10_000:
            faults.append(f"PostgreSQL {said['server_version']} is too old; use {OLDEST} or newer")
        for name in ("fsync", "full_page_writes"):
            if said[name] == "off":
                faults.append(f"{name} is off: a crash of the server's machine may lose what was stored; set it to on")
        if said["server_encoding"] != "UTF8":
            faults.append(f"its encoding is {said['server_encoding']}; make a database with ENCODING UTF8")
        return Health(server=f"PostgreSQL {said['server_version'].partition(' ')[0]}", faults=tuple(faults))

    def size(self, connection: Connection) -> int:
        """See `Database`."""
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def free(self, connection: Connection) -> int | None:
        """See `Database`: the server's own vacuuming keeps account of it."""
        return None

    def close(self) -> None:
        """See `Database`."""
        self._closed = True
        self._thread.close(self._finish)

    # -- in the storage thread -------------------------------------------------------------------------------------

    async def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._closed:
            raise closing_down()
        return await self._thread.run(make())

    def _start(self) -> None:
        self._writer = asyncio.ensure_future(self._write_for_ever())

    async def _finish(self) -> None:
        self._queue.put_nowait(None)
        if self._writer is not None:
            await self._writer
        refuse([self._queue.get_nowait() for _ in range(self._queue.qsize())])
        await self._readers.dispose()
        await self._writers.dispose()

    async def _read(self, query: Callable[[Connection], T], *, quick: bool) -> T:
        begin = None if quick else _READ
        try:
            return await _transact(self._readers, begin, query)
        except StorageAway:
            return await _transact(self._readers, begin, query)

    async def _exclusive(self, job: Callable[[Connection], T]) -> T:
        def alone(connection: Connection) -> T:
            driver = _driver(connection)
            await_only(driver.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
            await_only(driver.execute(f"SELECT pg_advisory_xact_lock({_ONE_PROCESS})"))
            result: T = run_group(connection, [job], self._journal, _Transactions())[0][0]
            return result

        engine = self._engine(size=0)
        try:
            return await _transact(engine, _WRITE_ONE, alone)
        finally:
            await engine.dispose()

    async def _write_for_ever(self) -> None:
        last = False
        while not last and (first := await self._queue.get()) is not None:
            items = [first]
            while len(items) < MOST_JOBS and not self._queue.empty():
                following = self._queue.get_nowait()
                if following is None:
                    last = True
                    break
                items.append(following)
            answer(items, await self._commit(items))

    async def _commit(self, items: list[Item]) -> list[Outcome]:
        if len(items) > 1:
            try:
                return await self._group(items, _WRITE_GROUP)
            except (StorageAway, StorageUnsure) as error:
                return [(None, error)] * len(items)
            except Exception as error:
                log_given_up(error, len(items))
        outcomes: list[Outcome] = []
        begin = _WRITE_ONE
        for item in items:
            try:
                outcomes += await self._group([item], begin)
            except Exception as error:
                outcomes.append((None, error))
                if isinstance(error, StorageBusy):
                    begin = _WRITE_GROUP  # the others don't wait that long for the same lock again
        return outcomes

    async def _group(self, items: list[Item], begin: str) -> list[Outcome]:
        jobs = [item.job for item in items]

        def together(connection: Connection) -> list[Outcome]:
            outcomes = run_group(connection, jobs, self._journal, _Transactions())
            if len(jobs) > 1 and any(isinstance(failure, StorageBusy) for _, failure in outcomes):
                raise locked("another transaction held a lock")
            return outcomes

        try:
            return await _transact(self._writers, begin, together)
        except StorageAway:
            return await _transact(self._writers, begin, together)

    def _engine(self, *, size: int, **settings: str) -> AsyncEngine:
        pooling: dict[str, Any] = {"poolclass": NullPool}
        if size:
            pooling = {"poolclass": AsyncAdaptedQueuePool, "pool_size": size, "max_overflow": 0, "pool_timeout": 10}
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: self._connect(_ANSWER_TIMEOUT if size else None, settings),
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            **pooling,
        )
        event.listen(engine.sync_engine, "checkout", _check)
        return engine

    async def _connect(self, patience: float | None, settings: Mapping[str, str]) -> Any:
        connection = await asyncpg.connect(
            self._url,
            password=self._password,
            timeout=CONNECT_TIMEOUT,
            command_timeout=patience,
            server_settings={
                "application_name": self._application,
                "statement_timeout": f"{STATEMENT_TIMEOUT * 1000:.0f}",
                "lock_timeout": f"{LOCK_TIMEOUT * 1000:.0f}",
                "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT * 1000:.0f}",
                **settings,
            },
        )
        try:
            # What is acknowledged must survive; a server that is set otherwise is overruled for these connections.
            if await connection.fetchval("SHOW synchronous_commit") == "off":
                await connection.execute("SET synchronous_commit = on")
        except BaseException:  # also a caller who gives up: the pool doesn't have it yet, so nobody else would end it
            connection.terminate()
            raise
        return connection


class _Transactions:
    translated = staticmethod(translated_errors)

    def execute(self, connection: Connection, *statements: str) -> None:
        await_only(_driver(connection).execute("; ".join(statements)))


async def _transact(engine: AsyncEngine, begin: str | None, work: Callable[[Connection], T]) -> T:
    """Run `work` on a connection of the engine, between `begin` and a commit (None: without a transaction)."""
    with translated_errors():
        async with engine.connect() as connection:
            try:
                return await connection.run_sync(_between, begin, work)
            except (StorageAway, asyncio.CancelledError):
                # Whatever state it is in, nobody uses it again.
                await connection.invalidate()
                raise


def _between(connection: Connection, begin: str | None, work: Callable[[Connection], T]) -> T:
    driver = _driver(connection)
    with translated_errors():
        if begin is None:
            return work(connection)
        await_only(driver.execute(begin))
    try:
        with translated_errors():
            result = work(connection)
    except Exception:
        if not driver.is_closed():
            with translated_errors():
                await_only(driver.execute("ROLLBACK"))
        raise
    _commit(driver)
    return result


def _commit(driver: Any) -> None:
    try:
        with translated_errors():
            tag = await_only(driver.execute("COMMIT"))
    except StorageAway as error:
        if isinstance(error.__cause__, asyncpg.InternalClientError):
            raise
        raise unsure(error.detail) from error
    if tag != "COMMIT":  # a job caught the error of a statement and went on: the server has taken everything back
        raise failed("a statement failed, and the transaction was taken back")


def _check(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    # The server may have closed it since it was used; the pool makes another one then.
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError("closed by the server")


class _Prepared(Prepared):
    def __init__(self, sql: str, names: tuple[str, ...], fixed: dict[str, Any]) -> None:
        self._sql = sql
        self._names = names
        self._fixed = fixed

    def one(self, connection: Connection, **values: Any) -> Row | None:
        row = await_only(_driver(connection).fetchrow(self._sql, *self._row(values)))
        return None if row is None else tuple(row)

    def all(self, connection: Connection, **values: Any) -> list[Row]:
        return [tuple(row) for row in await_only(_driver(connection).fetch(self._sql, *self._row(values)))]

    def run(self, connection: Connection, **values: Any) -> int:
        tag: str = await_only(_driver(connection).execute(self._sql, *self._row(values)))
        return int(tag.rpartition(" ")[2])

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        names, fixed = self._names, self._fixed
        if fixed:
            rows = ({**fixed, **row} for row in rows)
        if values := [[row[name] for name in names] for row in rows]:
            await_only(_driver(connection).executemany(self._sql, values))

    def _row(self, values: Mapping[str, Any]) -> list[Any]:
        fixed = self._fixed
        return [values[name] if name in values else fixed[name] for name in self._names]


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
