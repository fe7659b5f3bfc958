"""The node agent: keeps the wanted number of hosts running on one machine.

It holds what it was told (cells, calls in flight) and what it sees (hosts), and one loop over all cells brings the
second to the first: the autoscaler says how many hosts, the fleet rule says what to do, this module does it. A wake-up
pokes the loop at once. Everything a gateway must know about hosts is one numbered list that it waits on; the number
grows with every change. The loop costs one pass over tens of cells and hosts a tick, whatever the number of agents.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera.platform import autoscaler, blame, fleet, node_symptoms
from chimera.platform.conditions import Seen
from chimera.platform.errors import HostEndedEarly, HostStartFailed, HostTooLarge, HostTooSlow, UnknownHost
from chimera.platform.fleet import HostPhase, HostView
from chimera.platform.model import BROKEN, CellSpec, Endpoint
from chimera.platform.ports import HostExit, HostLauncher
from chimera.platform.settings import NodeSettings

log = logging.getLogger(__name__)

EXIT_SEEN = 1.0
"""A process that is ending is given so long to be seen so, with its own cause, before it counts as one that hangs."""


@dataclass(kw_only=True, slots=True)
class Host:
    """A host as the node agent keeps it."""

    endpoint: Endpoint
    started: float
    phase: HostPhase = HostPhase.STARTING
    unhealthy: str | None = None
    failed_probes: int = 0
    looks: int = 0
    """Reports of broken calls that nobody has looked into yet; until then it gets no others."""


@dataclass(kw_only=True, slots=True)
class Cell:
    """A cell as the node agent keeps it: desired, observed, and the rules' memory."""

    spec: CellSpec
    state: autoscaler.ScalerState = field(default_factory=autoscaler.ScalerState)
    hosts: dict[str, Host] = field(default_factory=dict)
    starting: int = 0
    in_flight: float = 0.0
    observed_at: float = 0.0
    waiting: int = 0
    wanted: int = 0
    reason: str = "never called"
    failures: int = 0
    last_failure: float = 0.0
    last_error: HostStartFailed | None = None


