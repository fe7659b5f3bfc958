"""`python -m benchmarks.storage`: what a session's save and the journal cost, on both databases.

A save is what the gateway does after a call: one conditional update of a session's row (2 KB) and one fact, in one
transaction, durable when it is answered. It is measured one after the other, which shows the latency, and from 64
callers at once, which shows group commit. Beside it stands the obvious way: the same update and insert with a commit
for each, by the driver alone. PostgreSQL is a server of its own on the same machine and disk, with `fsync` on, over a
Unix socket; one across a network adds its round trips.

How it grows: a save costs the same whatever the number of agents and sessions, but for the depth of an index. Saves
share commits, so that from many callers the rate is bounded by CPU and not by the disk.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, bindparam, update

from benchmarks import machine
from benchmarks.stats import median, percentile, spread
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.state import session
from chimera.events.model import Fact
from chimera.kernel.ids import new_id
from chimera.testing.postgresql import PostgreSQLServer

STATE = b"x" * 2048
CALLERS = 64
COLUMNS = ("tenant", "agent", "session", "version", "state", "updated")

Save = Callable[[int], Awaitable[None]]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one way and one run: latencies of saves one after the other in ms, and saves a second from 64 callers."""

    p50: float
    p99: float
    rate: float
    busy_p50: float
    busy_p99: float


class Sessions:
    """Saves sessions as the gateway does."""

    def __init__(self, database: Database) -> None:
        """Compile the statements."""
        self._database = database
        c = session.c
        mine = (c.tenant == bindparam("t")) & (c.agent == bindparam("a")) & (c.session == bindparam("s"))
        changed = {name: bindparam(f"new_{name}") for name in ("version", "state", "updated")}
        self._create = database.prepared(database.insert(session), COLUMNS)
        self._advance = database.prepared(
            update(session).where(mine & (c.version == bindparam("before"))).values(**changed)
        )
        self._versions = [1] * CALLERS

    async def create(self) -> None:
        """Make the sessions that are saved later."""
        for number in range(CALLERS):
            row = dict(zip(COLUMNS, ("t", "a", f"s{number}", 1, STATE, 0.0), strict=True))
            await self._database.write(lambda connection, row=row: self._create.run(connection, **row))

    async def save(self, number: int) -> None:
        """Save the next version of one."""
        before = self._versions[number]

        def job(connection: Connection) -> None:
            done = self._advance.run(
                connection,
                t="t",
                a="a",
                s=f"s{number}",
                before=before,
                new_version=before + 1,
                new_state=STATE,
                new_updated=time.time(),
            )
            assert done == 1
            fact = Fact(
                id=new_id("evt"),
                type="session.updated",
                tenant="t",
                subject=f"agents/a/sessions/s{number}",
                at=time.time(),
                data={"agent": "a", "session": f"s{number}", "version": before + 1, "by": "key:k"},
            )
            journal(connection).fact(fact)

        await self._database.write(job)
        self._versions[number] += 1


async def measure(save: Save, count: int) -> Figures:
    """One after the other, then from all callers at once."""
    alone, busy = [], []
    for _ in range(count):
        began = time.perf_counter()
        await save(0)
        alone.append((time.perf_counter() - began) * 1000)

    async def caller(number: int) -> None:
        for _ in range(max(1, count // 8)):
            began = time.perf_counter()
            await save(number)
            busy.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    seconds = time.perf_counter() - began
    return Figures(
        p50=median(alone),
        p99=percentile(alone, 0.99),
        rate=len(busy) / seconds,
        busy_p50=median(busy),
        busy_p99=percentile(busy, 0.99),
    )


async def ours(name: str, count: int) -> Figures:
    """Chimera's storage on the database of that name."""
    database = open_database(name)
    try:
        await migrate(database)
        sessions = Sessions(database)
        await sessions.create()
        return await measure(sessions.save, count)
    finally:
        await asyncio.to_thread(database.close)


UPDATE = "UPDATE session SET version = version + 1, state = {0}, updated = {1} WHERE session = {2}"
INSERT = (
    "INSERT INTO event (seq, id, tenant, type, subject, at, data) "
    "SELECT coalesce(max(seq), 0) + 1, 'e', 't', 'session.updated', 's', 0, {0} FROM event"
)


async def plain_sqlite(file: Path, count: int) -> Figures:
    """The same rows by `sqlite3`, a commit each, in a thread as a careful program would."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    lock = asyncio.Lock()

    def write(number: int) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(UPDATE.format("?", "?", "?"), (STATE, time.time(), f"s{number}"))
        connection.execute(INSERT.format("?"), (b"{}",))
        connection.execute("COMMIT")

    async def save(number: int) -> None:
        async with lock:
            await asyncio.to_thread(write, number)

    try:
        return await measure(save, count)
    finally:
        connection.close()


async def plain_postgresql(url: str, count: int) -> Figures:
    """The same rows by asyncpg, a commit each, on a pool of connections; the event's place is taken under a lock."""
    async with asyncpg.create_pool(url, min_size=8, max_size=8) as pool:

        async def save(number: int) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(UPDATE.format("$1", "$2", "$3"), STATE, time.time(), f"s{number}")
                await connection.execute("LOCK TABLE event IN EXCLUSIVE MODE")
                await connection.execute(INSERT.format("$1::bytea"), b"{}")

        return await measure(save, count)


@contextmanager
def databases() -> Iterator[tuple[Path, PostgreSQLServer]]:
    """A folder for files, and a server."""
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as folder, PostgreSQLServer(durable=True) as server:
        yield Path(folder), server


def one_run(count: int) -> dict[str, Figures]:
    """Everything once."""
    with databases() as (folder, server):
        file, url = folder / "chimera.db", server.new_database()
        return {
            "SQLite": asyncio.run(ours(str(file), count)),
            "PostgreSQL": asyncio.run(ours(url, count)),
            "SQLite, a commit each": asyncio.run(plain_sqlite(file, count)),
            "PostgreSQL, a commit each": asyncio.run(plain_postgresql(url, count)),
        }


def show(runs: list[dict[str, Figures]], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    table = Table(box=None, pad_edge=False)
    names = ("save of a session", "p50 ms", "p99 ms", f"saves/s, {CALLERS} callers", "p50 ms", "p99 ms")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    for way in runs[0]:
        cells = []
        for field in Figures.__struct_fields__:
            values = [getattr(run[way], field) for run in runs]
            cells.append(f"{median(values):.3g} ±{spread(values) / 2:.2g}")
        table.add_row(way, *cells)
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="saves one after the other (default 1000)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = [one_run(options.count) for _ in range(options.runs)]
    show(runs, Console(width=120))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
