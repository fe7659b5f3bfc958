"""`python -m benchmarks.audit`: what the audit log costs, on both databases.

    appended   entries a second that are durable, in batches of 500, one batch after the other, as a busy gateway
               writes them; beside it the obvious way: one INSERT with a commit for each entry, by the driver alone,
               without a chain
    verified   entries a second of a whole verification: links, Merkle tree, contents against columns
    a call     CPU time in the gateway's process of the two entries of a call (the decision, what came of it), from
               making them to their commit, in microseconds, when calls come in groups of 100
    decided    median time until a decision is durable, one call after the other, in milliseconds: an answer that takes
               longer than that doesn't wait at all

SQLite flushes each commit to the disk (`synchronous=FULL`), PostgreSQL has `fsync` on and runs on the same machine over
a Unix socket; its own CPU time is not in the cost of a call.

How it grows: an append costs the same however long the log is, but for the depth of an index; a verification is linear,
and goes on from a trusted checkpoint.
"""

import argparse
import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

import asyncpg
import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.figures import Measured
from benchmarks.stats import median, spread
from benchmarks.storage import databases
from chimera.adapters.signing.ed25519 import Ed25519Signer, check_signature
from chimera.adapters.signing.files import FolderArchive
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.gateway.audit import AuditTrail, CallEntries
from chimera.gateway.metrics import GatewayMetrics
from chimera.immune.audit.checkpointer import Checkpointer
from chimera.immune.audit.model import AuditRecord, canonical
from chimera.immune.audit.reading import verify
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import new_id

BATCH = 500
GROUP = 100
PLAIN = 20
"""The obvious way is measured on this part of the entries: it is slow."""
REVISION = "sha256:" + "0" * 64
INSERT = "INSERT INTO plain (tenant, at, actor, action, entry) VALUES ({0})"
TABLE = "CREATE TABLE plain (seq {0} PRIMARY KEY, tenant TEXT, at FLOAT, actor TEXT, action TEXT, entry {1})"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one database and one run; `plain` is the obvious way's rate, `call` in µs, `decided` in ms."""

    appended: float
    plain: float
    verified: float
    call: float
    decided: float


def record(call: str) -> AuditRecord:
    """A decision on a call, as the gateway writes it."""
    return AuditRecord(
        at=time.time(),
        tenant="default",
        actor="key:0123456789abcdef",
        action="agent:invoke",
        resource="agents/some-agent-of-the-roster",
        decision="allow",
        call=call,
        request="req_01jd0000000000000000000000",
        detail={"protocol": "http", "revision": REVISION},
    )


