"""From a pod's state to what people are told of it."""

from typing import Any

import msgspec
import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import KnativeService
from chimera.adapters.substrates.knative.pods import (
    BrokenCall,
    Revision,
    SeenPod,
    cell_row,
    desired,
    host_row,
    incident_rows,
    phase,
    trouble,
)

AT = "2026-01-02T03:04:05Z"
NOW = 1_767_323_045.0 + 60.0  # a minute later


def pod(name: str = "pod-a", *, deleted: bool = False, memory: str = "2Gi", **status: Any) -> SeenPod:
    meta: dict[str, Any] = {"name": name, "annotations": {names.CELL: "cell-1"}, "creationTimestamp": AT}
    if deleted:
        meta["deletionTimestamp"] = AT
    limits = {"limits": {"memory": memory}}
    spec = {"nodeName": "node-1", "containers": [{"name": "queue-proxy"}, {"name": "host", "resources": limits}]}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": {"phase": "Running", **status}}, SeenPod)


def container(name: str = "host", **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (pod(), "starting"),
        (pod(conditions=[{"type": "Ready", "status": "False"}]), "starting"),
        (pod(conditions=READY), "ready"),
        (pod(conditions=READY, deleted=True), "draining"),
        (pod(phase="Failed", deleted=True), "ended"),
    ],
)
def test_phases(seen: SeenPod, wanted: str) -> None:
    assert phase(seen) == wanted


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, None),
        ({"containerStatuses": [container(state={"waiting": {"reason": "ContainerCreating"}})]}, None),
        ({"containerStatuses": [container(state={"running": {}})]}, None),
        (
            {"containerStatuses": [container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such"}})]},
            "ImagePullBackOff: no such",
        ),
        (
            {"containerStatuses": [container("queue-proxy", state={"waiting": {"reason": "CrashLoopBackOff"}})]},
            "CrashLoopBackOff",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable: 0/3",
        ),
    ],
)
def test_trouble_is_told_and_being_on_its_way_is_none(status: dict[str, Any], words: str | None) -> None:
    assert trouble(pod(**status)) == words


@pytest.mark.parametrize(("memory", "limit"), [("2147483648", 2 * 1024**3), ("6Gi", 6 * 1024**3), ("1e9", 0)])
def test_a_pod_as_a_host(memory: str, limit: int) -> None:
    row = host_row(pod(conditions=READY, memory=memory), None, NOW)
    assert (row.host, row.cell, row.phase, row.seconds, row.node) == ("pod-a", "cell-1", "ready", 60.0, "node-1")
    assert (row.limit_bytes, row.resident_bytes) == (limit, None)


def ended(**state: Any) -> dict[str, Any]:
    return container(lastState={"terminated": {"finishedAt": AT, **state}})


def test_a_container_that_ended_is_an_incident_with_the_calls_that_broke_with_it() -> None:
    at = NOW - 60.0
    broken = [
        BrokenCall(at + 1, "pod-a", "cell-1", "berta"),
        BrokenCall(at + 2, "pod-a", "cell-1", "anna"),
        BrokenCall(at + 50, "pod-a", "cell-1", "later"),
        BrokenCall(at + 1, "pod-b", "cell-1", "elsewhere"),
    ]
    seen = [pod(containerStatuses=[ended(exitCode=137, reason="OOMKilled")])]
    rows = incident_rows(seen, broken, NOW)
    assert [(row.seconds_ago, row.host, row.cause, row.suspects) for row in rows] == [
        (10.0, "pod-a", "calls to it broke", ("later",)),
        (59.0, "pod-b", "calls to it broke", ("elsewhere",)),
        (60.0, "pod-a", "exit code 137, OOMKilled", ("anna", "berta")),
    ]
    assert all(row.agent is None for row in rows), "another gateway may have had calls there"


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (pod(containerStatuses=[ended(exitCode=3, reason="Error")]), "exit code 3"),
        (pod(containerStatuses=[ended(exitCode=0, reason="Completed")]), None),
        (pod(containerStatuses=[container("queue-proxy", lastState={"terminated": {"exitCode": 2}})]), None),
        (pod(deleted=True, containerStatuses=[container(state={"terminated": {"exitCode": 143}})]), None),
        (pod(phase="Failed", reason="Evicted", message="no disk"), "Evicted: no disk"),
    ],
)
def test_which_ends_are_incidents(seen: SeenPod, cause: str | None) -> None:
    assert [row.cause for row in incident_rows([seen], [], NOW)] == ([cause] if cause else [])


def service(ready: str = "True", message: str = "", *, observed: int = 1) -> KnativeService:
    condition = {"type": "Ready", "status": ready, "reason": "Failed", "message": message}
    labels = {names.PREFIX + "tenant": "default", names.PREFIX + "framework": "langgraph"}
    meta = {"name": "c-1", "generation": 1, "annotations": {names.CELL: "cell-1"}, "labels": labels}
    status = {"observedGeneration": observed, "conditions": [condition]}
    return msgspec.convert({"metadata": meta, "status": status}, KnativeService)


def test_a_cell_counts_its_hosts_and_tells_its_trouble() -> None:
    hosts = [host_row(one, None, NOW) for one in (pod(conditions=READY), pod("b"), pod("c", deleted=True))]
    row = cell_row(service(), None, hosts, wanted=2, waiting=3)
    assert (row.hosts, row.ready, row.wanted, row.waiting, row.reason) == (3, 1, 2, 3, "hosts are starting")
    assert (row.tenant, row.framework, row.error) == ("default", "langgraph", None)
    assert cell_row(service(), None, [], wanted=0, waiting=0).reason == "asleep"
    assert cell_row(service(), None, hosts, wanted=1, waiting=0).reason == "hosts are taken away"
    assert "no image" in (cell_row(service("False", "no image"), None, [], wanted=0, waiting=0).error or "")
    assert cell_row(service("False", "old", observed=0), None, [], wanted=0, waiting=0).error is None
    ill = host_row(pod(containerStatuses=[container(state={"waiting": {"reason": "CrashLoopBackOff"}})]), None, NOW)
    assert cell_row(service(), None, [ill], wanted=1, waiting=0).error == "pod-a: CrashLoopBackOff"


def test_what_is_wanted_of_a_service_is_what_is_of_its_revisions() -> None:
    def revision(name: str, replicas: int | None) -> Revision:
        meta = {"labels": {names.KNATIVE_SERVICE: name}}
        return msgspec.convert({"metadata": meta, "status": {"desiredReplicas": replicas}}, Revision)

    found = desired([revision("a", 2), revision("a", 1), revision("a", -1), revision("b", None)])
    assert found == {"a": 3, "b": 0}
