"""`python -m benchmarks.upkeep`: what upkeep removes in a second, and what saves notice of it, on both databases.

A million sessions have ended (`--rows`). One process saves a session again and again, as the gateway does after a call,
first alone and then while another process, as the control plane does, removes the ended ones: with the settings as they
are, and with all of the database's time (`share = 1`), which is the obvious way and shows what the pauses are for.

How it grows: a transaction removes as many rows as fit into its time, so the saves' wait does not grow with the number
of rows; the time until all are gone does, in proportion.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, insert

from benchmarks import machine
from benchmarks.stats import median, percentile
from benchmarks.storage import Sessions, databases
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.state import session
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.store import UpkeepStorage
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import new_id
from chimera.platform.upkeep.service import Upkeep
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings

ROWS = 1_000_000
PAGE = 20_000
ALONE = 10.0
STATE = b"x" * 500
SHARES = (UpkeepSettings().share, 1.0)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of saves in ms, alone and while rows are removed; rows removed a second, and how many were."""

    p50: float
    p99: float
    during_p50: float
    during_p99: float
    during_most: float
    rate: float
    removed: int


async def fill(database: Database, rows: int) -> None:
    """Sessions that ended long ago."""
    row = {"tenant": "t", "agent": "old", "version": 1, "state": STATE, "updated": 0.0, "expires": 1.0}
    for start in range(0, rows, PAGE):
        page = [{**row, "session": new_id("s")} for _ in range(min(PAGE, rows - start))]

        def put(connection: Connection, page: list[dict[str, object]] = page) -> None:
            connection.execute(insert(session), page)

        await database.write(put)


async def saves(sessions: Sessions, until: "asyncio.Future[object] | float") -> list[float]:
    """Save until a time has passed, or something is done; how long each took, in ms."""
    took: list[float] = []
    end = time.perf_counter() + until if isinstance(until, float) else 0.0
    while (not until.done()) if isinstance(until, asyncio.Future) else time.perf_counter() < end:
        began = time.perf_counter()
        await sessions.save(0)
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.002)
    return took


async def on(name: str, rows: int, share: float) -> Figures:
    """Everything on the database of that name, which is empty."""
    database = open_database(name)
    try:
        await migrate(database)
        sessions = Sessions(database)
        await sessions.create()
        await fill(database, rows)
        alone = await saves(sessions, ALONE * min(1.0, rows / ROWS * 10))
        began = time.perf_counter()
        command = ("-m", "benchmarks.upkeep", "--work", name, "--share", str(share))
        other = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        told = asyncio.ensure_future(other.communicate())
        during = await saves(sessions, told)
        removed, seconds = msgspec.json.decode(told.result()[0], type=tuple[int, float])
        assert removed == rows, f"{removed} of {rows} were removed in {time.perf_counter() - began:.0f} s"
        return Figures(
            p50=median(alone),
            p99=percentile(alone, 0.99),
            during_p50=median(during),
            during_p99=percentile(during, 0.99),
            during_most=max(during),
            rate=removed / seconds,
            removed=removed,
        )
    finally:
        await asyncio.to_thread(database.close)


async def work(name: str, share: float) -> None:
    """The other process: remove until nothing is left, and say how much that was, and how long it took."""
    database = open_database(name)
    try:
        jobs = [job for job in make_jobs(RetentionSettings()) if job.kind == "sessions"]
        upkeep = Upkeep(UpkeepStorage(database, jobs), SystemClock(), UpkeepSettings(share=share))
        lease = await StoredLeases(database).acquire("upkeep", "bench", 86_400.0)
        assert lease is not None
        began = time.perf_counter()
        while (await upkeep.status()).kinds[0].finished is None:
            await upkeep.round(lease)
        seconds = time.perf_counter() - began
        sys.stdout.write(msgspec.json.encode(((await upkeep.status()).kinds[0].removed, seconds)).decode())
    finally:
        await asyncio.to_thread(database.close)


def measure(rows: int, shares: Sequence[float] = SHARES) -> dict[str, Figures]:
    """Both databases, with pauses and without."""
    found = {}
    with databases() as (folder, server):
        for share in shares:
            found[f"SQLite, share {share:g}"] = asyncio.run(on(str(folder / f"{share}.db"), rows, share))
            found[f"PostgreSQL, share {share:g}"] = asyncio.run(on(server.new_database(), rows, share))
    return found


def show(found: dict[str, Figures], console: Console) -> None:
    """Print the table."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB")
    table = Table(box=None, pad_edge=False)
    names = ("save of a session, ms", "p50", "p99", "p50 meanwhile", "p99", "most", "rows removed/s", "rows")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    for name, one in found.items():
        times = (one.p50, one.p99, one.during_p50, one.during_p99, one.during_most)
        table.add_row(name, *(f"{value:.3g}" for value in times), f"{one.rate:,.0f}", f"{one.removed:,}")
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upkeep", description=main.__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="sessions that have ended (default 1,000,000)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=SHARES[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(options.work, options.share))
        return
    found = measure(options.rows)
    show(found, Console(width=130))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


if __name__ == "__main__":
    main()
