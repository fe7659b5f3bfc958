"""What a cell's objects say of its trouble: a pure rule from Knative Service, revisions and pods to evidence.

Pods tell first: the kubelet says within seconds that an image can't be pulled, the scheduler that no node has room.
Knative says so of a revision when its progress deadline is over, and of a quota at once. Where both speak, the pod's
words are told.

How the words were found (Kubernetes 1.34, Knative 1.21): a pod that a gone node held keeps `ContainersReady` and loses
`Ready`, which the node controller sets and nobody else; one that is evicted, preempted or taken from a gone node has
the condition `DisruptionTarget`; one that ran out of a node's memory or disk stays, failed, with the reason `Evicted`.
A ReplicaSet that a quota or a pod security standard keeps from making pods is a revision's `ResourcesAvailable`, false,
with the API server's words.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import (
    Condition,
    ContainerStatus,
    KnativeService,
    Pod,
    Revision,
    Terminated,
)
from chimera.platform.conditions import RECENT, Evidence
from chimera.platform.reasons import MEANINGS, POD_EVENTS, Aspect, Reason

SILENT = 60.0
"""A Service that Knative has not looked at for so long has no controller."""
SLOW_INGRESS = 60.0
SLOW_HOST = 45.0
"""A host that runs so long and isn't ready is told of before callers' patience (`admission.hold`, 60 s) is over."""
CRASHES = 2
"""A container that ended so often and isn't ready is in a loop, whatever state it is in at the moment."""

PULL = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
    | {"RegistryUnavailable", "SignatureValidationFailed"}
)
NOT_MADE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError"})
BEING_MADE = frozenset({"ContainerCreating", "PodInitializing"})
NODE_LOST = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
OUT_OF_MEMORY_EXIT = 83
"""A host that sees itself above its bound ends so (`chimera_host.watchdog.ExitCode`)."""


def symptoms(
    service: KnativeService | None, revisions: Iterable[Revision], pods: Iterable[Pod], now: float
) -> tuple[Evidence, ...]:
    """Evidence of trouble of one cell; `pods` are those of all its revisions, `now` is in seconds since the epoch.

    What keeps a revision without calls from starting, beside one that has them, keeps no caller waiting: it is trouble
    of the change, not of the cell.
    """
    if service is None:
        return tuple(dict.fromkeys(one for pod in pods for one in of_pod(pod, now)))
    found: list[Evidence] = []
    wanted = service.status.latest_created_revision_name
    serving = {part.revision_name for part in service.status.traffic if part.percent}
    for pod in pods:
        found += _of_part(pod.metadata.labels.get(names.KNATIVE_REVISION, ""), serving, of_pod(pod, now))
    found += of_service(service, now)
    for revision in revisions:
        if revision.metadata.name == wanted or revision.metadata.name in serving:
            serves = revision.metadata.name in serving
            found += _of_part(revision.metadata.name, serving, of_revision(revision, serves=serves))
    return tuple(dict.fromkeys(found))


def _of_part(revision: str, serving: Collection[str | None], evidence: Iterable[Evidence]) -> Iterator[Evidence]:
    for one in evidence:
        if not serving or revision in serving or MEANINGS[one.reason].aspect is not Aspect.STARTABLE:
            yield one
            continue
        yield Evidence(
            reason=Reason.ROLLOUT_FAILED,
            message=f"revision {revision}: {one.message}",
            next_step=one.next_step or MEANINGS[one.reason].next_step,
        )


def is_ready(pod: Pod) -> bool:
    """Whether the pod takes calls."""
    return pod.metadata.deletion_timestamp is None and _says_ready(pod)


def is_forced(pod: Pod) -> bool:
    """Whether the pod goes at once while it runs: one that was given time isn't ready by when that is over."""
    return pod.metadata.deletion_grace_period_seconds == 0 and _says_ready(pod)


def _says_ready(pod: Pod) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)


