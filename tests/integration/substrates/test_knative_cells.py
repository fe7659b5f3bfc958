"""The loop over cells, on a cluster in memory: what it makes, what it leaves alone, and how it bears trouble."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import client, names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.plan import Phase
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, RIGHTS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.clock import SystemClock
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.testing.cluster import FakeCluster, refusal

PATIENCE = 20.0
NAMESPACE = "cells"


def cell(framework: str = "langgraph", tenant: str = "default", **changes: Any) -> CellSpec:
    runtime = RuntimeClass(
        tenant=tenant,
        framework=framework,  # type: ignore[arg-type]
        runtime="python",
        isolation=f"tenant:{tenant}",
        resources=STANDARD,
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime, **changes)


def name_of(spec: CellSpec) -> str:
    return names.service_name(spec.cell, spec.runtime_class.framework)


@dataclass
class Catalogue:
    """A `CellSource` that a test sets."""

    cells: list[CellSpec] = field(default_factory=list)
    number: int = 1
    read: int = 0

    async def sequence(self) -> int:
        return self.number

    async def live_cells(self) -> Sequence[CellSpec]:
        self.read += 1
        return list(self.cells)

    def put(self, *cells: CellSpec) -> None:
        self.cells, self.number = list(cells), self.number + 1


class Rig:
    """A cluster, a catalogue and a reconciler that runs."""

    def __init__(self, cluster: FakeCluster, **settings: Any) -> None:
        self.cluster = cluster
        self.catalogue = Catalogue()
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.api = Kubernetes(access)
        chosen = {"namespace": NAMESPACE, "poll": 0.05, "writes_per_second": 1_000.0, **settings}
        self.reconciler = Reconciler(
            self.api, self.catalogue, SystemClock(), KnativeSettings(**chosen), HostBounds(), told=self._told
        )
        self.told: list[dict[str, Phase]] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.reconciler.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.api.aclose()

    def services(self) -> dict[str, Any]:
        return {one["metadata"]["name"]: one for one in self.cluster.objects("services")}

    def phase(self, spec: CellSpec) -> Phase | None:
        return next((state.phase for state in self.reconciler.states if state.cell == spec.cell), None)

    def _told(self, states: Any) -> None:
        self.told.append({state.cell: state.phase for state in states})

    async def ready(self, spec: CellSpec, status: str = "True", reason: str = "", message: str = "") -> None:
        """What Knative says of a Service."""
        value = self.services()[name_of(spec)]
        value["status"] = {
            "observedGeneration": value["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}],
        }
        await self.cluster.put("services", value)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []
    async with FakeCluster() as cluster:

        def rig(**settings: Any) -> Rig:
            rigs.append(Rig(cluster, **settings))
            return rigs[-1]

        yield rig
        for one in rigs:
            await one.stop()


async def test_wanted_cells_become_services_and_their_states_are_told(make: Callable[..., Rig]) -> None:
    rig, one, other = make(), cell("langgraph"), cell("crewai")
    rig.catalogue.put(one, other)
    rig.start()
    await until(lambda: rig.services().keys() == {name_of(one), name_of(other)})
    await rig.ready(one)
    await rig.ready(other, "False", "RevisionMissing", "Unable to fetch image: manifest unknown")
    await until(lambda: rig.phase(one) is Phase.READY and rig.phase(other) is Phase.FAILED)
    failed = next(state for state in rig.reconciler.states if state.phase is Phase.FAILED)
    assert "manifest unknown" in failed.cause and "knative.image" in failed.next_step


async def test_nothing_is_written_and_nothing_is_listed_while_nothing_changes(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WATCH_SECONDS", 1)
    rig, spec = make(poll=0.01), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    await rig.ready(spec)
    await until(lambda: rig.phase(spec) is Phase.READY)
    before, passes, read = rig.cluster.calls.copy(), rig.reconciler.passes, rig.catalogue.read
    watches = before["WATCH", "services"]
    await until(lambda: rig.cluster.calls["WATCH", "services"] >= watches + 2)  # two seconds of looking on
    made = rig.cluster.calls - before
    assert set(made) == {("WATCH", "services")} and made["WATCH", "services"] <= 3
    assert (rig.reconciler.passes, rig.catalogue.read) == (passes, read)


async def test_a_reconciler_that_starts_again_changes_nothing(make: Callable[..., Rig]) -> None:
    first, spec = make(), cell()
    first.catalogue.put(spec)
    first.start()
    await until(lambda: bool(first.services()))
    await first.ready(spec)
    await until(lambda: first.phase(spec) is Phase.READY)
    await first.stop()
    writes = first.cluster.writes()
    second = make()
    second.catalogue.put(spec)
    second.start()
    await until(lambda: second.phase(spec) is Phase.READY)
    assert second.cluster.writes() == writes


async def test_a_changed_cell_is_applied_and_what_somebody_else_changed_is_put_right(make: Callable[..., Rig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    rig.catalogue.put(cell(min_hosts=100))

    def least() -> str:
        annotations = rig.services()[name_of(spec)]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["autoscaling.knative.dev/min-scale"])

    await until(lambda: least() == "100")
    value = rig.services()[name_of(spec)]
    value["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "1"
    await rig.cluster.put("services", value)
    await until(lambda: least() == "100")


async def test_an_unused_cell_goes_after_its_grace_and_no_other(make: Callable[..., Rig]) -> None:
    rig, kept, unused = make(unused_grace=0.3), cell("langgraph"), cell("crewai")
    foreign = {"metadata": {"name": "c-foreign", "namespace": NAMESPACE}, "spec": {}}
    await rig.cluster.put("services", foreign)
    rig.catalogue.put(kept, unused)
    rig.start()
    await until(lambda: len(rig.services()) == 3)
    rig.catalogue.put(kept)
    await until(lambda: rig.phase(unused) is Phase.UNUSED)
    assert name_of(unused) in rig.services(), "not before its grace is over"
    await until(lambda: rig.services().keys() == {name_of(kept), "c-foreign"})


async def test_no_more_cells_are_made_than_may_be(make: Callable[..., Rig]) -> None:
    rig = make(most_cells=3)
    rig.catalogue.put(*(cell(tenant=f"tenant-{number}") for number in range(8)))
    rig.start()
    await until(lambda: len(rig.reconciler.states) == 8)
    await asyncio.sleep(0.2)
    assert len(rig.services()) == 3
    held = [state for state in rig.reconciler.states if state.phase is Phase.HELD]
    assert len(held) == 5 and "most_cells" in held[0].next_step


TROUBLE = {
    "throttled": (refusal(429, "TooManyRequests", "too many requests", Retry_After="1"), "slow down"),
    "quota": (refusal(403, "Forbidden", "exceeded quota: objects, used 10 of 10"), "quota"),
    "denied": (refusal(403, "Forbidden", "services is forbidden: User cannot patch"), "not allow"),
    "refused": (refusal(422, "Invalid", "admission webhook denied the request: no"), "refused"),
    "conflict": (refusal(409, "Conflict", "Apply failed with 1 conflict"), "Somebody else"),
    "webhook down": (refusal(500, "InternalError", "failed calling webhook: connection refused"), "does not answer"),
}


@pytest.mark.parametrize("kind", TROUBLE)
async def test_trouble_is_told_with_cause_and_next_step_and_does_not_become_a_hot_loop(
    make: Callable[..., Rig], kind: str
) -> None:
    rig = make(poll=0.01)
    fault, words = TROUBLE[kind]
    specs = [cell(tenant=f"tenant-{number}") for number in range(5)]

    def on_writes(request: web.BaseRequest) -> web.StreamResponse | None:
        return fault(request) if request.method == "PATCH" else None

    rig.cluster.faults.append(on_writes)
    rig.catalogue.put(*specs)
    rig.start()
    await until(lambda: any(state.phase is Phase.FAILED for state in rig.reconciler.states))
    tried = rig.cluster.calls["PATCH", "services"]
    await asyncio.sleep(0.5)  # a loop that doesn't wait would have tried hundreds of times by now
    assert tried <= len(specs) and rig.cluster.calls["PATCH", "services"] == tried
    failed = [state for state in rig.reconciler.states if state.phase is Phase.FAILED]
    assert all(words in state.cause and state.next_step for state in failed)
    rig.cluster.faults.clear()
    if kind in ("throttled", "conflict", "webhook down"):  # the others wait longer than a test should
        await until(lambda: len(rig.services()) == len(specs))


async def test_a_cluster_that_goes_away_is_waited_for(make: Callable[..., Rig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))

    def away(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.transport is not None:
            request.transport.abort()
        return None

    rig.cluster.faults.append(away)
    rig.cluster.cut_watches()
    await until(lambda: rig.reconciler.failure is not None)
    assert "does not answer" in str(rig.reconciler.failure)
    calls = sum(rig.cluster.calls.values())
    await asyncio.sleep(0.5)
    assert sum(rig.cluster.calls.values()) - calls <= 2, "it is not knocked at without a pause"
    rig.cluster.faults.clear()
    rig.catalogue.put(spec, cell("crewai"))
    await until(lambda: len(rig.services()) == 2 and rig.reconciler.failure is None)


async def test_a_watch_that_is_forgotten_is_begun_anew_with_one_list(make: Callable[..., Rig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    lists = rig.cluster.calls["GET", "services"]
    rig.cluster.forget()
    rig.cluster.cut_watches()
    await until(lambda: rig.cluster.calls["GET", "services"] == lists + 1)
    await rig.ready(spec)
    await until(lambda: rig.phase(spec) is Phase.READY)
    assert rig.cluster.calls["GET", "services"] == lists + 1


VERBS = {"GET": {"list"}, "WATCH": {"watch"}, "PATCH": {"create", "patch"}, "DELETE": {"delete"}}


async def test_the_control_planes_rights_are_exactly_what_it_does(make: Callable[..., Rig]) -> None:
    rig, kept, unused = make(unused_grace=0.0), cell("langgraph"), cell("crewai")
    rig.catalogue.put(kept, unused)
    rig.start()
    await until(lambda: len(rig.services()) == 2)
    rig.catalogue.put(kept)
    await until(lambda: len(rig.services()) == 1)
    (right,) = [one for one in RIGHTS[CONTROL_PLANE] if one.resource == "services"]
    assert {plural for _, plural in rig.cluster.calls} == {right.resource}
    assert {verb for method, _ in rig.cluster.calls for verb in VERBS[method]} == set(right.verbs)
