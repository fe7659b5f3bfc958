"""A cell as a Knative Service: a pure rule from `CellSpec` and settings to a manifest.

What isn't obvious:

- `containerConcurrency: 0`. A host bounds its calls itself, and the gateway knows that bound; a queue in queue-proxy
  would hold calls where nobody sees them.
- The idle time-out is Knative's stable window and pod retention together, so a cell sleeps as late as on one machine.
- Knative makes `timeoutSeconds` the pod's termination grace as well. A host's drain ends before it, so the last link
  of the chain of deadlines (`deadlines.termination_grace`) is the request time-out here.
- Memory has a limit, CPU a request alone: a CPU limit would withhold an idle core. The host's own bound is a tenth
  below the limit, so that it ends with its culprit named before the kernel ends it without.
- A pod has no credential of the cluster. What it shows the gateway is a token for that audience alone, which the
  gateway has reviewed and exchanges for a host's token and key (`gateway` of this package).
- The digest of everything stands in an annotation. Whether a cell must be applied is one comparison of it.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES
from chimera.adapters.substrates.knative.rollout import Share
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.compile import CanonicalDefinition
from chimera.platform.cells import cell_spec
from chimera.platform.errors import PlatformError
from chimera.platform.model import NODE_HEAP_SHARE, CellSpec, ResourceClass
from chimera.platform.sizing import host_request

Json = dict[str, Any]

IDENTITY_FOLDER = "/var/run/secrets/chimera"
IDENTITY_FILE = f"{IDENTITY_FOLDER}/token"
IDENTITY_LIFE = 3_600
WORK_FOLDER = "/work"
OWN_BOUND = 0.9
"""Share of a pod's memory limit at which its host gives up by itself."""
DRAIN_MARGIN = 5.0
LONGEST_RETENTION = 3_600.0
"""Knative's own bound of pod retention."""
LIVENESS_DELAY = 60
"""Seconds that a host may take to import its framework before anybody asks whether it lives."""


ROLLOUT = (names.DIGEST, names.INITIAL_SCALE, names.ATTEMPT, names.FAILED)
"""Annotations that say nothing of the cell."""


class NotRunnable(PlatformError):
    """The cell can't be run on Knative as it is."""

    code = "cell-not-runnable"
    status = 422
    title = "The cell can't run here"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostBounds:
    """The bounds of a host's calls, which are the gateway's settings: `DeadlineSettings`, and what one host takes."""

    request_timeout: float = 590.0
    platform_timeout: float = 600.0
    stream_idle: float = 120.0
    concurrency: int = 100


def render(cell: CellSpec, settings: KnativeSettings, bounds: HostBounds) -> Json:
    """The Knative Service of `cell`; raises `NotRunnable` with what to do."""
    name = names.service_name(cell.cell, cell.runtime_class.framework)
    labels = _labels(cell)
    manifest: Json = {
        "apiVersion": KNATIVE_SERVICES.api_version,
        "kind": KNATIVE_SERVICES.kind,
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            # Only the gateway calls cells: no ingress from outside the cluster.
            "labels": {**labels, **_function(cell), "networking.knative.dev/visibility": "cluster-local"},
            "annotations": {names.CELL: cell.cell},
        },
        "spec": {
            "template": {
                "metadata": {"labels": labels, "annotations": {names.CELL: cell.cell, **_scaling(cell, settings)}},
                "spec": _revision(cell, settings, bounds),
            },
            "traffic": [{"latestRevision": True, "percent": 100}],
        },
    }
    said = digest(manifest)
    for meta in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
        meta["annotations"][names.DIGEST] = said
    return manifest


def pod_manifest(value: CanonicalDefinition, settings: KnativeSettings, bounds: HostBounds) -> Json | None:
    """The Knative Service of an agent's cell, to be looked at; None where no pod can ever run it."""
    try:
        return render(cell_spec(value, max_hosts=settings.max_hosts), settings, bounds)
    except NotRunnable:
        return None