class NodeAgent:
    """Cells, hosts and the loop between them."""

    def __init__(self, launcher: HostLauncher, clock: Clock, settings: NodeSettings) -> None:
        """Take over `launcher`; nothing runs before `run`."""
        self._launcher = launcher
        self._clock = clock
        self._settings = settings
        self._cells: dict[str, Cell] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._poked = asyncio.Event()
        self._closing = False
        self.version = 1
        self.incidents: deque[blame.Incident] = deque(maxlen=1000)
        self.incidents_total = 0
        launcher.on_exit(self._exited)

    # -- what the gateway and the control plane say ------------------------------------------------------------

    async def wake(self, spec: CellSpec, within: float) -> list[Endpoint]:
        """Have a host of the cell running within `within` seconds; raises the reason why there is none."""
        cell = self._cell(spec)
        began = self._clock.monotonic()
        cell.waiting += 1
        self._poked.set()
        try:
            async with asyncio.timeout(within), self._changed:
                while not (found := self._takes_calls(cell)):
                    if (error := self._why_none(cell, began)) is not None:
                        raise error
                    await self._changed.wait()
                return found
        except TimeoutError:
            raise HostStartFailed(
                f"no host of cell {spec.cell} was running after {within:.0f} s",
                next_step="see `chimera logs --process hosts` for what its hosts printed",
                retry_after=5,
            ) from None
        finally:
            cell.waiting -= 1

    def put_cells(self, specs: Sequence[CellSpec]) -> None:
        """The cells that must keep hosts running; a cell that isn't named keeps none."""
        named = {spec.cell for spec in specs}
        for spec in specs:
            self._cell(spec)
        for name, cell in self._cells.items():
            if name not in named and cell.spec.min_hosts:
                cell.spec = msgspec.structs.replace(cell.spec, min_hosts=0)
        self._poked.set()

    def observe(self, in_flight: dict[str, float]) -> None:
        """Average calls in flight of each cell since the last report; a gateway reports once a second."""
        now = self._clock.monotonic()
        for name, value in in_flight.items():
            if (cell := self._cells.get(name)) is not None:
                cell.in_flight = value
                cell.observed_at = now

    def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """A gateway saw `host` fail; one that broke a call gets no other until it was looked at, and goes if silent."""
        cell = self._cell_of(host)
        log.warning("host reported", extra={"host": host, "kind": kind, "agent": agent, "call": call})
        if kind in BROKEN:
            cell.hosts[host].looks += 1
            self._spawn(self._look(cell, host, cell.hosts[host]), f"look-{host}")

    async def endpoints(self, after: int, wait: float) -> tuple[int, dict[str, list[Endpoint]]]:
        """Hosts that take calls, by cell; waits up to `wait` seconds for a version above `after`."""
        try:
            async with asyncio.timeout(wait), self._changed:
                await self._changed.wait_for(lambda: self.version > after)
        except TimeoutError:
            pass
        return self.version, {name: found for name, cell in self._cells.items() if (found := self._takes_calls(cell))}

    def cells(self) -> list[Cell]:
        """All cells, by name."""
        return [self._cells[name] for name in sorted(self._cells)]

    def memory(self) -> dict[str, int]:
        """Resident bytes of each host."""
        return self._launcher.memory()

    async def seen(self, after: int, wait: float) -> tuple[int, list[Seen]]:
        """What the machine shows of each cell's trouble; waits up to `wait` seconds for a version above `after`."""
        await self.endpoints(after, wait)
        now = self._clock.monotonic()
        return self.version, [node_symptoms.seen(_view(cell), self.incidents, now) for cell in self.cells()]

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tick until cancelled: every `tick` seconds, and at once when poked."""
        probes = asyncio.create_task(self._probe_forever(), name="node-probes")
        try:
            while True:
                try:
                    async with asyncio.timeout(self._settings.tick):
                        await self._poked.wait()
                except TimeoutError:
                    pass
                self._poked.clear()
                self.tick()
        finally:
            probes.cancel()

    def tick(self) -> None:
        """One pass over all cells: observe, decide, act."""
        if self._closing:
            return
        now = self._clock.monotonic()
        usage = self._launcher.memory()
        for cell in self._cells.values():
            try:
                self._judge_memory(cell, usage)
                self._decide(cell, now)
                self._act(cell, now)
            except Exception:
                # The other cells go on, and so does this one at the next pass.
                log.exception("a pass over a cell failed", extra={"cell": cell.spec.cell})

    async def close(self) -> None:
        """Drain and stop every host; nothing is started any more."""
        self._closing = True
        await self._announce()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._launcher.close()

    def _decide(self, cell: Cell, now: float) -> None:
        if now - cell.observed_at > self._settings.stats_expire:
            cell.in_flight = 0.0
        decision = autoscaler.decide(
            autoscaler.Bounds(
                minimum=cell.spec.min_hosts,
                maximum=max(1, min(cell.spec.max_hosts, self._settings.max_hosts)),
                target=cell.spec.target,
                # A report may be this old: before that nobody knows that a cell is idle.
                idle_timeout=max(cell.spec.idle_timeout, self._settings.stats_expire),
            ),
            autoscaler.Observation(
                in_flight=cell.in_flight,
                waiting=cell.waiting,
                ready=sum(host.phase is HostPhase.READY for host in cell.hosts.values()),
            ),
            cell.state,
            now,
        )
        cell.state, cell.wanted, cell.reason = decision.state, decision.hosts, decision.reason

    def _act(self, cell: Cell, now: float) -> None:
        views = [
            HostView(host=name, phase=host.phase, started=host.started, unhealthy=host.unhealthy)
            for name, host in cell.hosts.items()
        ]
        views.extend(
            HostView(host=f"starting-{number}", phase=HostPhase.STARTING, started=now)
            for number in range(cell.starting)
        )
        for action in fleet.plan(views, cell.wanted, failures=cell.failures, last_failure=cell.last_failure, now=now):
            match action:
                case fleet.StartHosts(count=count):
                    for _ in range(count):
                        cell.starting += 1
                        self._spawn(self._start(cell), f"start-{cell.spec.cell}")
                case fleet.DrainHost(host=name, reason=reason) if name in cell.hosts:
                    host = cell.hosts[name]
                    host.phase = HostPhase.DRAINING
                    log.info("host draining", extra={"host": name, "cell": cell.spec.cell, "reason": reason})
                    grace = self._settings.drain_grace if host.unhealthy is None else self._settings.kill_grace
                    self._spawn(self._stop(cell, name, grace), f"stop-{name}")
                    self._spawn(self._announce(), "announce")

    async def _start(self, cell: Cell) -> None:
        name = new_id("host")
        began = self._clock.monotonic()
        try:
            endpoint = await self._launcher.start(cell.spec, name)
        except HostStartFailed as error:
            self._start_failed(cell, error)
        except Exception as error:
            log.exception("host did not start", extra={"cell": cell.spec.cell})
            self._start_failed(cell, HostStartFailed(f"a host could not be started: {error!r}", retry_after=5))
        else:
            cell.hosts[name] = Host(endpoint=endpoint, started=began)
            log.info("host started", extra={"host": name, "cell": cell.spec.cell, "wanted": cell.reason})
        finally:
            cell.starting -= 1
            await self._announce()
        if name in cell.hosts:
            await self._follow_start(cell, name)

    async def _follow_start(self, cell: Cell, name: str) -> None:
        deadline = self._clock.monotonic() + self._settings.start_timeout
        while (host := cell.hosts.get(name)) is not None and host.phase is HostPhase.STARTING:
            if await self._launcher.ready(name):
                host.phase = HostPhase.READY
                cell.failures, cell.last_error = 0, None
                await self._announce()
                return
            if self._clock.monotonic() > deadline:
                host.unhealthy = f"not ready after {self._settings.start_timeout:.0f} s"
                self._start_failed(cell, _early(HostTooSlow, cell, name, host.unhealthy))
                await self._announce()
                self._poked.set()
                return
            await asyncio.sleep(self._settings.start_poll)

    async def _stop(self, cell: Cell, name: str, grace: float) -> None:
        await self._launcher.stop(name, grace)
        cell.hosts.pop(name, None)
        await self._announce()

    def _exited(self, ended: HostExit) -> None:
        cell = self._cells.get(ended.cell)
        host = cell.hosts.pop(ended.host, None) if cell else None
        if cell is None or host is None or self._closing or (ended.expected and host.unhealthy is None):
            return
        now = self._clock.monotonic()
        if host.unhealthy is not None:
            ended = msgspec.structs.replace(ended, cause=f"{host.unhealthy}; {ended.cause}")
        incident = blame.judge(ended, self.incidents, at=now, longest_call=self._settings.longest_call)
        self.incidents.append(incident)
        self.incidents_total += 1
        if host.phase is HostPhase.STARTING:
            kind = HostTooLarge if node_symptoms.TOO_LARGE.search(ended.cause) else HostEndedEarly
            self._start_failed(cell, _early(kind, cell, ended.host, ended.cause))
        log.error(
            "host died",
            extra={
                "host": ended.host,
                "cell": ended.cell,
                "cause": ended.cause,
                "agent": incident.culprit,
                "suspects": list(incident.suspects),
            },
        )
        self._spawn(self._announce(), "announce")
        self._poked.set()

    def _start_failed(self, cell: Cell, error: HostStartFailed) -> None:
        cell.failures += 1
        cell.last_failure = self._clock.monotonic()
        cell.last_error = error
        log.error("host did not start", extra={"cell": cell.spec.cell, "error": error.detail})

    def _why_none(self, cell: Cell, since: float) -> HostStartFailed | None:
        """Why a caller who waits `since` then gets no host: nothing starts, and nothing will for a while."""
        if self._closing:
            return HostStartFailed("this machine's hosts are being stopped", retry_after=5)
        if cell.starting or cell.last_error is None or cell.failures == 0:
            return None
        tried = cell.last_failure >= since
        again_at = cell.last_failure + fleet.retry_delay(cell.failures)
        return cell.last_error if tried or self._clock.monotonic() < again_at else None

    def _judge_memory(self, cell: Cell, usage: dict[str, int]) -> None:
        limit = cell.spec.runtime_class.resources.memory_bytes
        for name, host in cell.hosts.items():
            used = usage.get(name, 0)
            if used > limit and host.phase is HostPhase.READY and host.unhealthy is None:
                host.unhealthy = f"uses {used >> 20} MiB of {limit >> 20} MiB"

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.probe_interval)
            allowed = self._settings.probe_failures
            probes = [self._probe(cell, name, allowed) for cell in self._cells.values() for name in cell.hosts]
            for outcome in await asyncio.gather(*probes, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a probe failed", exc_info=outcome)

    async def _probe(self, cell: Cell, name: str, failures: int) -> None:
        host = cell.hosts.get(name)
        if host is None or host.phase is not HostPhase.READY:
            return
        if await self._launcher.alive(name):
            host.failed_probes = 0
            return
        host.failed_probes += 1
        if host.failed_probes >= failures and host.unhealthy is None:
            host.unhealthy = "does not answer its liveness probe"
            self._poked.set()

    async def _look(self, cell: Cell, name: str, host: Host) -> None:
        """Whether a host that broke a call still lives; until that is known it takes none."""
        await self._announce()
        try:
            async with self._changed:  # one that is starting can't be asked yet
                await self._changed.wait_for(
                    lambda: cell.hosts.get(name) is not host or host.phase is not HostPhase.STARTING
                )
            if host.phase is HostPhase.READY and not await self._launcher.alive(name):
                with suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_SEEN), self._changed:
                        await self._changed.wait_for(lambda: cell.hosts.get(name) is not host)
                await self._probe(cell, name, failures=1)
        finally:
            host.looks -= 1
            await self._announce()

    async def _announce(self) -> None:
        async with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("node task failed", exc_info=error, extra={"task": task.get_name()})

    def _cell(self, spec: CellSpec) -> Cell:
        cell = self._cells.get(spec.cell)
        if cell is None:
            cell = self._cells[spec.cell] = Cell(spec=spec)
        cell.spec = spec
        return cell

    def _cell_of(self, host: str) -> Cell:
        for cell in self._cells.values():
            if host in cell.hosts:
                return cell
        raise UnknownHost(f"no host {host!r} runs here", next_step="list them with `chimera top`")

    @staticmethod
    def _takes_calls(cell: Cell) -> list[Endpoint]:
        return [
            host.endpoint
            for host in cell.hosts.values()
            if host.phase in (HostPhase.STARTING, HostPhase.READY) and host.unhealthy is None and not host.looks
        ]


def _view(cell: Cell) -> node_symptoms.CellView:
    return node_symptoms.CellView(
        cell=cell.spec.cell,
        tenant=cell.spec.runtime_class.tenant,
        ready=sum(host.phase is HostPhase.READY and host.unhealthy is None for host in cell.hosts.values()),
        starting=cell.starting + sum(host.phase is HostPhase.STARTING for host in cell.hosts.values()),
        failures=cell.failures,
        last_failure=cell.last_failure,
        error=cell.last_error,
    )


def _early(kind: type[HostStartFailed], cell: Cell, host: str, why: str) -> HostStartFailed:
    return kind(
        f"a host of cell {cell.spec.cell} did not come to work: {why}",
        next_step=f"see `chimera logs --process {host}`",
        retry_after=5,
    )
