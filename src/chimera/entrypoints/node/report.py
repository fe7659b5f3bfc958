"""What people see of a machine's cells: for `chimera top`, `status` and the metrics page."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import aiohttp
import msgspec

from chimera.adapters.substrates.local import procfs
from chimera.entrypoints.node import logs
from chimera.kernel.clock import Clock
from chimera.platform.fleet import HostPhase
from chimera.platform.logs import LogQuery
from chimera.platform.node import Cell, NodeAgent
from chimera.platform.report import CellRow, HostRow, IncidentRow, ProcessRow, Top
from chimera_host.contract.call import LoadedReport

REPORT_TIMEOUT = 2.0
NEWEST = 10


class NodeReport:
    """The port `Report` on one machine: reads the node agent, asks hosts what they have loaded, reads log files.

    `processes` names the platform's processes by id, whose log files are in the folder `logs`.
    """

    def __init__(
        self,
        agent: NodeAgent,
        clock: Clock,
        logs: Path,
        processes: Callable[[], dict[str, int]],
        proportional: Callable[[int], int],
    ) -> None:
        """`proportional` gives a process's proportional set size in bytes."""
        self._agent = agent
        self._clock = clock
        self._processes = processes
        self._proportional = proportional
        self._logs = logs

    async def cells(self) -> list[CellRow]:
        """See `Report`."""
        return [
            CellRow(
                cell=cell.spec.cell,
                tenant=cell.spec.runtime_class.tenant,
                framework=cell.spec.runtime_class.framework,
                isolation=cell.spec.runtime_class.isolation,
                hosts=len(cell.hosts),
                ready=sum(host.phase is HostPhase.READY for host in cell.hosts.values()),
                wanted=cell.wanted,
                reason=cell.reason,
                in_flight=round(cell.in_flight, 2),
                waiting=cell.waiting,
                error=cell.last_error.detail if cell.last_error else None,
            )
            for cell in self._agent.cells()
        ]

    async def hosts(self) -> list[HostRow]:
        """See `Report`."""
        memory = self._agent.memory()
        return [
            HostRow(
                host=name,
                cell=cell.spec.cell,
                phase=host.phase.value,
                seconds=round(self._clock.monotonic() - host.started, 1),
                resident_bytes=memory.get(name, 0),
                limit_bytes=cell.spec.runtime_class.resources.memory_bytes,
                unhealthy=host.unhealthy,
            )
            for cell in self._agent.cells()
            for name, host in cell.hosts.items()
        ]

    async def incidents(self) -> list[IncidentRow]:
        """See `Report`."""
        now = self._clock.monotonic()
        return [
            IncidentRow(
                seconds_ago=round(now - one.at, 1),
                host=one.host,
                cell=one.cell,
                cause=one.cause,
                agent=one.culprit,
                suspects=one.suspects,
            )
            for one in reversed(self._agent.incidents)
        ]

    async def top(self) -> Top:
        """See `Report`."""
        return Top(
            processes=await asyncio.to_thread(self._process_rows),
            cells=await self.cells(),
            hosts=await self._loaded(),
            incidents=(await self.incidents())[:NEWEST],
        )

    async def logs(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """See `Report`."""
        position, newest = await asyncio.to_thread(logs.read, self._logs, query)
        return logs.lines(self._logs, query, position, newest, gone)

    def metrics(self) -> str:
        """Prometheus text: a few series a cell, none for an agent."""
        lines = ["# TYPE chimera_cell_hosts gauge"]
        cells = self._agent.cells()
        for cell in cells:
            lines.append(_series("chimera_cell_hosts", cell, len(cell.hosts)))
        lines.append("# TYPE chimera_cell_hosts_wanted gauge")
        lines.extend(_series("chimera_cell_hosts_wanted", cell, cell.wanted) for cell in cells)
        lines.append("# TYPE chimera_cell_calls_in_flight gauge")
        lines.extend(_series("chimera_cell_calls_in_flight", cell, cell.in_flight) for cell in cells)
        lines += ["# TYPE chimera_host_incidents_total counter"]
        lines += [f"chimera_host_incidents_total {self._agent.incidents_total}"]
        return "\n".join(lines) + "\n"

    def _process_rows(self) -> list[ProcessRow]:
        rows = []
        for name, pid in sorted(self._processes().items()):
            seconds = procfs.cpu_seconds(pid)
            if seconds is not None:
                memory = self._proportional(pid)
                rows.append(ProcessRow(process=name, pid=pid, cpu_seconds=seconds, proportional_bytes=memory))
        return rows

    async def _loaded(self) -> list[HostRow]:
        endpoints = [host.endpoint for cell in self._agent.cells() for host in cell.hosts.values()]
        timeout = aiohttp.ClientTimeout(total=REPORT_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def ask(url: str, key: str) -> LoadedReport | None:
                try:
                    async with session.get(url + "/v1/loaded", headers={"Authorization": f"Bearer {key}"}) as answer:
                        return msgspec.json.decode(await answer.read(), type=LoadedReport)
                except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
                    return None

            answers = await asyncio.gather(*(ask(one.url, one.key) for one in endpoints))
        known = {report.host: report for report in answers if report is not None}
        return [row.told(known[row.host]) if row.host in known else row for row in await self.hosts()]


def _series(name: str, cell: Cell, value: float) -> str:
    kind = cell.spec.runtime_class
    return f'{name}{{cell="{cell.spec.cell}",tenant="{kind.tenant}",framework="{kind.framework}"}} {value:g}'