def digest(manifest: Json) -> str:
    """What a manifest says, in 32 digits, but for what a rollout decides (`carrying`)."""
    bare = copy.deepcopy(manifest)
    del bare["spec"]["traffic"]
    for meta in (bare["metadata"], bare["spec"]["template"]["metadata"]):
        for name in ROLLOUT:
            meta["annotations"].pop(name, None)
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:32]


def carrying(manifest: Json, traffic: Sequence[Share], *, initial: int = 1, attempt: int = 1, failed: str = "") -> Json:
    """`manifest` with what a rollout decided: who gets calls, and how many pods a new revision begins with."""
    made = copy.deepcopy(manifest)
    made["spec"]["traffic"] = [_share(one) for one in traffic]
    annotations = made["spec"]["template"]["metadata"]["annotations"]
    annotations[names.INITIAL_SCALE] = str(initial)
    if attempt > 1:
        annotations[names.ATTEMPT] = str(attempt)
    if failed:
        made["metadata"]["annotations"][names.FAILED] = failed
    return made


def _share(share: Share) -> Json:
    made: Json = {"revisionName": share.revision} if share.revision else {"latestRevision": True}
    return {**made, "percent": share.percent, **({"tag": share.tag} if share.tag else {})}


def image_of(cell: CellSpec, settings: KnativeSettings) -> str:
    """The image of a cell's hosts."""
    runtime = cell.runtime_class
    if runtime.image is not None:
        return runtime.image
    if runtime.requirements is not None:
        raise NotRunnable(
            f"cell {cell.cell} needs a requirements file of its own ({runtime.requirements[:19]}), which no host image "
            "holds, and a pod installs nothing",
            next_step="build an image from the host's and name it as the agent's `runtime`",
        )
    if runtime.runtime == "node":
        return settings.node_image
    return settings.image.replace("{framework}", runtime.framework)


def _function(cell: CellSpec) -> dict[str, str]:
    """What `func list` finds functions by, and shows of them: cells of agents without a framework are functions."""
    runtime = cell.runtime_class
    if runtime.framework != "function":
        return {}
    shown = {"image": "custom"}.get(runtime.runtime, runtime.runtime)
    name = names.service_name(cell.cell, runtime.framework)
    return {names.FUNCTION: "true", names.FUNCTION + "/name": name, names.FUNCTION + "/runtime": shown}


def _labels(cell: CellSpec) -> dict[str, str]:
    runtime = cell.runtime_class
    return {
        names.MANAGED_BY: names.MANAGER,
        "app.kubernetes.io/name": "chimera-host",
        "app.kubernetes.io/component": "cell",
        names.PREFIX + "framework": runtime.framework,
        names.PREFIX + "tenant": runtime.tenant,
        names.PREFIX + "resources": runtime.resources.name,
    }


def scale(cell: CellSpec, settings: KnativeSettings) -> tuple[int, int]:
    """The fewest and the most pods of a cell."""
    most = max(1, min(cell.max_hosts, settings.max_hosts))
    return min(cell.min_hosts, most), most


def _scaling(cell: CellSpec, settings: KnativeSettings) -> dict[str, str]:
    least, most = scale(cell, settings)
    prefix = names.AUTOSCALING
    retention = min(LONGEST_RETENTION, max(0.0, cell.idle_timeout - settings.window))
    return {
        prefix + "class": "kpa.autoscaling.knative.dev",
        prefix + "metric": "concurrency",
        prefix + "target": _number(cell.target),
        prefix + "target-utilization-percentage": _number(settings.utilisation),
        prefix + "target-burst-capacity": str(settings.burst_capacity),
        prefix + "window": _seconds(settings.window),
        prefix + "scale-to-zero-pod-retention-period": _seconds(retention),
        names.MIN_SCALE: str(least),
        prefix + "max-scale": str(most),
        # A minimum above it is met before calls go to the revision, too.
        names.INITIAL_SCALE: str(min(settings.initial_scale, most)),
        "serving.knative.dev/progress-deadline": _seconds(settings.start_timeout),
    }


