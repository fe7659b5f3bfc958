"""The loop over cells on a cluster in memory: a catalogue that a test sets, and a reconciler that runs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.plan import CellState, Phase
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.clock import SystemClock
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.testing.cluster import FakeCluster

PATIENCE = 20.0
NAMESPACE = "cells"


def cell(framework: str = "langgraph", tenant: str = "default", **changes: Any) -> CellSpec:
    """A cell of a tenant's declarative agents."""
    runtime = RuntimeClass(
        tenant=tenant,
        framework=framework,  # type: ignore[arg-type]
        runtime="python",
        isolation=f"tenant:{tenant}",
        resources=STANDARD,
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime, **changes)


def name_of(spec: CellSpec) -> str:
    """The Knative Service of a cell."""
    return names.service_name(spec.cell, spec.runtime_class.framework)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has happened in a server."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@dataclass
class Catalogue:
    """A `CellSource` that a test sets."""

    cells: list[CellSpec] = field(default_factory=list)
    number: int = 1
    read: int = 0

    async def sequence(self) -> int:
        """See `CellSource`."""
        return self.number

    async def live_cells(self) -> Sequence[CellSpec]:
        """See `CellSource`."""
        self.read += 1
        return list(self.cells)

    def put(self, *cells: CellSpec) -> None:
        """These cells are wanted from now on."""
        self.cells, self.number = list(cells), self.number + 1


class CellsRig:
    """A cluster, a catalogue and a reconciler that runs."""

    def __init__(self, cluster: FakeCluster, **settings: Any) -> None:
        """Nothing runs before `start`; `settings` are of the group `knative`."""
        self.cluster = cluster
        self.catalogue = Catalogue()
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.api = Kubernetes(access)
        chosen = {"namespace": NAMESPACE, "poll": 0.05, "warm_pool": 0, "writes_per_second": 1_000.0, **settings}
        self.reconciler = Reconciler(
            self.api, self.catalogue, SystemClock(), KnativeSettings(**chosen), HostBounds(), told=self._told
        )
        self.told: list[dict[str, Phase]] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run the reconciler."""
        self.task = asyncio.create_task(self.reconciler.run())

    async def stop(self) -> None:
        """End it wherever it is, as a kill does."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            self.task = None
        await self.api.aclose()

    def services(self) -> dict[str, Any]:
        """Knative Services by name."""
        return {one["metadata"]["name"]: one for one in self.cluster.objects("services")}

    def state(self, spec: CellSpec) -> CellState | None:
        """What was last told of a cell."""
        return next((state for state in self.reconciler.states if state.cell == spec.cell), None)

    def phase(self, spec: CellSpec) -> Phase | None:
        """Where a cell was last told to be."""
        found = self.state(spec)
        return None if found is None else found.phase

    async def ready(self, spec: CellSpec, status: str = "True", reason: str = "", message: str = "") -> None:
        """What Knative says of a Service."""
        value = self.services()[name_of(spec)]
        value["status"] = {
            "observedGeneration": value["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}],
        }
        await self.cluster.put("services", value)

    def _told(self, states: Sequence[CellState]) -> None:
        self.told.append({state.cell: state.phase for state in states})
