"""From a cluster's objects to conditions, on a cluster in memory: trouble is told, and is over when it is mended."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from chimera.adapters.substrates.knative import client, following, names, observing, refusals
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.observing import CellObserver
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, RIGHTS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease
from chimera.platform import condition_keeper
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.condition_keeper import ConditionKeeper, Judged
from chimera.platform.conditions import HOME, Condition, cell_subject
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.platform.reasons import Aspect, Reason
from chimera.testing.cluster import FakeCluster, refusal

PATIENCE = 20.0
NAMESPACE = "cells"
RUNTIME = RuntimeClass(
    tenant="acme-inc", framework="langgraph", runtime="python", isolation="tenant:acme-inc", resources=STANDARD
)
CELL = CellSpec(cell=cell_id(RUNTIME), runtime_class=RUNTIME)
NAME = names.service_name(CELL.cell, "langgraph")
LABELS = {names.MANAGED_BY: names.MANAGER, names.KNATIVE_SERVICE: NAME}


class Catalogue:
    """A `CellSource` of one cell."""

    async def sequence(self) -> int:
        return 1

    async def live_cells(self) -> Sequence[CellSpec]:
        return [CELL]


class Store:
    """A `ConditionStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Judged] = {}
        self.puts = 0

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        return {name: one.conditions for name, one in self.kept.items()}

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        self.puts += 1
        self.kept.update({one.subject: one for one in changed})
        for subject in gone:
            del self.kept[subject]


class Rig:
    """A cluster with one cell, looked at."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.ahead = 0.0
        self.api = Kubernetes(access, lambda: time.time() + self.ahead)
        settings = KnativeSettings(namespace=NAMESPACE, poll=0.05, writes_per_second=1_000.0)
        self.reconciler = Reconciler(self.api, Catalogue(), SystemClock(), settings, HostBounds())
        self.store = Store()
        observer = CellObserver(self.api, self.reconciler, SystemClock(), settings)
        keeper = ConditionKeeper(observer, self.store, SystemClock())
        self.tasks = [asyncio.create_task(one) for one in (self.reconciler.run(), observer.run(), keeper.run())]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.api.aclose()

    def of(self, aspect: Aspect) -> Condition | None:
        subject = HOME if aspect is Aspect.CONNECTED else cell_subject(CELL.cell)
        found = self.store.kept.get(subject)
        return None if found is None else next(one for one in found.conditions if one.type is aspect)

    async def until(self, aspect: Aspect, status: str, reason: Reason) -> Condition:
        found: Condition | None = None

        def told() -> bool:
            nonlocal found
            found = self.of(aspect)
            return found is not None and (found.status, found.reason) == (status, reason)

        try:
            await until(told)
        except TimeoutError:
            pytest.fail(f"{aspect} is {found}, not {status} {reason}")
        assert found is not None
        return found

    async def service(self, ready: bool = True) -> None:
        """What Knative makes of the Service."""
        await until(lambda: self.cluster.object("services", NAMESPACE, NAME) is not None)
        value = self.cluster.object("services", NAMESPACE, NAME)
        assert value is not None
        value["status"] = {
            "observedGeneration": value["metadata"]["generation"],
            "latestCreatedRevisionName": f"{NAME}-00001",
            "conditions": [{"type": kind, "status": str(ready)} for kind in ("Ready", "RoutesReady")],
        }
        await self.cluster.put("services", value)

    async def revision(self, *conditions: dict[str, Any]) -> None:
        meta = {"name": f"{NAME}-00001", "namespace": NAMESPACE, "labels": LABELS}
        await self.cluster.put("revisions", {"metadata": meta, "spec": {}, "status": {"conditions": list(conditions)}})

    async def pod(self, name: str = "pod-a", *conditions: dict[str, Any], **more: Any) -> None:
        meta = {"name": name, "namespace": NAMESPACE, "labels": LABELS, "annotations": {names.CELL: CELL.cell}}
        status = {"conditions": list(conditions), **more}
        await self.cluster.put("pods", {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": status})

    async def ready_pod(self, name: str = "pod-a") -> None:
        await self.pod(name, condition("Ready", "True"), condition("ContainersReady", "True"))

    async def no_pod(self, name: str = "pod-a") -> None:
        await self.cluster.remove("pods", NAMESPACE, name)


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


async def until(told: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not told():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(condition_keeper, "LEAST_PAUSE", 0.02)
    monkeypatch.setattr(observing, "AWAY", 0.3)
    monkeypatch.setattr(following, "LONGEST_PAUSE", 0.3)
    for module in (client, refusals):
        monkeypatch.setattr(module, "RETRY_AFTER", 0.2)
    async with FakeCluster() as cluster:
        made = Rig(cluster)
        yield made
        await made.stop()


async def test_a_cell_on_its_way_asleep_and_awake_is_well(rig: Rig) -> None:
    await rig.until(Aspect.STARTABLE, "Unknown", Reason.IN_PROGRESS)
    await rig.service()
    await rig.until(Aspect.ACCEPTED, "True", Reason.AS_WANTED)
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    assert rig.store.kept[cell_subject(CELL.cell)].tenant == "acme-inc"
    await rig.until(Aspect.CONNECTED, "True", Reason.AS_WANTED)
    puts = rig.store.puts
    for _ in range(3):
        await rig.ready_pod("pod-b")
        await asyncio.sleep(0.05)
        value = rig.cluster.object("pods", NAMESPACE, "pod-b")
        assert value is not None
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        await rig.cluster.put("pods", value)
        await rig.no_pod("pod-b")
        await asyncio.sleep(0.05)
    assert rig.store.puts == puts, "scaling is no change"


WAITING = {
    "an image that can't be pulled": ("ErrImagePull", "manifest unknown", Reason.IMAGE_PULL_FAILED, "knative.image"),
    "a Secret that isn't there": ("CreateContainerConfigError", "secret x", Reason.CONTAINER_REFUSED, "describe pod"),
    "a host that ends again and again": ("CrashLoopBackOff", "back-off", Reason.CRASH_LOOP, "logs"),
}


@pytest.mark.parametrize("kind", WAITING)
async def test_a_pod_that_does_not_start_is_told_and_forgiven_when_one_does(rig: Rig, kind: str) -> None:
    state, message, reason, step = WAITING[kind]
    await rig.service()
    terminated = {"exitCode": 70, "reason": "Error"}
    status = {
        "name": "host",
        "image": "x",
        "restartCount": 3,
        "state": {"waiting": {"reason": state, "message": message}},
    }
    await rig.pod(containerStatuses=[{**status, "lastState": {"terminated": terminated}}])
    told = await rig.until(Aspect.READY, "False", reason)
    assert step in told.next_step
    await rig.no_pod()
    await rig.until(Aspect.READY, "Unknown", reason)
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)


async def test_no_room_on_any_node_is_told(rig: Rig) -> None:
    await rig.service()
    await rig.pod("pod-a", condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available: 1 cordoned"))
    told = await rig.until(Aspect.STARTABLE, "False", Reason.UNSCHEDULABLE)
    assert "1 cordoned" in told.message
    await rig.ready_pod()
    await rig.until(Aspect.STARTABLE, "True", Reason.AS_WANTED)


async def test_a_quota_without_room_for_pods_is_told(rig: Rig) -> None:
    await rig.service()
    words = "pods is forbidden: exceeded quota: none"
    await rig.revision(condition("ResourcesAvailable", "False", "FailedCreate", words))
    told = await rig.until(Aspect.READY, "False", Reason.QUOTA_EXCEEDED)
    assert "ResourceQuota" in told.next_step
    await rig.revision(condition("ResourcesAvailable", "True"))
    await rig.until(Aspect.READY, "Unknown", Reason.QUOTA_EXCEEDED)
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)


async def test_a_cell_that_was_given_up_says_when_it_is_tried_again(rig: Rig) -> None:
    words = "Initial scale was never achieved"
    await rig.service(ready=False)
    value = rig.cluster.object("services", NAMESPACE, NAME)
    assert value is not None
    labels, annotations = {**LABELS, names.CONFIGURATION_GENERATION: "1"}, value["metadata"]["annotations"]
    meta = {"name": f"{NAME}-00001", "namespace": NAMESPACE, "labels": labels, "annotations": annotations}
    said = [condition(kind, "False", "ProgressDeadlineExceeded", words) for kind in ("Ready", "ResourcesAvailable")]
    status = {"conditions": said, "actualReplicas": 0, "desiredReplicas": 0}
    await rig.cluster.put("revisions", {"metadata": meta, "spec": {}, "status": status})
    told = await rig.until(Aspect.READY, "False", Reason.NOT_READY_IN_TIME)
    assert words in told.message and told.message.endswith("; try 1 was given up, another follows after 60 s")


async def test_a_pod_that_is_evicted_and_gone_is_told_of_for_a_while(rig: Rig) -> None:
    await rig.service()
    await rig.ready_pod("pod-b")
    await rig.pod("pod-a", condition("Ready", "True"), condition("DisruptionTarget", "True", "EvictionByEvictionAPI"))
    await rig.until(Aspect.HEALTHY, "False", Reason.HOST_EVICTED)
    await rig.no_pod()
    await asyncio.sleep(0.1)
    await rig.until(Aspect.HEALTHY, "False", Reason.HOST_EVICTED)
    assert (await rig.until(Aspect.READY, "True", Reason.AS_WANTED)).message == "", "calls go on"


async def test_a_pod_that_is_removed_by_force_is_told_of_and_one_that_is_told_to_end_is_not(rig: Rig) -> None:
    await rig.service()
    for name in ("pod-a", "pod-b"):
        await rig.ready_pod(name)
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    value = rig.cluster.object("pods", NAMESPACE, "pod-a")
    assert value is not None
    value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await rig.cluster.put("pods", value)
    await rig.no_pod("pod-a")
    await asyncio.sleep(0.2)
    await rig.until(Aspect.HEALTHY, "True", Reason.AS_WANTED)
    await rig.no_pod("pod-b")
    told = await rig.until(Aspect.HEALTHY, "False", Reason.HOST_DIED)
    assert "pod-b" in told.message and "node-1" in told.message


async def test_an_api_server_that_first_says_that_a_pod_goes_at_once_is_heard(rig: Rig) -> None:
    await rig.service()
    for name in ("pod-a", "pod-b"):
        await rig.ready_pod(name)
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    for name, ready in (("pod-a", "False"), ("pod-b", "True")):
        value = rig.cluster.object("pods", NAMESPACE, name)
        assert value is not None
        ending = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}
        value["metadata"] |= ending
        value["status"]["conditions"] = [condition("Ready", ready)]
        await rig.cluster.put("pods", value)
        await rig.no_pod(name)
    told = await rig.until(Aspect.HEALTHY, "False", Reason.HOST_DIED)
    assert "pod-b" in told.message


async def test_a_node_that_is_gone_takes_its_pods_with_it(rig: Rig) -> None:
    await rig.service()
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    await rig.pod("pod-a", condition("Ready", "False"), condition("ContainersReady", "True"))
    told = await rig.until(Aspect.HEALTHY, "False", Reason.NODE_GONE)
    assert "node-1" in told.message


async def test_what_the_cluster_refuses_is_told_of_the_cell(rig: Rig) -> None:
    await rig.service()
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    words = 'failed calling webhook "webhook.serving.knative.dev": connection refused'
    refused = refusal(500, "InternalError", words, Retry_After="1")
    rig.cluster.faults.append(lambda request: refused(request) if request.method == "PATCH" else None)
    value = rig.cluster.object("services", NAMESPACE, NAME)
    assert value is not None
    value["spec"]["template"]["spec"]["timeoutSeconds"] = 1  # somebody changes it, so it is applied again
    await rig.cluster.put("services", value)
    told = await rig.until(Aspect.ACCEPTED, "False", Reason.WEBHOOK_DOWN)
    assert "webhook.serving.knative.dev" in told.message
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    rig.cluster.faults.clear()
    await rig.until(Aspect.ACCEPTED, "True", Reason.AS_WANTED)


MISSING = {
    "Knative isn't there": (refusal(404, "NotFound", "the server could not find it"), Reason.KNATIVE_MISSING),
    "it may not look": (refusal(403, "Forbidden", "services is forbidden"), Reason.PERMISSION_DENIED),
    "nobody knows it": (refusal(401, "Unauthorized", "Unauthorized"), Reason.CREDENTIALS_REFUSED),
    "it asks too much": (refusal(429, "TooManyRequests", "later", Retry_After="1"), Reason.HOME_THROTTLED),
    "the server is away": (refusal(503, "ServiceUnavailable", "shutting down"), Reason.HOME_AWAY),
}


@pytest.mark.parametrize("kind", MISSING)
async def test_a_cluster_that_can_not_be_seen_is_one_condition_of_the_home(rig: Rig, kind: str) -> None:
    fault, reason = MISSING[kind]
    await rig.service()
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    rig.cluster.faults.append(lambda request: fault(request) if request.method == "GET" else None)
    rig.cluster.cut_watches()
    told = await rig.until(Aspect.CONNECTED, "False", reason)
    assert told.message and told.next_step
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)  # of what isn't seen nothing new is said
    rig.cluster.faults.clear()
    await rig.until(Aspect.CONNECTED, "True", Reason.AS_WANTED)


async def test_a_cluster_without_knative_is_told_of_though_no_cell_was_ever_seen(rig: Rig) -> None:
    gone = refusal(404, "NotFound", "the server could not find the requested resource")
    rig.cluster.faults.append(gone)
    rig.cluster.cut_watches()
    await rig.until(Aspect.CONNECTED, "False", Reason.KNATIVE_MISSING)
    rig.cluster.faults.clear()
    await rig.service()
    await rig.until(Aspect.CONNECTED, "True", Reason.AS_WANTED)


async def test_clocks_that_differ_are_told_and_nothing_is_refused_for_it(rig: Rig) -> None:
    await rig.service()
    await rig.ready_pod()
    await rig.until(Aspect.CONNECTED, "True", Reason.AS_WANTED)
    rig.ahead = 95.0
    rig.cluster.cut_watches()
    told = await rig.until(Aspect.CONNECTED, "False", Reason.CLOCK_SKEWED)
    assert "behind this machine's" in told.message and "9" in told.message and told.next_step
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    rig.ahead = 5.0
    rig.cluster.cut_watches()
    await rig.until(Aspect.CONNECTED, "True", Reason.AS_WANTED)


async def test_the_control_plane_looks_by_watch_alone_and_needs_no_other_right(rig: Rig) -> None:
    await rig.service()
    await rig.ready_pod()
    await rig.until(Aspect.READY, "True", Reason.AS_WANTED)
    before = rig.cluster.calls.copy()
    await asyncio.sleep(0.5)
    assert not rig.cluster.calls - before
    cells = ("services", "revisions", "pods")
    rights = [right for right in RIGHTS[CONTROL_PLANE] if right.resource in cells]
    looked = {(right.resource, verb) for right in rights for verb in right.verbs}
    verbs = {"GET": {"list"}, "WATCH": {"watch"}, "PATCH": {"create", "patch"}}
    used = {(plural, verb) for method, plural in rig.cluster.calls for verb in verbs[method]}
    assert used == looked - {("services", "delete"), ("revisions", "patch")}