def of_service(service: KnativeService, now: float) -> Iterator[Evidence]:
    """What a Knative Service says itself; what it repeats of its revisions is read there."""
    meta, status = service.metadata, service.status
    if not status.observed_generation:
        if (age := _age(meta.creation_timestamp, now)) is not None and age > SILENT:
            yield Evidence(
                reason=Reason.CONTROLLER_SILENT,
                message=f"Knative has not looked at Service {meta.name} since it was made",
            )
        return
    routes = _condition(status.conditions, "RoutesReady")
    if routes is None or status.observed_generation != meta.generation or routes.status == "True":
        return
    # A route that waits for a revision says so in the same condition: that is the revision's trouble.
    if not routes.reason.startswith(("Ingress", "Uninitialized", "EndpointsNotOwned", "CertificateNot")):
        return
    age = _age(routes.last_transition_time, now)
    if routes.status == "False" or (age is not None and age > SLOW_INGRESS):
        yield Evidence(reason=Reason.INGRESS_NOT_READY, message=_words(routes.reason, routes.message))


def of_revision(revision: Revision, *, serves: bool = False) -> Iterator[Evidence]:
    """What a revision says.

    Of one that serves only that its pods can't be made: what else Knative says of it is of a pod that was, and stays
    said while the cell sleeps. Its pods tell what is so now.
    """
    conditions = revision.status.conditions
    resources, container = (_condition(conditions, name) for name in ("ResourcesAvailable", "ContainerHealthy"))
    if resources is not None and resources.status == "False":
        words = _words(resources.reason, resources.message)
        if "exceeded quota" in resources.message:
            yield Evidence(reason=Reason.QUOTA_EXCEEDED, message=words)
        elif resources.reason == "FailedCreate" or "is forbidden" in resources.message:
            yield Evidence(reason=Reason.POD_REFUSED, message=words)
        elif not serves:
            yield _by_word(resources)
    if container is not None and container.status == "False" and not serves:
        yield _by_word(container)


def of_pod(pod: Pod, now: float) -> Iterator[Evidence]:
    """What a pod says of itself and its containers."""
    name, node = pod.metadata.name, pod.spec.node_name or "no node"
    disrupted = _condition(pod.status.conditions, "DisruptionTarget")
    if disrupted is not None and disrupted.status == "True":
        if _recent(disrupted.last_transition_time, now):
            reason = Reason.NODE_GONE if disrupted.reason in NODE_LOST else Reason.HOST_EVICTED
            words = _words(disrupted.reason, disrupted.message or pod.status.message)
            yield Evidence(reason=reason, message=f"pod {name} on {node}: {words}")
        return
    if pod.status.phase == "Failed":
        if _recent(_ended_at(pod), now):
            words = _words(pod.status.reason or "Failed", pod.status.message)
            yield Evidence(reason=Reason.HOST_EVICTED, message=f"pod {name} on {node}: {words}")
        return
    ready, containers = (_condition(pod.status.conditions, kind) for kind in ("Ready", "ContainersReady"))
    if ready is not None and ready.status == "False" and containers is not None and containers.status == "True":
        yield Evidence(reason=Reason.NODE_GONE, message=f"node {node} is gone, and pod {name} with it")
        return
    if pod.metadata.deletion_timestamp is not None:
        return
    scheduled = _condition(pod.status.conditions, "PodScheduled")
    if scheduled is not None and scheduled.status == "False" and scheduled.reason != "SchedulingGated":
        yield Evidence(reason=Reason.UNSCHEDULABLE, message=_words(scheduled.reason, scheduled.message))
    waits = None if scheduled is None else _age(scheduled.last_transition_time, now)
    late = waits is not None and waits > SLOW_HOST
    for container in pod.status.container_statuses:
        waiting = container.state.waiting
        if late and waiting is not None and waiting.reason in BEING_MADE:
            why = f"isn't made after {SLOW_HOST:.0f} s: its image is pulled, or a sandbox or a volume is waited for"
            words = f"container {container.name} of pod {name} {why}"
            yield Evidence(reason=Reason.NOT_READY_IN_TIME, message=words, next_step=POD_EVENTS)
        else:
            yield from _of_container(container, name, now)


