"""What people see of a cluster's cells: the port `Report` on Knative.

Nothing is watched for it: whoever looks costs a list of pods and one of revisions, and a question to each ready host
for what it has loaded, and those who look within a second share one look. Queue-proxy is told that the activator has
counted that question: Knative's autoscaler leaves it out then, and nobody keeps a cell awake by looking at it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError, NotInCluster
from chimera.adapters.substrates.knative.podlogs import CellsOf, PodLogs
from chimera.adapters.substrates.knative.pods import (
    ENDED,
    POD_USES,
    READY,
    REVISIONS,
    SEEN_PODS,
    SeenPod,
    cell_row,
    desired,
    host_row,
    incident_rows,
    phase,
    used,
)
from chimera.adapters.substrates.knative.pool import KeyOf, KnativePool
from chimera.kernel.clock import Clock
from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec
from chimera.platform.report import CellRow, HostRow, IncidentRow, ProcessRow, Top
from chimera_host.contract.call import LoadedReport
from chimera_host.contract.problem import ProblemError

QUEUE_PORT = 8012
COUNTED = {"K-Proxy-Request": "activator"}
"""queue-proxy counts such a request as the activator's, which the autoscaler subtracts (`metrics/collector.go`)."""
FRESH = 1.0
ASKED_AT_ONCE = 64
LONGEST_ASKING = 3.0
NEWEST = 10

