"""Pods as people are shown them: what of a pod's state is read, and the rules from it to rows, pure.

`objects.Pod` is what calls need of a pod, and watches bring it by the thousand; this is what somebody looks at, on
demand.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct, field

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import Condition, KnativeService, Meta, Resource
from chimera.adapters.substrates.knative.plan import troubles
from chimera.agents import quantities
from chimera.platform.model import CellSpec
from chimera.platform.report import CellRow, HostRow, IncidentRow
from chimera_host.contract.call import LoadedReport

CONTAINER = "host"
STARTING, READY, DRAINING, ENDED = "starting", "ready", "draining", "ended"
ON_ITS_WAY = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Reasons for which a container waits when nothing is wrong."""
TOGETHER = 30.0
"""Calls that broke so many seconds around a host's end broke with it."""


class PodMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """What a pod says of itself, and since when it is there."""

    creation_timestamp: str = ""


class Waiting(Struct, frozen=True, kw_only=True):
    """Why a container doesn't run yet."""

    reason: str = ""
    message: str = ""


class Terminated(Struct, frozen=True, kw_only=True, rename="camel"):
    """How a container ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str | None = None


class State(Struct, frozen=True, kw_only=True):
    """A container's state; at most one is there."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A container as observed."""

    name: str = ""
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class PodStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod as observed."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = field(default="", name="podIP")
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []


class Resources(Struct, frozen=True, kw_only=True):
    """What a container may use."""

    limits: dict[str, str] = {}


class Container(Struct, frozen=True, kw_only=True):
    """A container as wanted."""

    name: str = ""
    resources: Resources = Resources()


class PodSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod as wanted, and the node that it was given to."""

    node_name: str = ""
    containers: list[Container] = []


class SeenPod(Struct, frozen=True, kw_only=True):
    """A pod."""

    metadata: PodMeta = PodMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def cell(self) -> str:
        """The cell that it is a host of."""
        return self.metadata.annotations.get(names.CELL, "")

    @property
    def component(self) -> str:
        """The component of the platform that it is a process of."""
        return self.metadata.labels.get("app.kubernetes.io/component", "")


class RevisionStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """How many pods the autoscaler wants of a revision."""

    desired_replicas: int | None = None


class Revision(Struct, frozen=True, kw_only=True):
    """A Knative Revision."""

    metadata: Meta = Meta()
    status: RevisionStatus = RevisionStatus()


class ContainerUse(Struct, frozen=True, kw_only=True):
    """What a container uses, as quantities."""

    usage: dict[str, str] = {}


class PodUse(Struct, frozen=True, kw_only=True):
    """What a pod uses, as the metrics API says it."""

    metadata: Meta = Meta()
    containers: list[ContainerUse] = []


POD_USES = Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", PodUse)
SEEN_PODS = Resource("", "v1", "pods", "Pod", SeenPod)
REVISIONS = Resource("serving.knative.dev", "v1", "revisions", "Revision", Revision)


class BrokenCall(NamedTuple):
    """A call that broke with its host, as this gateway saw it; `at` is a wall time."""

    at: float
    host: str
    cell: str
    agent: str


def phase(pod: SeenPod) -> str:
    """Where a host is in its life."""
    if pod.status.phase in ("Failed", "Succeeded"):
        return ENDED
    if pod.metadata.deletion_timestamp is not None:
        return DRAINING
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)
    return READY if ready else STARTING


def trouble(pod: SeenPod) -> str | None:
    """Why a pod doesn't work, where it is more than being on its way."""
    for one in pod.status.conditions:
        if one.type == "PodScheduled" and one.status == "False":
            return _said(one.reason, one.message)
    for status in pod.status.container_statuses:
        waiting = status.state.waiting
        if waiting is not None and waiting.reason not in ON_ITS_WAY:
            return _said(waiting.reason, waiting.message)
    return None


def host_row(pod: SeenPod, told: LoadedReport | None, now: float) -> HostRow:
    """A pod as a host, and what it said of itself."""
    limits = next((one.resources.limits for one in pod.spec.containers if one.name == CONTAINER), {})
    row = HostRow(
        host=pod.metadata.name,
        cell=pod.cell,
        phase=phase(pod),
        seconds=round(max(0.0, now - moment(pod.metadata.creation_timestamp, now)), 1),
        resident_bytes=told.resident_bytes if told is not None else None,
        limit_bytes=_bytes(limits.get("memory", "0")),
        unhealthy=trouble(pod),
        node=pod.spec.node_name or None,
    )
    return row.told(told) if told is not None else row


