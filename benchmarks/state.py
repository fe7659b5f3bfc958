"""`python -m benchmarks.state`: what work that outlives a call costs, by the gateway's own services, on both databases.

Each thing is done one after the other, which shows what it adds to a call, and by 64 callers at once, which shows how
commits are shared. The latencies hold everything between the service and the disk: rules, encoding, the transaction
with its facts, the flush. Each caller has a session or run of its own; the shared space is one for all of them, which
is its worst case. PostgreSQL is a server on the same machine, with `fsync` on, over a Unix socket.

How it grows: with what is done, not with the number of agents, sessions or runs, but for the depth of an index.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.figures import Measured
from benchmarks.stats import median, spread
from benchmarks.storage import CALLERS, Figures, Save, databases
from benchmarks.storage import measure as measure_way
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.state.stores import make_state
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import StateSettings
from chimera.gateway.state.answers import Answers
from chimera.gateway.state.runs import OpenRun, Runs, Wanted
from chimera.gateway.state.sessions import Sessions
from chimera.gateway.state.spaces import Spaces
from chimera.gateway.state.spaces_rules import Declared
from chimera.kernel.clock import SystemClock
from chimera_host.contract.call import InvokeResponse, Message, SessionState
from chimera_host.contract.state import SharedBody, SharedWrite, StepBody

TEXT = "x" * 2_000
ASKED = (Message(role="user", content="?"),)
ANSWER = InvokeResponse(output=TEXT, call="c", agent="a", revision="r", host="h")
SETTINGS = StateSettings(run_steps=1_000_000, run_bytes=2**40)

Results = dict[str, Figures]
T = TypeVar("T")


class Bench:
    """The services on one database, and what is measured of them."""

    def __init__(self, database: Database) -> None:
        """Put them together."""
        clock, metrics = SystemClock(), GatewayMetrics()
        stores = make_state(database, SETTINGS, clock)
        sessions = Sessions(stores.sessions, clock, most_bytes=2**20, settings=SETTINGS)
        self._runs = Runs(stores.runs, sessions, clock, gateway="gw", settings=SETTINGS, metrics=metrics)
        self._answers = Answers(stores.answers, self._runs, clock, settings=SETTINGS, metrics=metrics)
        self._spaces = Spaces(stores.spaces, self._runs, clock, settings=SETTINGS)
        self._stack = AsyncExitStack()
        self._opened: list[OpenRun] = []
        self._count = 0

    async def sessions(self, count: int) -> Figures:
        """Calls of a session alone."""
        return await measure_way(self._session, count)

    async def all(self, count: int) -> Results:
        """Everything, `count` times one after the other."""
        await self._spaces.put(
            "t", "board", Declared(access={"*": "write"}, rules={"n*": "counter"}), version=0, by="b"
        )
        async with self._stack:
            for number in range(CALLERS):
                opened = await self._stack.enter_async_context(self._open(Wanted(actor="b", key=f"long-{number}")))
                assert opened is not None
                self._opened.append(opened)
            ways: dict[str, Save] = {
                "a call of a session, opened and saved": self._session,
                "a call with a key, opened and answered": self._keyed,
                "an answer given again to its key": self._again,
                "a finished step": self._step,
                "a model answer stored": self._answer,
                "two keys of one shared space": self._share,
            }
            return {name: await measure_way(way, count) for name, way in ways.items()}

    def _open(self, wanted: Wanted) -> AbstractAsyncContextManager[OpenRun | None]:
        return self._runs.opened("t", "a", f"call_{self._next()}", ASKED, wanted)

    def _next(self) -> int:
        self._count += 1
        return self._count

    async def _session(self, number: int) -> None:
        async with self._open(Wanted(session=f"s{number}")) as opened:
            assert opened is not None
            state = SessionState(messages=(*ASKED, Message(role="assistant", content=TEXT)))
            await self._runs.finish(opened, msgspec.structs.replace(ANSWER, session=state), "b")

    async def _keyed(self, _: int) -> None:
        async with self._open(Wanted(actor="b", key=f"k{self._next()}")) as opened:
            assert opened is not None
            await self._runs.finish(opened, ANSWER, "b")

    async def _again(self, number: int) -> None:
        async with self._open(Wanted(actor="b", key=f"again-{number}")) as opened:
            assert opened is not None
            if opened.answer is None:
                await self._runs.finish(opened, ANSWER, "b")

    async def _step(self, number: int) -> None:
        await self._runs.save_step(self._opened[number], StepBody(step=f"s{self._next()}", kind="node", output=TEXT))

    async def _answer(self, number: int) -> None:
        async def ask() -> dict[str, str]:
            return {"text": TEXT}

        await self._answers.whole(self._opened[number], f"k{self._next()}", {"m": 1}, ask)

    async def _share(self, number: int) -> None:
        writes = (SharedWrite(key=f"k{number}", value=TEXT[:100]), SharedWrite(key="n", op="add", value=1))
        await self._spaces.apply_as("t", f"a{number}", "board", SharedBody(write=writes), opened=None, key=None)


async def on(name: str, measured: Callable[[Bench], Awaitable[T]]) -> T:
    """What is `measured` on the database of that name."""
    database = open_database(name)
    try:
        await migrate(database)
        return await measured(Bench(database))
    finally:
        await asyncio.to_thread(database.close)


def measure(count: int) -> dict[str, Measured]:
    """The rows of the report."""
    rows = {}
    with databases() as (folder, server):
        for database, name in (("sqlite", str(folder / "chimera.db")), ("postgresql", server.new_database())):
            found = asyncio.run(on(name, lambda bench: bench.sessions(count)))
            rows[f"session_p50_{database}"] = Measured(value=found.p50)
            rows[f"session_p99_{database}"] = Measured(value=found.p99)
    return rows


def one_run(count: int) -> dict[str, Results]:
    """Both databases once."""
    with databases() as (folder, server):
        return {
            "SQLite": asyncio.run(on(str(folder / "chimera.db"), lambda bench: bench.all(count))),
            "PostgreSQL": asyncio.run(on(server.new_database(), lambda bench: bench.all(count))),
        }


def show(runs: list[dict[str, Results]], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    for database in runs[0]:
        table = Table(box=None, pad_edge=False)
        for name in (database, "p50 ms", "p99 ms", f"a second, {CALLERS} callers", "p50 ms", "p99 ms"):
            table.add_column(name, justify="left" if name == database else "right")
        for way in runs[0][database]:
            cells = []
            for field in Figures.__struct_fields__:
                values = [getattr(run[database][way], field) for run in runs]
                cells.append(f"{median(values):.3g} ±{spread(values) / 2:.2g}")
            table.add_row(way, *cells)
        console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.state", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=500, help="times one after the other (default 500)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = [one_run(options.count) for _ in range(options.runs)]
    show(runs, Console(width=130))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
