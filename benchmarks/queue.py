"""`python -m benchmarks.queue`: the task queue alone, and DBOS with the same work beside it, on both databases.

    accepted     tasks a second that are durable when they are answered, one by one, from 64 callers at once
    in batches   the same by one caller, 1,000 in each
    completed    tasks a second that are taken, do nothing, and have their result stored, 64 at once

No HTTP, no agents and no hosts: what is measured is what the database does for each task, its facts in the journal
included. Chimera's loop is that of a gateway's worker: look, claim as many as there is room for, settle each. DBOS
enqueues workflows that do nothing from 64 threads, and runs them to completion in another process, 64 at once; that
its queue is looked at every 50 ms instead of every second is in its favour. Both flush each commit to the disk; the
PostgreSQL server is the same for both. DBOS lives in an environment that is made for the run (`bare/dbos.txt`).

How it grows: with what is done, not with what is queued, but for the depth of an index.
"""

import argparse
import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import uv
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.figures import Measured
from benchmarks.stats import median, spread
from benchmarks.storage import CALLERS, databases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import Turns, choose
from chimera.gateway.tasks.model import Claimed, Submission, TaskKey, TaskRequest
from chimera.kernel.ids import new_id
from chimera_host.contract.call import Message

BARE = Path(__file__).parent / "bare"
BATCH = 1_000
AGENTS = 16
KEEP, LEASE = 86_400.0, 600.0
DBOS_SHARE = 20
"""DBOS does this part of the tasks: it is slower."""
ERROR_SHOWN = 500


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks a second, of one database and one run; NaN where it wasn't measured."""

    accepted: float
    batched: float
    completed: float


def submissions(count: int) -> Iterator[Submission]:
    """Tasks of some agents, each with a key of its own."""
    request = msgspec.json.encode(TaskRequest(messages=(Message(role="user", content="x" * 200),), principal=b"{}"))
    for number in range(count):
        yield Submission(
            tenant="default",
            task=new_id("task"),
            agent=f"agent-{number % AGENTS}",
            request=request,
            digest=b"d" * 32,
            deadline=time.time() + KEEP,
            key=new_id("key").encode(),
            actor="key:bench",
        )


async def ours(name: str, count: int) -> Figures:
    """Chimera's queue on the database of that name."""
    database = open_database(name)
    try:
        await migrate(database)
        store = TaskStorage(database, keep=KEEP, lease=LEASE)
        accepted = await one_by_one(store, count)
        batched = await in_batches(store, count)
        return Figures(accepted=accepted, batched=batched, completed=await completed(store, count))
    finally:
        await asyncio.to_thread(database.close)


async def one_by_one(store: TaskStorage, count: int) -> float:
    """Tasks accepted a second, each in a submission of its own."""
    waiting = iter(list(submissions(count)))

    async def caller() -> None:
        for one in waiting:
            await store.submit([one])

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return count / (time.perf_counter() - began)


async def in_batches(store: TaskStorage, count: int) -> float:
    """Tasks accepted a second in batches."""
    made = list(submissions(count))
    batches = [made[start : start + BATCH] for start in range(0, count, BATCH)]
    began = time.perf_counter()
    for batch in batches:
        await store.submit(batch)
    return count / (time.perf_counter() - began)


async def completed(store: TaskStorage, count: int) -> float:
    """Tasks completed a second by a worker of 64, each with a small result."""
    worker, result = new_id("worker"), b'{"output":"done"}'
    await store.arrive(worker, LEASE)
    running: set[asyncio.Task[None]] = set()
    turns, done = Turns(), 0

    async def settle(claimed: Claimed) -> None:
        key = TaskKey(tenant=claimed.task.tenant, task=claimed.task.task)
        await store.settle(key, rules.Succeed(worker=worker, token=claimed.task.token), result)

    began = time.perf_counter()
    while done < count:
        look = await store.look(worker, turns)
        wants, turns = choose(look.survey, free=CALLERS - len(running), room=lambda *_: CALLERS, turns=turns)
        for claimed in await store.claim(worker, wants, LEASE):
            running.add(asyncio.create_task(settle(claimed)))
        finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for one in finished:
            one.result()
        done += len(finished)
    seconds = time.perf_counter() - began
    await asyncio.gather(*running)
    return done / seconds


