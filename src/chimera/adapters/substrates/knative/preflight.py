"""What an installation needs of a cluster and what its warm pools cost, before anything is applied.

A pure rule over what was read: Knative's version and its feature flags, and what nodes give. Each finding has a next
step. What can't be read isn't guessed: it is a finding of its own where Knative isn't there, and passed over where
somebody may not look.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import Struct

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterDenied, NotInCluster
from chimera.adapters.substrates.knative.objects import Condition, Meta, Resource
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import STANDARD
from chimera.platform.errors import PlatformError
from chimera.platform.sizing import AGENT_NODE, GIB, Request, Standing, pod_request, standing

SERVING = "knative-serving"
VERSION = "app.kubernetes.io/version"
HEEDS_REVISIONS = (1, 21)
"""The release of Knative from which a revision's own minimum counts (knative/serving#16186)."""
OLDEST = (1, 11)
FLAGS = {
    "runtime_class": "kubernetes.podspec-runtimeclassname",
    "priority_class": "kubernetes.podspec-priorityclassname",
    "spread": "kubernetes.podspec-topologyspreadconstraints",
}
"""Settings that Knative takes only with a flag of its config-features on, which is off by default."""
SCRATCH = "kubernetes.podspec-volumes-emptydir"
ZERO_SCALE = "allow-zero-initial-scale"
ON = ("enabled", "allowed", "true")
SIZE = "^[0-9]+(\\.[0-9]+)?([kMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$"
"""A size as Kubernetes takes it, but for thousandths of a byte."""


class NotFit(PlatformError):
    """The cluster lacks what the installation needs."""

    code = "cluster-not-fit"
    status = 409
    title = "The cluster lacks what this installation needs"


class ConfigMap(Struct, frozen=True, kw_only=True):
    """Settings of something in a cluster."""

    metadata: Meta = Meta()
    data: dict[str, str] = {}


class _NodeSpec(Struct, frozen=True, kw_only=True):
    unschedulable: bool = False


class _NodeStatus(Struct, frozen=True, kw_only=True):
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []


