"""What a cell's objects say of its trouble, in the words of Kubernetes and Knative."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import KnativeService, Pod, Revision
from chimera.adapters.substrates.knative.symptoms import is_ready, symptoms
from chimera.platform.conditions import RECENT
from chimera.platform.reasons import Reason

NOW = 1_800_000_000.0


def at(seconds_ago: float) -> str:
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, reason: str = "", message: str = "", ago: float = 5) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(ago)}


def pod(*conditions: dict[str, Any], deleted: bool = False, **status: Any) -> Pod:
    meta = {"name": "pod-a", "namespace": "cells", **({"deletionTimestamp": at(1)} if deleted else {})}
    value = {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": {"conditions": conditions, **status}}
    return msgspec.convert(value, Pod)


def container(**more: Any) -> dict[str, Any]:
    return {"name": "host", "image": "dev.local/host:1", **more}


def ended(code: int, reason: str = "Error", ago: float = 5) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at(ago)}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def service(*conditions: dict[str, Any], observed: int = 1, made: float = 300) -> KnativeService:
    value = {
        "metadata": {"name": "c-1", "generation": 1, "creationTimestamp": at(made)},
        "status": {
            "observedGeneration": observed,
            "latestCreatedRevisionName": "c-1-00002",
            "traffic": [{"revisionName": "c-1-00001", "percent": 100}],
            "conditions": conditions,
        },
    }
    return msgspec.convert(value, KnativeService)


def revision(*conditions: dict[str, Any], name: str = "c-1-00002") -> Revision:
    return msgspec.convert({"metadata": {"name": name}, "status": {"conditions": conditions}}, Revision)


def reasons(*pods: Pod, service: KnativeService | None = None, revisions: tuple[Revision, ...] = ()) -> list[Reason]:
    return [one.reason for one in symptoms(service, revisions, pods, NOW)]


PODS = {
    "image": (
        [container(state=waiting("ErrImagePull", "manifest unknown"))],
        Reason.IMAGE_PULL_FAILED,
        "image dev.local/host:1: ErrImagePull: manifest unknown",
    ),
    "image again": (
        [container(state=waiting("ImagePullBackOff"))],
        Reason.IMAGE_PULL_FAILED,
        "image dev.local/host:1: ImagePullBackOff",
    ),
    "config": (
        [container(state=waiting("CreateContainerConfigError", 'secret "x" not found'))],
        Reason.CONTAINER_REFUSED,
        'container host: CreateContainerConfigError: secret "x" not found',
    ),
    "crash loop": (
        [container(restartCount=1, state=waiting("CrashLoopBackOff"), lastState=ended(70))],
        Reason.CRASH_LOOP,
        "container host of pod pod-a: ended with exit code 70 (Error)",
    ),
    "crash loop between two crashes": (
        [container(restartCount=2, state={"running": {}}, lastState=ended(70))],
        Reason.CRASH_LOOP,
        "exit code 70",
    ),
    "memory by the kernel": (
        [container(restartCount=1, state=waiting("CrashLoopBackOff"), lastState=ended(137, "OOMKilled"))],
        Reason.OUT_OF_MEMORY,
        "OOMKilled",
    ),
    "memory by the watchdog": (
        [container(restartCount=3, state=ended(83))],
        Reason.OUT_OF_MEMORY,
        "exit code 83",
    ),
    "a host that never becomes ready": (
        [container(state={"running": {"startedAt": at(60)}})],
        Reason.NOT_READY_IN_TIME,
        "isn't ready after 45 s",
    ),
    "a host was replaced": (
        [container(ready=True, restartCount=1, state={"running": {}}, lastState=ended(70))],
        Reason.HOST_DIED,
        "exit code 70",
    ),
    "a host was replaced for its memory": (
        [container(ready=True, restartCount=1, state={"running": {}}, lastState=ended(137, "OOMKilled"))],
        Reason.HOST_OUT_OF_MEMORY,
        "OOMKilled",
    ),
}


@pytest.mark.parametrize("kind", PODS)
def test_a_container_tells_its_trouble(kind: str) -> None:
    containers, reason, words = PODS[kind]
    (found,) = symptoms(None, (), (pod(containerStatuses=containers),), NOW)
    assert found.reason is reason and words in found.message


@pytest.mark.parametrize(
    ("told", "reason", "words"),
    [
        (
            pod(condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available: 1 Insufficient memory.")),
            Reason.UNSCHEDULABLE,
            "Unschedulable: 0/1 nodes are available: 1 Insufficient memory.",
        ),
        (
            pod(
                condition("PodScheduled", "True", ago=60),
                containerStatuses=[container(state=waiting("ContainerCreating"))],
            ),
            Reason.NOT_READY_IN_TIME,
            "isn't made after 45 s",
        ),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), Reason.HOST_EVICTED, "Evicted: low on memory"),
        (
            pod(condition("DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"), deleted=True),
            Reason.HOST_EVICTED,
            "pod pod-a on node-1: EvictionByEvictionAPI",
        ),
        (
            pod(condition("DisruptionTarget", "True", "PreemptionByScheduler", "preempted"), deleted=True),
            Reason.HOST_EVICTED,
            "preempted",
        ),
        (
            pod(condition("DisruptionTarget", "True", "DeletionByTaintManager", "no toleration"), deleted=True),
            Reason.NODE_GONE,
            "DeletionByTaintManager",
        ),
        (
            pod(condition("Ready", "False"), condition("ContainersReady", "True")),
            Reason.NODE_GONE,
            "node node-1 is gone",
        ),
    ],
)
def test_a_pod_tells_its_trouble(told: Pod, reason: Reason, words: str) -> None:
    (found,) = symptoms(None, (), (told,), NOW)
    assert found.reason is reason and words in found.message


QUOTA = 'pods "c-1-00002-deployment-abc" is forbidden: exceeded quota: none, requested: pods=1, limited: pods=0'


@pytest.mark.parametrize(
    ("kind", "reason", "message", "expected"),
    [
        ("ResourcesAvailable", "FailedCreate", QUOTA, Reason.QUOTA_EXCEEDED),
        ("ResourcesAvailable", "FailedCreate", "violates PodSecurity", Reason.POD_REFUSED),
        ("ResourcesAvailable", "ProgressDeadlineExceeded", "timed out progressing", Reason.NOT_READY_IN_TIME),
        ("ResourcesAvailable", "Unschedulable", "0/1 nodes are available", Reason.UNSCHEDULABLE),
        ("ContainerHealthy", "ContainerMissing", "Unable to fetch image: manifest unknown", Reason.IMAGE_PULL_FAILED),
        ("ContainerHealthy", "ExitCode1", "Container failed with: no module", Reason.CRASH_LOOP),
    ],
)
def test_a_revision_tells_its_trouble(kind: str, reason: str, message: str, expected: Reason) -> None:
    told = revision(condition(kind, "False", reason, message))
    first = msgspec.structs.replace(service(condition("RoutesReady", "True")).status, traffic=[])
    (found,) = symptoms(KnativeService(metadata=service().metadata, status=first), (told,), (), NOW)
    assert found.reason is expected and found.message == f"{reason}: {message}"


def test_a_container_that_is_not_made_has_printed_nothing_so_its_events_are_named() -> None:
    told = revision(condition("ContainerHealthy", "False", "ContainerCreating"))
    nothing_serves = msgspec.structs.replace(service(), status=msgspec.structs.replace(service().status, traffic=[]))
    late = pod(
        condition("PodScheduled", "True", ago=60),
        containerStatuses=[container(state=waiting("ContainerCreating"))],
    )
    for found in (symptoms(nothing_serves, (told,), (), NOW), symptoms(None, (), (late,), NOW)):
        assert [one.reason for one in found] == [Reason.NOT_READY_IN_TIME]
        assert "kubectl describe pod" in found[0].next_step and "logs" not in found[0].next_step


def test_a_new_revision_that_does_not_come_is_trouble_of_the_change_and_keeps_no_caller_waiting() -> None:
    told = condition("ContainerHealthy", "False", "ExitCode1", "no")
    new = msgspec.convert(
        {
            "metadata": {"name": "pod-b", "labels": {names.KNATIVE_REVISION: "c-1-00002"}},
            "status": {"containerStatuses": [container(state=waiting("ErrImagePull", "manifest unknown"))]},
        },
        Pod,
    )
    found = symptoms(service(condition("RoutesReady", "True")), (revision(told),), (new,), NOW)
    assert {one.reason for one in found} == {Reason.ROLLOUT_FAILED}
    assert "c-1-00002" in found[0].message and "manifest unknown" in found[0].message
    assert "knative.image" in found[0].next_step
    nothing_serves = msgspec.structs.replace(service(), status=msgspec.structs.replace(service().status, traffic=[]))
    first = symptoms(nothing_serves, (revision(told),), (new,), NOW)
    assert {one.reason for one in first} == {Reason.IMAGE_PULL_FAILED, Reason.CRASH_LOOP}


def test_a_revision_that_has_no_part_in_the_cell_any_more_is_not_asked() -> None:
    told = condition("ContainerHealthy", "False", "ExitCode1", "no")
    old, serving = revision(told, name="c-1-00000"), revision(told, name="c-1-00001")
    routed = service(condition("RoutesReady", "True"))
    assert reasons(service=routed, revisions=(old,)) == []
    assert reasons(service=routed, revisions=(serving,)) == [], "its pods tell; this is of one that was"
    quota = revision(condition("ResourcesAvailable", "False", "FailedCreate", QUOTA), name="c-1-00001")
    assert reasons(service=routed, revisions=(quota,)) == [Reason.QUOTA_EXCEEDED]


def test_an_ingress_that_is_not_ready_is_told_and_a_route_that_waits_for_its_revision_is_not() -> None:
    assert reasons(service=service(condition("RoutesReady", "False", "IngressNotConfigured", "no"))) == [
        Reason.INGRESS_NOT_READY
    ]
    slow = condition("RoutesReady", "Unknown", "IngressNotConfigured", "not yet", ago=100)
    soon = condition("RoutesReady", "Unknown", "IngressNotConfigured", "not yet", ago=10)
    assert reasons(service=service(slow)) == [Reason.INGRESS_NOT_READY] and reasons(service=service(soon)) == []
    assert reasons(service=service(condition("RoutesReady", "False", "RevisionMissing", "no"))) == []


def test_a_service_that_nobody_looks_at_has_no_controller() -> None:
    assert reasons(service=service(observed=0)) == [Reason.CONTROLLER_SILENT]
    assert reasons(service=service(observed=0, made=20)) == []


def test_what_is_well_or_long_ago_is_no_trouble() -> None:
    well = pod(
        condition("Ready", "True"),
        condition("ContainersReady", "True"),
        condition("PodScheduled", "True"),
        containerStatuses=[container(ready=True, state={"running": {}}, lastState=ended(70, ago=RECENT + 1))],
    )
    starting = pod(
        condition("Ready", "False"),
        condition("ContainersReady", "False"),
        condition("PodScheduled", "True", ago=20),
        containerStatuses=[container(state=waiting("ContainerCreating"))],
    )
    leaving = pod(condition("Ready", "False"), condition("ContainersReady", "False"), deleted=True)
    evicted = pod(phase="Failed", reason="Evicted", containerStatuses=[container(state=ended(137, ago=RECENT + 1))])
    started = {"running": {"startedAt": at(10)}}
    once = pod(containerStatuses=[container(restartCount=1, state=started, lastState=ended(70))])
    assert reasons(well, starting, leaving, evicted, once) == []
    assert is_ready(well) and not is_ready(starting) and not is_ready(leaving)


def test_many_pods_with_one_trouble_say_it_once() -> None:
    told = pod(condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available"))
    assert reasons(*([told] * 100)) == [Reason.UNSCHEDULABLE]
