"""How often a cluster's API is asked while all is well and while it is in trouble, over hours of virtual time.

Control plane (reconciler, observer, keeper of conditions) and gateway (pool) run against a cluster in memory, twenty
cells, the real client, watches and back-off. Each trouble lasts ten minutes, then it is mended.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.observing import CellObserver
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.leases import Lease
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.condition_keeper import ConditionKeeper, Judged
from chimera.platform.conditions import HOME, Condition, cell_subject
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.platform.reasons import Aspect, Reason
from chimera.testing.cluster import FakeCluster, Fault, refusal
from chimera.testing.virtual_time import LoopClock, run

CELLS = 20
MINUTES = 60.0
TROUBLE = 10 * MINUTES
WATCHES = 5
"""Services, revisions and pods for the control plane; Services and slices for the gateway."""
BREATH = 0.005


def cell(number: int) -> CellSpec:
    runtime = RuntimeClass(
        tenant=f"tenant-{number}",
        framework="langgraph",
        runtime="python",
        isolation=f"tenant:tenant-{number}",
        resources=STANDARD,
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime)


class Catalogue:
    """A `CellSource` that a test sets."""

    def __init__(self, count: int) -> None:
        self.cells = [cell(number) for number in range(count)]
        self.number = 1

    async def sequence(self) -> int:
        return self.number

    async def live_cells(self) -> Sequence[CellSpec]:
        return self.cells

    def add(self) -> None:
        self.cells.append(cell(len(self.cells)))
        self.number += 1


class Store:
    """A `ConditionStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Condition, ...]] = {}
        self.puts = 0

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        return self.kept

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        self.puts += 1
        self.kept.update({one.subject: one.conditions for one in changed})

    def reasons(self, aspect: Aspect) -> Counter[Reason]:
        return Counter(one.reason for found in self.kept.values() for one in found if one.type is aspect)


class Platform:
    """The loops of a control plane and of a gateway."""

    def __init__(self, cluster: FakeCluster, cells: int = CELLS) -> None:
        self.cluster = cluster
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.apis = [Kubernetes(access), Kubernetes(access)]
        self.catalogue, self.store, clock = Catalogue(cells), Store(), LoopClock()
        settings = KnativeSettings(namespace="cells", poll=10.0)
        reconciler = Reconciler(self.apis[0], self.catalogue, clock, settings, HostBounds())
        observer = CellObserver(self.apis[0], reconciler, clock, settings)
        self.keeper = ConditionKeeper(observer, self.store, clock)
        self.pool = KnativePool(self.apis[1], clock, namespace="cells", key_of=lambda host, _: host)
        loops = (reconciler.run(), observer.run(), self.keeper.run(), self.pool.run())
        self.tasks = [asyncio.create_task(loop) for loop in loops]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for api in self.apis:
            await api.aclose()
        await self.pool.aclose()

    async def knative(self) -> None:
        """What Knative makes of what was applied, a pod for each."""
        for value in self.cluster.objects("services"):
            meta = value["metadata"]
            value["status"] = {
                "observedGeneration": meta["generation"],
                "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "RoutesReady")],
            }
            await self.cluster.put("services", value)
            pod = {"name": f"{meta['name']}-pod", "namespace": "cells", "labels": meta["labels"]}
            pod["annotations"] = {names.CELL: meta["annotations"][names.CELL]}
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            await self.cluster.put("pods", {"metadata": pod, "status": status})

    async def settled(self) -> None:
        """All cells are applied and ready, and known to be."""
        await until(lambda: len(self.cluster.objects("services")) == len(self.catalogue.cells))
        await self.knative()
        await until(lambda: self.store.reasons(Aspect.READY) == {Reason.AS_WANTED: len(self.catalogue.cells)})


async def until(condition: Callable[[], bool], within: float = 5 * MINUTES) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1.0)


def story(tell: Callable[[Platform], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async with FakeCluster() as cluster:
            platform = Platform(cluster)
            try:
                await platform.settled()
                await tell(platform)
            finally:
                await platform.close()

    run(whole(), breath=BREATH)


def on_writes(fault: Fault) -> Fault:
    return lambda request: fault(request) if request.method == "PATCH" else None


def away(request: web.BaseRequest) -> web.StreamResponse | None:
    """A server that takes connections and breaks them."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def test_in_an_hour_where_nothing_happens_nothing_is_written_or_listed_and_watches_are_renewed() -> None:
    async def tell(platform: Platform) -> None:
        before, puts = platform.cluster.calls.copy(), platform.store.puts
        await asyncio.sleep(60 * MINUTES)
        made = platform.cluster.calls - before
        assert {method for method, _ in made} == {"WATCH"}
        assert sum(made.values()) <= WATCHES * (60 * MINUTES / 300 + 1)
        assert platform.store.puts == puts, "nor anything in the database"

    story(tell)


EVERYWHERE: dict[str, tuple[Fault, Reason]] = {
    "away": (away, Reason.HOME_AWAY),
    "shutting down": (refusal(503, "ServiceUnavailable", "shutting down"), Reason.HOME_AWAY),
    "throttled": (refusal(429, "TooManyRequests", "later", Retry_After="20"), Reason.HOME_THROTTLED),
    "denied": (refusal(403, "Forbidden", "services is forbidden"), Reason.PERMISSION_DENIED),
    "credentials": (refusal(401, "Unauthorized", "Unauthorized"), Reason.CREDENTIALS_REFUSED),
    "no Knative": (refusal(404, "NotFound", "could not find the requested resource"), Reason.KNATIVE_MISSING),
    "etcd": (refusal(500, "InternalError", "etcdserver: request timed out"), Reason.HOME_AWAY),
}


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_a_cluster_in_trouble_is_asked_ever_less_often_and_seen_again_by_one_list_at_most(kind: str) -> None:
    fault, reason = EVERYWHERE[kind]

    async def tell(platform: Platform) -> None:
        cluster, before = platform.cluster, platform.cluster.calls.copy()
        cluster.faults.append(fault)
        cluster.cut_watches()
        await asyncio.sleep(TROUBLE)
        made = cluster.calls - before
        # At 0.2, 0.4 … 30 s, at least half of each: no watch is asked more often than 8 times and twice a half minute.
        # A connection that breaks is made again once at once, by the HTTP client itself.
        times = 2 if kind == "away" else 1
        assert sum(made.values()) <= WATCHES * (8 + 2 * TROUBLE / 30) * times, made
        assert platform.store.kept[HOME][0].reason is reason
        assert platform.store.reasons(Aspect.READY) == {Reason.AS_WANTED: CELLS}, "of cells nothing new is known"
        before = cluster.calls.copy()
        cluster.forget()
        cluster.faults.clear()
        platform.catalogue.add()
        await until(lambda: len(cluster.objects("services")) == CELLS + 1, within=2 * MINUTES)
        await until(lambda: platform.store.kept[HOME][0].reason is Reason.AS_WANTED)
        lists = sum(count for (method, _), count in (cluster.calls - before).items() if method == "GET")
        assert lists <= WATCHES, "each kind once, since its history is forgotten"
        assert cluster.calls["PATCH", "services"] - before["PATCH", "services"] == 1

    story(tell)


REFUSED: dict[str, tuple[Fault, Reason, float]] = {
    # the most tries in ten minutes: of the cluster as a whole, or of each cell
    "throttled": (refusal(429, "TooManyRequests", "later", Retry_After="20"), Reason.HOME_THROTTLED, 30),
    "denied": (refusal(403, "Forbidden", "services is forbidden"), Reason.PERMISSION_DENIED, 20),
    "webhook away": (refusal(500, "InternalError", "failed calling webhook x: refused"), Reason.WEBHOOK_DOWN, 20),
    "webhook slow": (
        refusal(500, "InternalError", "failed calling webhook x: context deadline exceeded"),
        Reason.WEBHOOK_DOWN,
        20,
    ),
    "namespace gone": (refusal(404, "NotFound", 'namespaces "cells" not found'), Reason.NAMESPACE_GONE, 20),
    "namespace ends": (refusal(403, "Forbidden", "because it is being terminated"), Reason.NAMESPACE_GONE, 20),
    "too old": (refusal(500, "InternalError", "failed to create typed patch object"), Reason.KNATIVE_TOO_OLD, 11 * 5),
    "refused": (refusal(422, "Invalid", "spec.x: Invalid value"), Reason.OBJECT_REFUSED, 11 * 5),
    "policy": (refusal(403, "Forbidden", "admission webhook denied the request"), Reason.OBJECT_REFUSED, 11 * 5),
    "quota": (refusal(403, "Forbidden", "exceeded quota: few"), Reason.QUOTA_EXCEEDED, 16 * 5),
    "conflict": (refusal(409, "Conflict", "Apply failed with 1 conflict"), Reason.CONFLICT, 18 * 5),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_told_and_tried_ever_less_often_and_again_by_itself_once_it_is_mended(kind: str) -> None:
    fault, reason, most = REFUSED[kind]
    aspect = Aspect.STARTABLE if reason is Reason.QUOTA_EXCEEDED else Aspect.ACCEPTED

    async def tell(platform: Platform) -> None:
        cluster = platform.cluster
        cluster.faults.append(on_writes(fault))
        before = cluster.calls.copy()
        for _ in range(5):
            platform.catalogue.add()
        await asyncio.sleep(TROUBLE)
        made = cluster.calls - before
        assert 1 <= made["PATCH", "services"] <= most, made
        assert not [call for call in made if call[0] not in ("PATCH", "WATCH")]
        assert platform.store.reasons(aspect)[reason] >= 1
        told = next(
            one
            for name, found in platform.store.kept.items()
            for one in found
            if one.reason is reason and name.startswith(cell_subject(""))
        )
        assert told.status == "False" and told.message and told.next_step
        cluster.faults.clear()
        await until(lambda: len(cluster.objects("services")) == CELLS + 5, within=16 * MINUTES)
        await platform.settled()

    story(tell)