class Node(Struct, frozen=True, kw_only=True):
    """A node, as far as pods ask."""

    metadata: Meta = Meta()
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", ConfigMap)
NODES = Resource("", "v1", "nodes", "Node", Node, namespaced=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What one node gives to pods."""

    cpu_millicores: int
    memory_bytes: int
    pods: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was read of a cluster; None where it may not be read."""

    serving: bool = True
    version: tuple[int, int] | None = None
    features: Mapping[str, str] | None = None
    autoscaler: Mapping[str, str] | None = None
    nodes: Sequence[Room] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that the installation needs and doesn't find."""

    what: str
    next_step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Warmth:
    """A warm pool's cost: of one agent type, and of all that may be kept; and how many such pods the nodes hold."""

    one: Standing
    most: Standing
    fit: int | None


async def look(api: Kubernetes) -> Seen:
    """Read a cluster."""
    seen = Seen()
    try:
        features = await api.get(CONFIG_MAPS, SERVING, "config-features")
        autoscaler = await api.get(CONFIG_MAPS, SERVING, "config-autoscaler")
        version = release(features.metadata.labels.get(VERSION, ""))
        seen = replace(seen, version=version, features=features.data, autoscaler=autoscaler.data)
    except NotInCluster:
        seen = replace(seen, serving=False)
    except ClusterDenied:
        pass  # whoever installs into two namespaces may not look into a third
    try:
        nodes = (await api.list(NODES, None)).items
        seen = replace(seen, nodes=[room for one in nodes if (room := _room(one)) is not None])
    except ClusterDenied:
        pass
    return seen


def findings(settings: KnativeSettings, seen: Seen) -> list[Finding]:
    """What is missing in the cluster."""
    if not seen.serving:
        return [Finding(what="Knative Serving is not in the cluster", next_step="install it first, with an ingress")]
    found = [*_features(settings, seen), *_release(settings, seen)]
    warm = warmth(settings, seen)
    if warm.fit is not None and warm.fit < settings.warm_pool:
        found.append(
            Finding(
                what=f"the warm pool of one agent type is {settings.warm_pool} pods, and all nodes together have room "
                f"for {warm.fit} such pods, were nothing else on them",
                next_step=f"give `--warm-pool 0`, or up to {warm.fit}; add nodes; or say `--yes` where nodes are added "
                "by themselves",
            )
        )
    return found


def warmth(settings: KnativeSettings, seen: Seen) -> Warmth:
    """What warm pools cost with these settings."""
    request = pod_request(STANDARD, settings.request_share)
    most = settings.most_kept if settings.warm_pool else 0
    return Warmth(
        one=standing([(request, settings.warm_pool)]),
        most=standing([(request, most)]),
        fit=None if seen.nodes is None else sum(_fit(room, request) for room in seen.nodes),
    )


def told(settings: KnativeSettings, seen: Seen) -> list[str]:
    """The same for people."""
    warm = warmth(settings, seen)
    if not settings.warm_pool:
        return ["warm pool: none; a pod that wakes imports its framework first"]
    lines = [
        f"warm pool: {settings.warm_pool} pods (`knative.warm_pool`) for each agent type in use",
        f"  one type:    {_cost(warm.one)}",
        f"  all at most: {_cost(warm.most)} (`knative.most_kept`)",
    ]
    if warm.fit is not None and seen.nodes is not None:
        nodes = "one node" if len(seen.nodes) == 1 else f"{len(seen.nodes)} nodes"
        lines.append(f"  the cluster: room for {warm.fit} such pods on {nodes}, were nothing else there")
    return lines


def _cost(standing: Standing) -> str:
    return (
        f"{standing.pods:,} pods request {standing.cpu_millicores / 1000:,.1f} cores and "
        f"{standing.memory_bytes / GIB:,.1f} GiB: {standing.nodes:,.1f} {AGENT_NODE.name} nodes, "
        f"about ${standing.usd_per_month:,.0f} a month at list prices"
    )


def _features(settings: KnativeSettings, seen: Seen) -> list[Finding]:
    if seen.features is None:
        return []
    wanted = [(name, flag) for name, flag in FLAGS.items() if getattr(settings, name)]
    found = [
        Finding(
            what=f"the setting knative.{name} needs `{flag}`, which is off in Knative's config-features",
            next_step=f'kubectl -n {SERVING} patch configmap config-features -p \'{{"data":{{"{flag}":"enabled"}}}}\'',
        )
        for name, flag in wanted
        if seen.features.get(flag, "disabled").lower() not in ON
    ]
    if seen.features.get(SCRATCH, "enabled").lower() not in ON:
        found.append(
            Finding(
                what=f"hosts write into a volume, and `{SCRATCH}` is off in config-features", next_step="turn it on"
            )
        )
    zero = (seen.autoscaler or {}).get(ZERO_SCALE, "false").lower() in ON
    if settings.initial_scale == 0 and not zero:
        found.append(
            Finding(
                what=f"the setting knative.initial_scale is 0, and `{ZERO_SCALE}` is off in config-autoscaler",
                next_step="turn it on, or leave the setting at 1",
            )
        )
    return found


def _release(settings: KnativeSettings, seen: Seen) -> list[Finding]:
    if seen.version is None:
        return []
    shown = ".".join(map(str, seen.version))
    if seen.version < OLDEST:
        return [Finding(what=f"Knative Serving is {shown}, and 1.11 is the oldest", next_step="bring it up to date")]
    if seen.version < HEEDS_REVISIONS and settings.warm_pool and not settings.warm_in_template:
        return [
            Finding(
                what=f"Knative Serving is {shown}, which heeds warm pools by templates alone",
                next_step="set knative.warm_in_template, or give `--warm-pool 0`",
            )
        ]
    return []


def release(text: str) -> tuple[int, int] | None:
    """`1.21.0` or `v1.21` as numbers; None for what is neither."""
    found = re.match(r"v?(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))


def quantity(text: str) -> float:
    """A quantity as Kubernetes writes it: `250m`, `4`, `16Gi`, `16393236Ki`, `1e3`."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    binary = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
    for suffix, factor in (*binary.items(), *units.items()):
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def _room(node: Node) -> Room | None:
    ready = any(one.type == "Ready" and one.status == "True" for one in node.status.conditions)
    if node.spec.unschedulable or not ready:
        return None
    given = node.status.allocatable
    return Room(
        cpu_millicores=int(quantity(given.get("cpu", "0")) * 1000),
        memory_bytes=int(quantity(given.get("memory", "0"))),
        pods=int(quantity(given.get("pods", "0"))),
    )


def _fit(room: Room, request: Request) -> int:
    return min(
        room.cpu_millicores // max(1, request.cpu_millicores),
        room.memory_bytes // max(1, request.memory_bytes),
        room.pods,
    )
