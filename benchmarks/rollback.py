"""`python -m benchmarks.rollback`: how long a rollback takes until it holds, and what switches cost callers.

Two gateways on one PostgreSQL database (with `fsync`), as processes of a cluster have it, here in one process with
callers that never stop and hosts that answer at once.

    holds      from the rollback's request until the last call began that the bad revision still answered, at whichever
               gateway; calls in sessions count
    asked      the rollback itself, until its answer may be given: the transaction, and the asked gateway's reading
    many       the same for 1,000 agents in one transaction, of which callers call one
    failed     calls that failed during so many switches: green is set, gets all calls, becomes live, and next time the
               other way round

How it grows: `asked` in step with the agents that are taken back; `holds` is that and one look of the other gateways
(`routes.poll`), and neither grows with the agents that there are.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.stats import median, percentile
from benchmarks.switching import Callers, Switched, gateway_on, say_revision
from chimera.adapters.storage.opening import open_database
from chimera.bootstrap.gateway_parts import Gateway
from chimera.testing.hosts import FakeHost
from chimera.testing.pool import FakeHostPool
from chimera.testing.postgresql import PostgreSQLServer

SETTLE = 0.6
"""Seconds that callers go on after a rollback: twice as long as gateways take to look."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of rollbacks, and counts of switches."""

    holds_p50: float
    holds_p95: float
    holds_max: float
    asked_p50: float
    asked_p95: float
    many_holds: float
    many_asked: float
    many: int
    rollbacks: int
    switches: int
    calls: int
    failed: int


class Place:
    """Two gateways, and agents that are switched."""

    def __init__(self, switched: Switched, gateways: list[Gateway]) -> None:
        """Keep them."""
        self.switched = switched
        self.gateways = gateways

    def callers(self) -> Callers:
        """Callers of the first agent, at both gateways."""
        agent = self.switched.revisions[0][0].value.agent.name
        return Callers(urls=[gateway.public_url for gateway in self.gateways], agent=agent)

    async def bad_live(self, number: int) -> None:
        """The second revisions are live and answer, at both gateways."""
        await self.switched.set_green(number)
        await self.switched.weigh(number)
        await self.switched.finish(number)
        for gateway in self.gateways:
            await gateway.routes.refresh()

    async def rolled_back(self, callers: Callers, bad: str) -> tuple[float, float]:
        """Seconds that a rollback took to hold, and to be answered."""
        before = len(callers.calls)
        asked = time.monotonic()
        done = await self.switched.roll_back()
        await self.gateways[0].routes.at_least(done.sequence)
        answered = time.monotonic() - asked
        await asyncio.sleep(SETTLE)
        late = [one.began - asked for one in callers.calls[before:] if one.revision == bad]
        return max([0.0, *late]), answered


@asynccontextmanager
async def place(folder: Path, url: str, agents: int) -> AsyncIterator[Place]:
    """Gateways and agents on a fresh database."""
    databases = [open_database(url) for _ in range(3)]
    switched = Switched(databases[0], [f"agent-{number:05d}" for number in range(agents)])
    async with AsyncExitStack() as stack:
        cell = await switched.begin()
        pools = [FakeHostPool(), FakeHostPool()]
        for number in range(2):
            host = await stack.enter_async_context(FakeHost(f"host-{number}", cell, say_revision))
            for pool in pools:
                pool.add(host.endpoint)
        gateways = [
            await stack.enter_async_context(gateway_on(folder / str(number), databases[number + 1], pools[number]))
            for number in range(2)
        ]
        yield Place(switched, gateways)
    for database in databases:
        await asyncio.to_thread(database.close)


async def measure(server: PostgreSQLServer, folder: Path, *, rollbacks: int, switches: int, many: int) -> Figures:
    """All of it, once."""
    holds, asked = [], []
    async with place(folder / "one", server.new_database(), 1) as one:
        bad = one.switched.revisions[1][0].digest
        async with one.callers() as callers:
            for number in range(rollbacks):
                await one.bad_live(2 * number)
                await callers.more(16)
                held, answered = await one.rolled_back(callers, bad)
                holds.append(held * 1000)
                asked.append(answered * 1000)
        failed = len(callers.failed)
        async with one.callers() as callers:
            for number in range(switches):
                for step in (one.switched.set_green, one.switched.weigh, one.switched.finish):
                    await step(number)
                    await callers.more(4)
    calls, failed = len(callers.calls), failed + len(callers.failed)
    async with place(folder / "many", server.new_database(), many) as several:
        async with several.callers() as callers:
            await several.bad_live(0)
            await callers.more(16)
            held, answered = await several.rolled_back(callers, several.switched.revisions[1][0].digest)
        failed += len(callers.failed)
    return Figures(
        holds_p50=median(holds),
        holds_p95=percentile(holds, 0.95),
        holds_max=max(holds),
        asked_p50=median(asked),
        asked_p95=percentile(asked, 0.95),
        many_holds=held * 1000,
        many_asked=answered * 1000,
        many=many,
        rollbacks=rollbacks,
        switches=switches,
        calls=calls,
        failed=failed,
    )


def show(found: Figures, console: Console) -> None:
    """Print a table."""
    table = Table("what", "p50", "p95", "most", title="Rollback, ms")
    table.add_row(
        "holds at every gateway", f"{found.holds_p50:.0f}", f"{found.holds_p95:.0f}", f"{found.holds_max:.0f}"
    )
    table.add_row("asked", f"{found.asked_p50:.1f}", f"{found.asked_p95:.1f}", "")
    table.add_row(f"{found.many:,} agents at once, holds", "", "", f"{found.many_holds:.0f}")
    table.add_row(f"{found.many:,} agents at once, asked", "", "", f"{found.many_asked:.0f}")
    console.print(table)
    console.print(
        f"{found.rollbacks} rollbacks; {found.switches} switches under {found.calls:,} calls: {found.failed} failed"
    )


def main() -> int:
    """Measure and print."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.rollback", description="Measure rollbacks and switches.")
    made.add_argument("--rollbacks", type=int, default=100, help="rollbacks of one agent (default 100)")
    made.add_argument("--switches", type=int, default=500, help="switches under load (default 500)")
    made.add_argument("--many", type=int, default=1_000, help="agents that are taken back at once (default 1,000)")
    options = made.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as scratch, PostgreSQLServer(durable=True) as server:
        found = asyncio.run(
            measure(
                server,
                Path(scratch),
                rollbacks=options.rollbacks,
                switches=options.switches,
                many=options.many,
            )
        )
    show(found, console)
    console.print(", ".join(f"{name}: {value}" for name, value in machine.describe().items()))
    return 1 if found.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