def cell_row(
    service: KnativeService, spec: CellSpec | None, hosts: Iterable[HostRow], *, wanted: int, waiting: int
) -> CellRow:
    """A Knative Service as a cell; `hosts` are its pods, `wanted` what the autoscaler wants of them."""
    meta, mine = service.metadata, list(hosts)
    conditions = ((one.type, one.status, one.reason, one.message) for one in service.status.conditions)
    found = troubles(conditions) if service.status.observed_generation == meta.generation else None
    there = [host for host in mine if host.phase in (STARTING, READY)]
    ready = sum(host.phase == READY for host in there)
    ill = next((f"{host.host}: {host.unhealthy}" for host in there if host.unhealthy is not None), None)
    return CellRow(
        cell=meta.annotations.get(names.CELL, meta.name),
        tenant=meta.labels.get(names.PREFIX + "tenant", ""),
        framework=meta.labels.get(names.PREFIX + "framework", ""),
        isolation=spec.runtime_class.isolation if spec is not None else "",
        hosts=len(mine),
        ready=ready,
        wanted=wanted,
        reason=_reason(ready, len(there), wanted),
        in_flight=float(sum(host.in_flight or 0 for host in mine)),
        waiting=waiting,
        error=found[0] if found is not None else ill,
    )


def _reason(ready: int, there: int, wanted: int) -> str:
    if ready < wanted:
        return "hosts are starting"
    if there > wanted:
        return "hosts are taken away"
    return "as Knative's autoscaler wants it" if wanted else "asleep"


def incident_rows(pods: Iterable[SeenPod], broken: Iterable[BrokenCall], now: float) -> list[IncidentRow]:
    """Hosts that ended unexpectedly, the newest first: what their pods say, and whose calls broke with them.

    No agent is named as the one that did it: other gateways may have had calls there, too.
    """
    left = list(broken)
    found: list[IncidentRow] = []
    for pod in pods:
        for at, cause in _ends(pod, now):
            with_it = [one for one in left if one.host == pod.metadata.name and abs(one.at - at) <= TOGETHER]
            left = [one for one in left if one not in with_it]
            found.append(_incident(pod.metadata.name, pod.cell, cause, at, with_it, now))
    alone: dict[str, list[BrokenCall]] = {}
    for one in left:
        alone.setdefault(one.host, []).append(one)
    for host, calls in alone.items():
        newest = max(calls, key=lambda call: call.at)
        found.append(_incident(host, newest.cell, "calls to it broke", newest.at, calls, now))
    return sorted(found, key=lambda row: (row.seconds_ago, row.host))


def _incident(host: str, cell: str, cause: str, at: float, calls: Iterable[BrokenCall], now: float) -> IncidentRow:
    suspects = tuple(sorted({call.agent for call in calls}))
    ago = round(max(0.0, now - at), 1)
    return IncidentRow(seconds_ago=ago, host=host, cell=cell, cause=cause, agent=None, suspects=suspects)


def _ends(pod: SeenPod, now: float) -> list[tuple[float, str]]:
    if pod.status.phase == "Failed" and pod.status.reason:  # evicted, or its node was shut down
        ended = [one.state.terminated for one in pod.status.container_statuses if one.state.terminated is not None]
        at = max((moment(one.finished_at, now) for one in ended), default=now)
        return [(at, _said(pod.status.reason, pod.status.message))]
    found: list[tuple[float, str]] = []
    for status in pod.status.container_statuses:
        states = (status.last_state, status.state if pod.metadata.deletion_timestamp is None else State())
        for state in states if status.name == CONTAINER else ():
            one = state.terminated
            if one is not None and (one.exit_code != 0 or one.reason == "OOMKilled"):
                cause = f"exit code {one.exit_code}" + (f", {one.reason}" if one.reason not in ("", "Error") else "")
                found.append((moment(one.finished_at, now), f"{cause}: {one.message}" if one.message else cause))
    return found


def desired(revisions: Iterable[Revision]) -> Mapping[str, int]:
    """How many pods are wanted, by Knative Service: of all its revisions together."""
    found: dict[str, int] = {}
    for one in revisions:
        name = one.metadata.labels.get(names.KNATIVE_SERVICE, "")
        found[name] = found.get(name, 0) + max(0, one.status.desired_replicas or 0)
    return found


def moment(text: str | None, otherwise: float) -> float:
    """A time of the API as seconds since 1970."""
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return otherwise


def _bytes(text: str) -> int:
    try:
        return quantities.size(text)
    except ValueError:
        return 0


def _said(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


def used(use: PodUse) -> tuple[float, int]:
    """The cores and the bytes that all containers of a pod use."""
    cores = sum(_cores(one.usage.get("cpu", "0")) for one in use.containers)
    return round(cores, 3), sum(quantities.size(one.usage.get("memory", "0")) for one in use.containers)


def _cores(text: str) -> float:
    """`12345678n` is 0.012345678: CPU comes in billionths, where it is little."""
    parts = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
    return float(text[:-1]) * parts[text[-1]] if text[-1:] in parts else float(text)