def _revision(cell: CellSpec, settings: KnativeSettings, bounds: HostBounds) -> Json:
    spec: Json = {
        "containerConcurrency": 0,
        "timeoutSeconds": math.ceil(bounds.platform_timeout),
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(cell, settings, bounds)],
        "volumes": [
            {"name": "work", "emptyDir": {"sizeLimit": str(settings.scratch_bytes)}},
            {"name": "identity", "projected": {"sources": [{"serviceAccountToken": _token(settings)}]}},
        ],
    }
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if settings.runtime_class:
        spec["runtimeClassName"] = settings.runtime_class
    if settings.priority_class:
        spec["priorityClassName"] = settings.priority_class
    if settings.spread:
        zones, nodes = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
        spec["topologySpreadConstraints"] = [_spread(cell, key) for key in (zones, nodes)]
    return spec


def _spread(cell: CellSpec, key: str) -> Json:
    name = names.service_name(cell.cell, cell.runtime_class.framework)
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {names.KNATIVE_SERVICE: name}},
    }


def _token(settings: KnativeSettings) -> Json:
    return {"audience": settings.audience, "expirationSeconds": IDENTITY_LIFE, "path": "token"}


def _container(cell: CellSpec, settings: KnativeSettings, bounds: HostBounds) -> Json:
    return {
        "name": "host",
        "image": image_of(cell, settings),
        "env": [{"name": name, "value": value} for name, value in _environment(cell, settings, bounds).items()],
        "ports": [{"name": "http1", "containerPort": 8080}],
        "resources": _resources(cell.runtime_class.resources, settings),
        # Without a period: queue-proxy then asks many times a second until the host is ready, and Kubernetes asks it.
        "readinessProbe": {"httpGet": {"path": "/readyz"}, "successThreshold": 1},
        "livenessProbe": {
            "httpGet": {"path": "/livez"},
            "initialDelaySeconds": LIVENESS_DELAY,
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "work", "mountPath": WORK_FOLDER},
            {"name": "identity", "mountPath": IDENTITY_FOLDER, "readOnly": True},
        ],
    }


def _environment(cell: CellSpec, settings: KnativeSettings, bounds: HostBounds) -> dict[str, str]:
    """`chimera_host.config.HostConfig`, as a host reads it from its environment."""
    resources = cell.runtime_class.resources
    own_bound = int(resources.memory_bytes * OWN_BOUND)
    node = {"NODE_OPTIONS": f"--max-old-space-size={int(own_bound * NODE_HEAP_SHARE) >> 20}"}
    return {
        "CHIMERA_CELL": cell.cell,
        "CHIMERA_FRAMEWORK": cell.runtime_class.framework,
        "CHIMERA_PLATFORM_URL": settings.platform_url,
        "CHIMERA_IDENTITY_FILE": IDENTITY_FILE,
        "CHIMERA_WORK_DIR": WORK_FOLDER,
        "CHIMERA_MEMORY_BYTES": str(own_bound),
        "CHIMERA_OPEN_FILES": str(resources.open_files),
        "CHIMERA_CONCURRENCY": str(bounds.concurrency),
        "CHIMERA_THREADS": str(settings.threads),
        "CHIMERA_IDLE_UNLOAD": _number(cell.idle_timeout),
        "CHIMERA_REQUEST_TIMEOUT": _number(bounds.request_timeout),
        "CHIMERA_STREAM_IDLE": _number(bounds.stream_idle),
        "CHIMERA_DRAIN": _number(min(bounds.request_timeout + DRAIN_MARGIN, bounds.platform_timeout - DRAIN_MARGIN)),
        "HOME": WORK_FOLDER,
        "TMPDIR": WORK_FOLDER,
        **(node if cell.runtime_class.runtime == "node" else {}),
    }


def _resources(resources: ResourceClass, settings: KnativeSettings) -> Json:
    request = host_request(resources, settings.request_share)
    return {
        "requests": {"cpu": f"{request.cpu_millicores}m", "memory": str(request.memory_bytes)},
        "limits": {"memory": str(resources.memory_bytes)},
    }


def _number(value: float) -> str:
    return f"{value:g}"


def _seconds(value: float) -> str:
    return f"{math.ceil(value)}s"