def _of_container(container: ContainerStatus, pod: str, now: float) -> Iterator[Evidence]:
    waiting, ended = container.state.waiting, container.state.terminated or container.last_state.terminated
    if waiting is not None and waiting.reason in PULL:
        yield Evidence(
            reason=Reason.IMAGE_PULL_FAILED,
            message=f"image {container.image}: {_words(waiting.reason, waiting.message)}",
        )
    elif waiting is not None and waiting.reason in NOT_MADE:
        words = _words(waiting.reason, waiting.message)
        yield Evidence(reason=Reason.CONTAINER_REFUSED, message=f"container {container.name}: {words}")
    elif _too_slow(container, now):
        words = f"container {container.name} of pod {pod} runs and isn't ready after {SLOW_HOST:.0f} s"
        yield Evidence(reason=Reason.NOT_READY_IN_TIME, message=words)
    elif ended is not None and not container.ready:
        looping = waiting is not None and waiting.reason == "CrashLoopBackOff"
        if looping or container.restart_count >= CRASHES:
            reason = Reason.OUT_OF_MEMORY if _for_memory(ended) else Reason.CRASH_LOOP
            yield Evidence(reason=reason, message=f"container {container.name} of pod {pod}: {_how(ended)}")
    elif ended is not None and _recent(ended.finished_at, now):
        reason = Reason.HOST_OUT_OF_MEMORY if _for_memory(ended) else Reason.HOST_DIED
        yield Evidence(reason=reason, message=f"container {container.name} of pod {pod}: {_how(ended)}")


def _too_slow(container: ContainerStatus, now: float) -> bool:
    running = container.state.running
    age = None if running is None or container.ready else _age(running.started_at, now)
    return age is not None and age > SLOW_HOST


def _for_memory(ended: Terminated) -> bool:
    return ended.reason == "OOMKilled" or ended.exit_code == OUT_OF_MEMORY_EXIT


def _how(ended: Terminated) -> str:
    return f"ended with exit code {ended.exit_code}" + (f" ({ended.reason})" if ended.reason else "")


def _by_word(told: Condition) -> Evidence:
    words = _words(told.reason, told.message)
    if told.reason in BEING_MADE:  # nothing runs yet that could have printed anything
        return Evidence(reason=Reason.NOT_READY_IN_TIME, message=words, next_step=POD_EVENTS)
    text = words.lower()
    if any(word in text for word in ("image", "pull", "manifest unknown", "resolvingdigest")):
        return Evidence(reason=Reason.IMAGE_PULL_FAILED, message=words)
    if "unschedulable" in text or "insufficient" in text:
        return Evidence(reason=Reason.UNSCHEDULABLE, message=words)
    if "oomkilled" in text:
        return Evidence(reason=Reason.OUT_OF_MEMORY, message=words)
    crashed = "exitcode" in text or "crashloop" in text
    return Evidence(reason=Reason.CRASH_LOOP if crashed else Reason.NOT_READY_IN_TIME, message=words)


def _condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    return next((one for one in conditions if one.type == kind), None)


def _words(reason: str, message: str) -> str:
    return f"{reason}: {message}" if reason and message else reason or message or "without a reason"


def _ended_at(pod: Pod) -> str | None:
    ends = [one.state.terminated.finished_at for one in pod.status.container_statuses if one.state.terminated]
    known = [one for one in ends if one is not None]
    times = known or [one.last_transition_time for one in pod.status.conditions if one.last_transition_time]
    return max(times, default=None)


def _recent(moment: str | None, now: float) -> bool:
    age = _age(moment, now)
    return age is None or age < RECENT


def _age(moment: str | None, now: float) -> float | None:
    if moment is None:
        return None
    try:
        return now - datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