async def ours(name: str, count: int) -> tuple[float, float, float, float]:
    """Entries appended a second and verified a second, the cost of a call in µs, and a decision's way in ms."""
    database = open_database(name)
    try:
        await migrate(database)
        store = AuditStorage(database)
        appended = await append(store, count)
        call, decided = await cost_of_calls(store, count // 4)
        return appended, await verification(store), call, decided
    finally:
        await asyncio.to_thread(database.close)


async def appending(name: str, count: int) -> float:
    """Entries appended a second, alone."""
    database = open_database(name)
    try:
        await migrate(database)
        return await append(AuditStorage(database), count)
    finally:
        await asyncio.to_thread(database.close)


async def append(store: AuditStorage, count: int) -> float:
    """Entries appended a second, in batches that are each durable before the next."""
    batches = [[record(f"call_{start + number}") for number in range(BATCH)] for start in range(0, count, BATCH)]
    began = time.perf_counter()
    for batch in batches:
        await store.record(batch)
    return len(batches) * BATCH / (time.perf_counter() - began)


async def verification(store: AuditStorage) -> float:
    """Entries verified a second, against a checkpoint of the whole log."""
    signer = Ed25519Signer("bench.example/audit", bytes(32))
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(
            store,
            files=(),
            keys=(signer.public,),
            checker=check_signature,
            signer=signer,
            archive=FolderArchive(Path(folder)),
            clock=SystemClock(),
            settings=AuditSettings(),
        )
        await checkpointer.step(None, now_at_once=True)
    began = time.perf_counter()
    report = await verify(store, keys=(signer.public,), checker=check_signature)
    assert report.ok
    assert report.signed_through == report.last
    return report.checked / (time.perf_counter() - began)


async def cost_of_calls(store: AuditStorage, calls: int) -> tuple[float, float]:
    """Microseconds of this process's CPU for the two entries of a call; milliseconds until one decision is durable."""
    trail = AuditTrail(store, AuditSettings(), SystemClock(), GatewayMetrics())
    running = asyncio.create_task(trail.run())

    async def call() -> None:
        entries = CallEntries(
            trail, tenant="default", agent="an-agent", actor="key:0123456789abcdef", request="req_1", traceparent=""
        )
        entries.admitted(new_id("call"), {"protocol": "http", "revision": REVISION})
        await entries.durable()
        entries.ended("ok", {"ms": 12, "host": "host-1"})

    async def nothing() -> None:
        await asyncio.sleep(0)

    async def groups(work: object) -> float:
        began = time.process_time()
        for _ in range(max(1, calls // GROUP)):
            await asyncio.gather(*(work() for _ in range(GROUP)))  # type: ignore[operator]
        return time.process_time() - began

    bare = await groups(nothing)
    spent = await groups(call)
    alone = []
    for _ in range(max(1, calls // GROUP)):
        began = time.perf_counter()
        await trail.durable(trail.decided(record(new_id("call"))))
        alone.append((time.perf_counter() - began) * 1000)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await trail.flush()
    return (spent - bare) / (max(1, calls // GROUP) * GROUP) * 1_000_000, median(alone)


def plain_sqlite(file: Path, count: int) -> float:
    """Entries a second, an INSERT and a commit each."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(TABLE.format("INTEGER", "BLOB"))
    began = time.perf_counter()
    for number in range(count):
        one, entry = canonical(record(f"call_{number}"))
        connection.execute(INSERT.format("?, ?, ?, ?, ?"), (one.tenant, one.at, one.actor, one.action, entry))
    rate = count / (time.perf_counter() - began)
    connection.close()
    return rate


async def plain_postgresql(url: str, count: int) -> float:
    """The same by asyncpg."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(TABLE.format("BIGSERIAL", "BYTEA"))
        began = time.perf_counter()
        for number in range(count):
            one, entry = canonical(record(f"call_{number}"))
            await connection.execute(
                INSERT.format("$1, $2, $3, $4, $5"), one.tenant, one.at, one.actor, one.action, entry
            )
        return count / (time.perf_counter() - began)
    finally:
        await connection.close()


def one_run(count: int) -> dict[str, Figures]:
    """Everything once."""
    with databases() as (folder, server):
        file, url = folder / "chimera.db", server.new_database()
        few = max(1, count // PLAIN)
        plain = {
            "SQLite": plain_sqlite(folder / "plain.db", few),
            "PostgreSQL": asyncio.run(plain_postgresql(url, few)),
        }
        found = {}
        for way, name in (("SQLite", str(file)), ("PostgreSQL", url)):
            appended, verified, call, decided = asyncio.run(ours(name, count))
            found[way] = Figures(appended=appended, plain=plain[way], verified=verified, call=call, decided=decided)
        return found


def measure(count: int) -> dict[str, Measured]:
    """The rows of the report: entries appended a second."""
    rows = {}
    with databases() as (folder, server):
        for database, name in (("sqlite", str(folder / "chimera.db")), ("postgresql", server.new_database())):
            rows[f"audit_{database}"] = Measured(value=asyncio.run(appending(name, count)))
    return rows


def show(runs: list[dict[str, Figures]], console: Console) -> None:
    """Print the table: medians of the runs and half their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    table = Table(box=None, pad_edge=False)
    names = ("audit log", "appended/s", "a commit each/s", "verified/s", "a call µs CPU", "decided ms")
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    for way in runs[0]:
        cells = []
        for field in Figures.__struct_fields__:
            values = [getattr(run[way], field) for run in runs]
            cells.append(_shown(median(values)) + " ±" + _shown(spread(values) / 2))
        table.add_row(way, *cells)
    console.print(table)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=100_000, help="entries appended in a run (default 100,000)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = [one_run(options.count) for _ in range(options.runs)]
    show(runs, Console(width=120))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