class Dbos:
    """DBOS in an environment of its own; `why` says why there is none."""

    def __init__(self, folder: Path) -> None:
        """Make the environment."""
        self._python = folder / "dbos" / "bin" / "python"
        tool, lock = uv.find_uv_bin(), str(BARE / "dbos.txt")
        self.why = ""
        for command in (
            [tool, "venv", "--quiet", str(folder / "dbos")],
            [tool, "pip", "install", "--quiet", "--python", str(self._python), "--require-hashes", "-r", lock],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                self.why = f"DBOS could not be installed: {done.stderr.strip()[-ERROR_SHOWN:]}"
                return

    def measure(self, url: str, count: int) -> Figures:
        """The same work."""
        seconds = {what: self._run(what, url, count) for what in ("enqueue", "complete")}
        return Figures(accepted=count / seconds["enqueue"], batched=float("nan"), completed=count / seconds["complete"])

    def _run(self, what: str, url: str, count: int) -> float:
        command = [str(self._python), str(BARE / "dbos_queue.py"), what, url, str(count), str(CALLERS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"DBOS failed: {done.stderr.strip()[-ERROR_SHOWN:]}")
        return float(json.loads(done.stdout.splitlines()[-1]))


def one_run(count: int, *, beside: bool = True) -> tuple[dict[str, Figures], str]:
    """Everything once, and why DBOS was left out, if it was."""
    with databases() as (folder, server):
        urls = {"SQLite": str(folder / "chimera.db"), "PostgreSQL": server.new_database()}
        found = {kind: asyncio.run(ours(url, count)) for kind, url in urls.items()}
        if not beside:
            return found, "it was not asked for"
        other = Dbos(folder)
        if other.why:
            return found, other.why
        few = max(CALLERS, count // DBOS_SHARE)
        found["DBOS on SQLite"] = other.measure(f"sqlite:///{folder / 'dbos.db'}", few)
        found["DBOS on PostgreSQL"] = other.measure(server.new_database(migrated=False), few)
        return found, ""


def measure(count: int, *, beside: bool) -> dict[str, Measured]:
    """The rows of the report."""
    found, why = one_run(count, beside=beside)
    rows = {}
    for kind in ("SQLite", "PostgreSQL"):
        database = kind.lower()
        rows[f"queue_accepted_{database}"] = Measured(value=found[kind].accepted)
        rows[f"queue_completed_{database}"] = Measured(value=found[kind].completed, note=why and f"no DBOS: {why}")
        if (other := found.get(f"DBOS on {kind}")) is not None:
            rows[f"dbos_accepted_{database}"] = Measured(value=other.accepted)
            rows[f"dbos_completed_{database}"] = Measured(value=other.completed)
    return rows


def show(runs: Sequence[dict[str, Figures]], console: Console) -> None:
    """Print the table: medians of the runs and half their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    table = Table(box=None, pad_edge=False)
    for name in ("the queue alone", "accepted/s", "in batches/s", "completed/s"):
        table.add_column(name, justify="left" if name == "the queue alone" else "right")
    for way in runs[0]:
        cells = []
        for field in Figures.__struct_fields__:
            values = [getattr(run[way], field) for run in runs]
            known = values[0] == values[0]
            cells.append(f"{median(values):,.0f} ±{spread(values) / 2:,.0f}" if known else "")
        table.add_row(way, *cells)
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000, help="tasks of a run (default 10,000)")
    parser.add_argument("--no-beside", action="store_true", help="leave out DBOS")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs, why = [], ""
    for _ in range(options.runs):
        found, why = one_run(options.count, beside=not options.no_beside)
        runs.append(found)
    console = Console(width=120)
    show(runs, console)
    if why:
        console.print(f"DBOS was not measured: {why}", markup=False)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
