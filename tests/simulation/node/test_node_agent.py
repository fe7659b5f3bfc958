"""The node agent over hours of virtual time, with changing load and hosts that fail: safety, then liveness."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chimera.platform.errors import HostStartFailed
from chimera.platform.fleet import HostPhase
from chimera.platform.model import CellSpec, Endpoint, ResourceClass, RuntimeClass
from chimera.platform.node import Cell, NodeAgent
from chimera.platform.settings import NodeSettings
from chimera.testing.launcher import MIB, FakeLauncher
from chimera.testing.virtual_time import LoopClock, run

SETTINGS = NodeSettings(max_hosts=3)
IDLE = 120.0
LONG_AGO = IDLE + SETTINGS.stats_expire + 90.0


def spec(name: str, *, least: int = 0, most: int = 1000) -> CellSpec:
    resources = ResourceClass(name="standard", cpu_millicores=1000, memory_bytes=512 * MIB)
    runtime = RuntimeClass(
        tenant="default", framework="function", runtime="python", isolation=f"tenant:{name}", resources=resources
    )
    return CellSpec(cell=name, runtime_class=runtime, min_hosts=least, max_hosts=most, idle_timeout=IDLE)


class CountingLauncher(FakeLauncher):
    """Notes each start that nobody needs: hosts and starts are as many as wanted without it."""

    def __init__(self) -> None:
        super().__init__(start_seconds=0.2, boot_seconds=0.5)
        self.agent: NodeAgent
        self.needless: list[str] = []

    async def start(self, cell: CellSpec, host: str) -> Endpoint:
        (kept,) = [one for one in self.agent.cells() if one.spec.cell == cell.cell]
        if working(kept) > kept.wanted:
            self.needless.append(f"{cell.cell}: {working(kept)} hosts and starts, {kept.wanted} wanted")
        return await super().start(cell, host)


def working(cell: Cell) -> int:
    """Hosts at work and on their way."""
    healthy = [one for one in cell.hosts.values() if one.phase is not HostPhase.DRAINING and one.unhealthy is None]
    return len(healthy) + cell.starting


class World:
    """A node agent, its launcher, and a gateway that reports load once a second."""

    def __init__(self) -> None:
        self.launcher = CountingLauncher()
        self.agent = self.launcher.agent = NodeAgent(self.launcher, LoopClock(), SETTINGS)
        self.load: dict[str, float] = {}
        self.cells: dict[str, CellSpec] = {}
        self.broken: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> "World":
        for loop in (self.agent.run, self._report, self._watch):
            self._tasks.append(asyncio.create_task(loop()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.agent.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self.launcher.running == {} and self.launcher.closed
        assert self.broken + self.launcher.needless == []

    def add(self, *specs: CellSpec) -> None:
        self.cells |= {one.cell: one for one in specs}
        self.agent.put_cells(list(self.cells.values()))

    def ready(self, cell: str) -> int:
        found = next((one for one in self.agent.cells() if one.spec.cell == cell), None)
        return sum(host.phase is HostPhase.READY for host in found.hosts.values()) if found else 0

    async def _report(self) -> None:
        while True:
            self.agent.observe(dict(self.load))
            await asyncio.sleep(1.0)

    async def _watch(self) -> None:
        """Safety: at every moment no cell has more hosts than it may, and none is sent to sleep before its idle time.

        A host that died while nobody called is another matter: nothing takes its place until somebody calls.
        """
        needed: dict[str, float] = {}
        ready: dict[str, set[str]] = {}
        while True:
            now = LoopClock().monotonic()
            for cell in self.agent.cells():
                name = cell.spec.cell
                if working(cell) > min(cell.spec.max_hosts, SETTINGS.max_hosts):
                    self.broken.append(f"{name}: {working(cell)} hosts and starts")
                sent = {host for host, one in cell.hosts.items() if one.unhealthy is None} & ready.get(name, set())
                if sent and working(cell) == 0 and now - needed[name] < IDLE:
                    self.broken.append(f"{name}: sent to sleep {now - needed[name]:.1f} s after it was needed")
                # What came within the last pass is no matter of the decision that stands.
                if cell.waiting or cell.in_flight:
                    needed[name] = now - SETTINGS.tick
                ready[name] = {host for host, one in cell.hosts.items() if one.phase is HostPhase.READY}
            await asyncio.sleep(0.2)


def simulated(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with World() as world:
            await scenario(world)

    run(main())


def test_who_wake_a_cell_together_get_the_same_host() -> None:
    async def scenario(world: World) -> None:
        found = await asyncio.gather(*(world.agent.wake(spec("a"), 30.0) for _ in range(5)))
        assert {one.host for endpoints in found for one in endpoints} == set(world.launcher.hosts("a"))
        assert world.launcher.started == {"a": 1}

    simulated(scenario)


def test_a_cell_sleeps_after_its_idle_time_and_not_before() -> None:
    async def scenario(world: World) -> None:
        await world.agent.wake(spec("a"), 30.0)
        world.load["a"] = 3.0
        await asyncio.sleep(600)
        assert world.ready("a") == 1
        del world.load["a"]
        await asyncio.sleep(IDLE - 10)
        assert world.ready("a") == 1, "it may be called again any moment"
        await asyncio.sleep(LONG_AGO)
        assert world.launcher.hosts("a") == []

    simulated(scenario)


def test_load_brings_hosts_up_to_the_bound_and_their_minimum_stays() -> None:
    async def scenario(world: World) -> None:
        world.add(spec("kept", least=1), spec("small", most=1))
        await asyncio.sleep(10)
        assert (world.ready("kept"), world.ready("small")) == (1, 0)
        world.load |= {"kept": 500.0, "small": 500.0}
        await asyncio.sleep(90)
        assert (world.ready("kept"), world.ready("small")) == (3, 1)
        world.load.clear()
        await asyncio.sleep(2 * LONG_AGO)
        assert (world.ready("kept"), world.ready("small")) == (1, 0)

    simulated(scenario)


def test_one_who_wakes_a_cell_that_can_not_start_hears_why_at_once() -> None:
    async def scenario(world: World) -> None:
        world.launcher.refuses = HostStartFailed("no runtime", next_step="install it")
        clock = LoopClock()
        began = clock.monotonic()
        with pytest.raises(HostStartFailed, match="no runtime"):
            await world.agent.wake(spec("a"), 30.0)
        assert clock.monotonic() - began < 5
        world.launcher.refuses = None
        await asyncio.sleep(120)
        assert await world.agent.wake(spec("a"), 30.0), "it is tried again when somebody asks later"

    simulated(scenario)


@pytest.mark.parametrize("harm", ["kill", "deaf", "memory"])
def test_a_host_that_fails_is_replaced_and_its_agent_named(harm: str) -> None:
    async def scenario(world: World) -> None:
        world.add(spec("kept", least=1))
        await asyncio.sleep(10)
        (host,) = world.launcher.hosts("kept")
        world.launcher.begin(host, "default/culprit", "call-1")
        if harm == "kill":
            await world.launcher.kill(host)
        elif harm == "deaf":
            world.launcher.running[host].deaf = True
        else:
            world.launcher.running[host].memory = 600 * MIB
        await asyncio.sleep(60)
        assert world.ready("kept") == 1 and host not in world.launcher.running
        assert world.agent.incidents_total == 1
        assert world.agent.incidents[-1].culprit == "default/culprit"

    simulated(scenario)


@pytest.mark.parametrize("fate", ["dies", "hangs", "lives"])
def test_a_host_that_broke_a_call_takes_no_other_until_it_was_looked_at(fate: str) -> None:
    async def scenario(world: World) -> None:
        (first,) = await world.agent.wake(spec("a"), 30.0)
        await asyncio.sleep(10)
        world.launcher.probe_seconds = 0.05
        version, _ = await world.agent.endpoints(0, 0.0)
        world.launcher.running[first.host].deaf = fate != "lives"
        for call in ("call-1", "call-2"):
            world.agent.report(first.host, kind="crashed", agent="a", call=call)
        newer, listed = await world.agent.endpoints(version, 1.0)
        assert newer > version and listed == {}
        if fate == "dies":
            await asyncio.sleep(0.1)
            await world.launcher.kill(first.host)
        (found,) = await world.agent.wake(spec("a"), 30.0)
        assert (found.host == first.host) is (fate == "lives")
        assert (await world.agent.endpoints(0, 0.0))[1] == {"a": [found]}
        await asyncio.sleep(10)
        causes = [incident.cause for incident in world.agent.incidents]
        said = {"dies": ["killed by SIGKILL"], "hangs": ["does not answer its liveness probe; ended with exit code 0"]}
        assert causes == said.get(fate, [])

    simulated(scenario)


def test_a_host_that_breaks_a_call_before_it_is_ready_is_looked_at_when_it_is() -> None:
    async def scenario(world: World) -> None:
        (first,) = await world.agent.wake(spec("a"), 30.0)  # its socket takes calls before it is ready
        assert world.ready("a") == 0
        world.agent.report(first.host, kind="crashed", agent="a", call="call-1")
        with pytest.raises(HostStartFailed):
            await world.agent.wake(spec("a"), 0.2)
        assert world.ready("a") == 0
        assert await world.agent.wake(spec("a"), 30.0) == [first]
        assert world.ready("a") == 1

    simulated(scenario)


NAMES = ("kept", "plain", "small")
HARM = ("kill", "kill", "deaf", "memory", "report", "call", "refuse", "slow", "load", "idle", "wake", "wake")


def harm_host(world: World, draw: random.Random, what: str) -> None:
    host = draw.choice(list(world.launcher.running))
    match what:
        case "deaf":
            world.launcher.running[host].deaf = True
        case "memory":
            world.launcher.running[host].memory = 600 * MIB
        case "report":
            world.agent.report(host, kind="crashed", agent="a", call="c")
        case "call":
            world.launcher.begin(host, "default/agent", f"call-{draw.random()}")


async def harm(world: World, draw: random.Random) -> None:
    """One thing that happens."""
    name = draw.choice(NAMES)
    match draw.choice(HARM):
        case "refuse":
            world.launcher.refuses = HostStartFailed("not now", retry_after=1) if draw.random() < 0.5 else None
        case "slow":
            world.launcher.start_seconds = draw.choice((0.2, 0.2, 20.0))
        case "load":
            world.load[name] = draw.choice((0.5, 8.0, 30.0, 400.0))
        case "idle":
            world.load.pop(name, None)
        case "wake":
            with contextlib.suppress(HostStartFailed):
                assert await world.agent.wake(world.cells[name], draw.uniform(0.1, 20.0))
        case "kill" if world.launcher.running:
            await world.launcher.kill(draw.choice(list(world.launcher.running)))
        case what if world.launcher.running:
            harm_host(world, draw, what)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_bounds_hold_and_load_finds_a_host_again(seed: int) -> None:
    draw = random.Random(seed)

    async def scenario(world: World) -> None:
        world.add(spec("kept", least=1), spec("plain"), spec("small", most=1))
        for _ in range(150):
            await harm(world, draw)
            await asyncio.sleep(draw.expovariate(1 / 8.0))
        # Nothing fails from here on, and somebody calls each cell.
        world.launcher.refuses, world.launcher.start_seconds = None, 0.2
        for host in list(world.launcher.running):
            await world.launcher.kill(host)
        world.load = dict.fromkeys(NAMES, 5.0)
        await asyncio.sleep(200)
        for name in NAMES:
            assert await world.agent.wake(world.cells[name], 60.0)
        await asyncio.sleep(120)
        assert all(world.ready(name) >= 1 for name in NAMES)
        world.load.clear()
        await asyncio.sleep(2 * LONG_AGO + SETTINGS.drain_grace)
        assert (world.ready("kept"), world.launcher.hosts("plain"), world.launcher.hosts("small")) == (1, [], [])

    simulated(scenario)