SpecOf = Callable[[str], Awaitable[CellSpec]]
"""A cell as the catalogue has it; raises `ProblemError` where it doesn't, or can't be asked."""
Use = Callable[[], tuple[int, float | None, int]]
"""This process's id, its seconds of CPU, and its memory in bytes."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    pods: Sequence[SeenPod]
    wanted: Mapping[str, int]
    told: Mapping[str, LoadedReport]


class KnativeReport:
    """Reads the cluster on demand. Made inside the event loop; `aclose` when done."""

    def __init__(
        self,
        api: Kubernetes,
        pool: KnativePool,
        clock: Clock,
        *,
        namespace: str,
        key_of: KeyOf,
        spec_of: SpecOf,
        cells_of: CellsOf,
        own_pod: str,
        use: Use,
        port: int = QUEUE_PORT,
    ) -> None:
        """Cells are in `namespace`, the platform's processes in the one that `api` means where none is named."""
        self._api = api
        self._pool = pool
        self._clock = clock
        self._namespace = namespace
        self._key_of = key_of
        self._spec_of = spec_of
        self._own_pod = own_pod
        self._use = use
        self._port = port
        self._logs = PodLogs(api, cells=namespace, cells_of=cells_of)
        self._lock = asyncio.Lock()
        self._last: _Look | None = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=ASKED_AT_ONCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=LONGEST_ASKING, sock_connect=1.0),
        )

    async def aclose(self) -> None:
        """Close the connections to hosts."""
        await self._session.close()

    # -- Report ------------------------------------------------------------------------------------------------------

    async def cells(self) -> list[CellRow]:
        """See `Report`."""
        return await self._cell_rows(await self._look())

    async def hosts(self) -> list[HostRow]:
        """See `Report`."""
        return self._host_rows(await self._look())

    async def incidents(self) -> list[IncidentRow]:
        """See `Report`: of pods that are still there, and of calls that broke here."""
        return self._incident_rows(await self._look())

    async def top(self) -> Top:
        """See `Report`."""
        look, (processes, missing) = await asyncio.gather(self._look(), self._process_rows())
        return Top(
            processes=processes,
            missing=missing,
            cells=await self._cell_rows(look),
            hosts=self._host_rows(look),
            incidents=self._incident_rows(look)[:NEWEST],
        )

    async def logs(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """See `Report`."""
        return await self._logs.read(query, gone)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _look(self) -> _Look:
        async with self._lock:
            now = self._clock.monotonic()
            if self._last is None or now - self._last.at > FRESH:
                pods, revisions = await asyncio.gather(
                    self._api.list(SEEN_PODS, self._namespace, names.managed()),
                    self._api.list(REVISIONS, self._namespace, names.managed()),
                )
                told = await self._ask([pod for pod in pods.items if phase(pod) == READY])
                self._last = _Look(now, pods.items, desired(revisions.items), told)
            return self._last

    async def _ask(self, pods: Sequence[SeenPod]) -> dict[str, LoadedReport]:
        """What hosts say of themselves; those that don't within the time aren't in it."""
        if not pods:
            return {}
        asking = {asyncio.create_task(self._loaded(pod), name=f"ask-{pod.metadata.name}") for pod in pods}
        try:
            done, _ = await asyncio.wait(asking, timeout=LONGEST_ASKING)
            return {told.host: told for one in done if (told := one.result()) is not None}
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _loaded(self, pod: SeenPod) -> LoadedReport | None:
        address = pod.status.pod_ip
        shown = f"[{address}]" if ":" in address else address
        key = self._key_of(pod.metadata.name, pod.metadata.uid)
        try:
            async with self._session.get(
                f"http://{shown}:{self._port}/v1/loaded", headers={"Authorization": f"Bearer {key}", **COUNTED}
            ) as answer:
                answer.raise_for_status()
                return msgspec.json.decode(await answer.read(), type=LoadedReport)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError):  # OSError covers the time-out
            return None

    def _host_rows(self, look: _Look) -> list[HostRow]:
        now = self._clock.wall()
        return [host_row(pod, look.told.get(pod.metadata.name), now) for pod in look.pods if phase(pod) != ENDED]

    async def _cell_rows(self, look: _Look) -> list[CellRow]:
        by_cell: dict[str, list[HostRow]] = {}
        for row in self._host_rows(look):
            by_cell.setdefault(row.cell, []).append(row)
        rows = []
        for service in self._pool.services():
            cell = service.metadata.annotations.get(names.CELL, "")
            rows.append(
                cell_row(
                    service,
                    await self._spec(cell),
                    by_cell.get(cell, ()),
                    wanted=look.wanted.get(service.metadata.name, 0),
                    waiting=self._pool.waiting[cell],
                )
            )
        return sorted(rows, key=lambda row: row.cell)

    async def _spec(self, cell: str) -> CellSpec | None:
        try:
            return await self._spec_of(cell)
        except ProblemError:
            return None

    def _incident_rows(self, look: _Look) -> list[IncidentRow]:
        return incident_rows(look.pods, self._pool.broken, self._clock.wall())

    async def _process_rows(self) -> tuple[list[ProcessRow], list[str]]:
        """The platform's pods with what each uses, and what of that isn't known."""
        listing, (uses, missing) = await asyncio.gather(
            self._api.list(SEEN_PODS, self._api.namespace, names.managed()), self._uses()
        )
        rows = []
        for pod in sorted(listing.items, key=lambda one: (one.component, one.metadata.name)):
            name, own = pod.metadata.name, pod.metadata.name == self._own_pod
            pid, seconds, memory = await asyncio.to_thread(self._use) if own else (None, None, None)
            cores, working = uses.get(name, (None, None))
            rows.append(
                ProcessRow(
                    process=pod.component or name,
                    pid=pid,
                    cpu_seconds=seconds,
                    proportional_bytes=memory,
                    pod=name,
                    cpu_cores=cores,
                    working_set_bytes=working,
                )
            )
        if not missing and (unknown := [row.pod for row in rows if row.cpu_cores is None and row.pod is not None]):
            missing = [f"what {', '.join(unknown)} uses: the cluster's metrics API has not measured it yet"]
        return rows, missing

    async def _uses(self) -> tuple[dict[str, tuple[float, int]], list[str]]:
        """What the platform's pods use, by name, where the cluster measures it; else why it isn't known."""
        try:
            listing = await self._api.list(POD_USES, self._api.namespace)
            return {one.metadata.name: used(one) for one in listing.items}, []
        except NotInCluster:
            why = "the cluster has no metrics API (metrics.k8s.io): install metrics-server"
        except ClusterError as error:
            why = f"{error.title}: {error.detail}"
        except (ValueError, msgspec.MsgspecError) as error:
            why = f"the cluster's metrics API says what nobody understands: {error}"
        return {}, [f"what the platform's other pods use: {why}"]
