"""`python -m benchmarks.backup`: what a backup, a restore and a move cost, beside the obvious alternatives.

The database holds 13,939 agents with their revisions and 100,000 sessions of 2 KB whose bytes compress to about a half,
as conversations do. A backup and a restore are measured on both databases, a move from the file to a server. The
alternatives copy the file: SQLite's own online backup, and `cp` of a database that nobody writes. Neither gives
digests, and neither can be restored to a server.

How it grows: with the bytes, and with the rows where they are small. Memory is bounded by the largest row.
"""

import argparse
import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from benchmarks import machine
from benchmarks.stats import median, spread
from chimera.adapters.storage.backup.archive import reading
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.moving import move_to_server
from chimera.adapters.storage.backup.restoring import restore_file, restore_server
from chimera.adapters.storage.backup.rows import Kind, Layout, Values
from chimera.adapters.storage.backup.tables import layouts_at, write_rows
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import MAINTENANCE
from chimera.adapters.storage.opening import is_url, open_database
from chimera.testing.postgresql import PostgreSQLServer

AGENTS, SESSIONS = 13_939, 100_000
STATE = 2_048
REVISION = 1_800
_PLAIN: dict[Kind, object] = {Kind.TEXT: "", Kind.BYTES: b"", Kind.INT32: 1, Kind.INT64: 1, Kind.FLOAT: 1.0}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one way and one run: seconds, and rows and bytes of the database in that time; `size` of what was written."""

    seconds: float
    rows: int
    bytes: int
    size: int


def half_random(chance: random.Random, size: int) -> bytes:
    """Bytes of which about a half can be told from the rest."""
    return (chance.randbytes(size // 2) + b'{"role":"user","content":"' * (size // 50 + 1))[:size]


async def fill(name: str, scale: int) -> int:
    """Fill a new database; its rows."""
    layouts = {layout.table: layout for layout in layouts_at("head")}
    chance = random.Random(1)
    agents, sessions = max(1, AGENTS // scale), max(1, SESSIONS // scale)
    cell = {"id": "cell", "tenant": "default", "runtime_class": b"{}"}
    digests = [f"sha256:{number:064x}" for number in range(agents)]
    common = {"tenant": "default", "version": "1.0.0"}
    revisions = (
        {**common, "digest": digest, "agent": f"agent-{n}", "canonical": half_random(chance, REVISION)}
        for n, digest in enumerate(digests)
    )
    rows = (
        {**common, "name": f"agent-{n}", "revision": digest, "cell": "cell", "sequence": n}
        for n, digest in enumerate(digests)
    )
    held = (
        {"tenant": "default", "agent": f"agent-{n % agents}", "session": f"s-{n}", "state": half_random(chance, STATE)}
        for n in range(sessions)
    )

    def job(connection: Connection) -> None:
        for table, made in (("cell", [cell]), ("revision", revisions), ("agent", rows), ("session", held)):
            write_rows(connection, layouts[table], (_row(layouts[table], one) for one in made))

    database = open_database(name)
    try:
        await migrate(database)
        await database.exclusive(job)
    finally:
        await asyncio.to_thread(database.close)
    return 1 + 2 * agents + sessions


def _row(layout: Layout, given: dict[str, object]) -> Values:
    return tuple(given.get(column.name, None if column.nullable else _PLAIN[column.kind]) for column in layout.columns)


async def backup(name: str, file: Path) -> None:
    """Write a backup."""
    database = open_database(name, application=MAINTENANCE)
    try:
        await create_backup(database, file, release="benchmark")
    finally:
        await asyncio.to_thread(database.close)


async def restore(file: Path, name: str) -> None:
    """Restore a backup into an empty database."""
    with reading(file) as reader:
        if not is_url(name):
            await restore_file(reader, Path(name), replace=False, progress=lambda table, rows: None)
            return
        database = open_database(name, application=MAINTENANCE)
        try:
            await restore_server(database, reader, replace=False, progress=lambda table, rows: None)
        finally:
            await asyncio.to_thread(database.close)


async def move(file: Path, url: str) -> None:
    """Move a file to an empty database."""
    database = open_database(url, application=MAINTENANCE)
    try:
        await move_to_server(file, database)
    finally:
        await asyncio.to_thread(database.close)


def timed(work: Callable[[], Awaitable[None]]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    asyncio.run(work())  # type: ignore[arg-type]
    return time.perf_counter() - began


def one_run(scale: int) -> dict[str, Figures]:
    """Everything once, on databases of one in `scale` of the rows."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as name, PostgreSQLServer(durable=True) as server:
        folder = Path(name)
        file, url = folder / "chimera.db", server.new_database(migrated=False)
        rows = asyncio.run(fill(str(file), scale))
        asyncio.run(fill(url, scale))
        size = file.stat().st_size

        def note(way: str, seconds: float, written: Path | None) -> None:
            made = size if written is None else written.stat().st_size
            found[way] = Figures(seconds=seconds, rows=rows, bytes=size, size=made)

        first, second = folder / "a.backup", folder / "b.backup"
        note("backup, SQLite", timed(lambda: backup(str(file), first)), first)
        note("backup, PostgreSQL", timed(lambda: backup(url, second)), second)
        note("restore, SQLite", timed(lambda: restore(first, str(folder / "new.db"))), None)
        empty = server.new_database(migrated=False)
        note("restore, PostgreSQL", timed(lambda: restore(second, empty)), None)
        note("move, SQLite to PostgreSQL", timed(lambda: move(file, server.new_database(migrated=False))), None)
        note("copied: SQLite's online backup", _online_backup(file, folder / "online.db"), folder / "online.db")
        note("copied: cp and sync", _copy(file, folder / "copy.db"), folder / "copy.db")
    return found


def _online_backup(source: Path, target: Path) -> float:
    began = time.perf_counter()
    old, new = sqlite3.connect(source), sqlite3.connect(target)
    old.backup(new)
    new.close()
    old.close()
    return time.perf_counter() - began


def _copy(source: Path, target: Path) -> float:
    began = time.perf_counter()
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.perf_counter() - began


def show(runs: list[dict[str, Figures]], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told, one = machine.describe(), next(iter(runs[0].values()))
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    console.print(f"{one.rows:,} rows, {one.bytes / 1e6:,.0f} MB as a SQLite file")
    table = Table(box=None, pad_edge=False)
    for name in ("", "s", "rows/s", "MB/s", "MB written"):
        table.add_column(name, justify="right" if name else "left")
    for way in runs[0]:
        seconds = [run[way].seconds for run in runs]
        rates = [run[way].rows / run[way].seconds for run in runs]
        speed = [run[way].bytes / 1e6 / run[way].seconds for run in runs]
        table.add_row(
            way,
            f"{median(seconds):.3g} ±{spread(seconds) / 2:.2g}",
            f"{median(rates):,.0f}",
            f"{median(speed):,.3g}",
            f"{runs[0][way].size / 1e6:,.3g}",
        )
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=int, default=1, help="measure one in so many of the rows (default 1)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = [one_run(options.scale) for _ in range(options.runs)]
    show(runs, Console(width=120))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
