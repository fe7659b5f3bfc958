"""The words of conditions: their types, and each reason with its meaning, what to do, and when to ask again.

One list for both homes. `docs/reference/conditions.md` is made from it.
"""

from dataclasses import dataclass
from enum import Enum


class Aspect(Enum):
    """The type of a condition."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    REACHABLE = "Reachable"
    STARTABLE = "Startable"
    HEALTHY = "Healthy"
    CONNECTED = "Connected"


ASPECTS = {
    Aspect.READY: "The cell takes calls, or will when it is woken: what follows from the next three.",
    Aspect.ACCEPTED: "The home has taken the cell as it is wanted. Where it hasn't, what it took before goes on.",
    Aspect.REACHABLE: "Calls find their way to the cell, and wake it where it sleeps.",
    Aspect.STARTABLE: "Hosts of the cell start.",
    Aspect.HEALTHY: "No host of the cell was lost in the last ten minutes. A cell that isn't is replaced and goes on.",
    Aspect.CONNECTED: "The control plane sees the home. This one is of the home, not of a cell.",
}


class Reason(Enum):
    """Why a condition is as it is. Of several for one aspect the one that stands first here is told."""

    # Accepted
    NOT_RUNNABLE = "NotRunnable"
    TOO_MANY_CELLS = "TooManyCells"
    KNATIVE_MISSING = "KnativeMissing"
    KNATIVE_TOO_OLD = "KnativeTooOld"
    NAMESPACE_GONE = "NamespaceGone"
    PERMISSION_DENIED = "PermissionDenied"
    OBJECT_REFUSED = "ObjectRefused"
    WEBHOOK_DOWN = "WebhookDown"
    CONFLICT = "Conflict"
    ROLLOUT_FAILED = "RolloutFailed"
    HOME_THROTTLED = "HomeThrottled"
    HOME_AWAY = "HomeAway"
    # Reachable
    CONTROLLER_SILENT = "ControllerSilent"
    INGRESS_NOT_READY = "IngressNotReady"
    # Startable
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_REFUSED = "PodRefused"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    RUNTIME_MISSING = "RuntimeMissing"
    UNSCHEDULABLE = "Unschedulable"
    CONTAINER_REFUSED = "ContainerRefused"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOP = "CrashLoop"
    NOT_READY_IN_TIME = "NotReadyInTime"
    HOST_NOT_STARTED = "HostNotStarted"
    # Healthy
    NODE_GONE = "NodeGone"
    HOST_EVICTED = "HostEvicted"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    HOST_DIED = "HostDied"
    # Connected
    CREDENTIALS_REFUSED = "CredentialsRefused"
    CLOCK_SKEWED = "ClockSkewed"
    # What is good, or not known yet
    AS_WANTED = "AsWanted"
    IN_PROGRESS = "InProgress"


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What a reason means and what to do about it.

    `retry_after` is when a caller may ask again. `patience` is for how many seconds a caller waits on although this is
    known, since it often passes by itself in that time.
    """

    aspect: Aspect
    text: str
    next_step: str = ""
    retry_after: float = 30.0
    patience: float = 0.0


POD_EVENTS = "`kubectl describe pod` in the namespace of cells has the events"
MEANINGS: dict[Reason, Meaning] = {
    Reason.NOT_RUNNABLE: Meaning(
        aspect=Aspect.ACCEPTED,
        text="This home can't run the cell as its agents define it.",
        next_step="change the definition as the message says",
        retry_after=300.0,
    ),
    Reason.TOO_MANY_CELLS: Meaning(
        aspect=Aspect.ACCEPTED,
        text="There are as many cells as are allowed.",
        next_step="let owners of code share a team, use `isolation: shared`, or raise `knative.most_cells`",
        retry_after=300.0,
    ),
    Reason.KNATIVE_MISSING: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The cluster has no Knative Serving, or its custom resource definitions are gone.",
        next_step="install Knative Serving; cells follow by themselves",
        retry_after=60.0,
    ),
    Reason.KNATIVE_TOO_OLD: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The cluster's Knative doesn't know a field that cells need.",
        next_step="run Knative Serving 1.11 or newer",
        retry_after=300.0,
    ),
    Reason.NAMESPACE_GONE: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The namespace of cells is gone, or is being deleted.",
        next_step="`chimera install --substrate knative` makes it again; cells follow by themselves",
        retry_after=60.0,
    ),
    Reason.PERMISSION_DENIED: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The control plane's service account may not do that.",
        next_step="grant it: `chimera install --dry-run -o yaml` prints the roles",
        retry_after=60.0,
    ),
    Reason.OBJECT_REFUSED: Meaning(
        aspect=Aspect.ACCEPTED,
        text="An admission webhook or a policy of the cluster refuses the cell's Knative Service.",
        next_step="the message names the field, or the webhook that refused it",
        retry_after=60.0,
    ),
    Reason.WEBHOOK_DOWN: Meaning(
        aspect=Aspect.ACCEPTED,
        text="A webhook that the API server must ask does not answer.",
        next_step="see whether the webhook that the message names runs; Knative's are in `knative-serving`",
        retry_after=15.0,
    ),
    Reason.CONFLICT: Meaning(
        aspect=Aspect.ACCEPTED,
        text="Somebody else changes the same object.",
        next_step="it is tried again by itself; `kubectl get ksvc --show-managed-fields` says who it is",
        retry_after=5.0,
    ),
    Reason.ROLLOUT_FAILED: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The cell's new revision doesn't come, or was given up. What served before goes on.",
        next_step="mend what the message says, or change it back; it is tried again by itself",
    ),
    Reason.HOME_THROTTLED: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The API server asks to slow down.",
        next_step="it is asked again by itself, no sooner than it says",
        retry_after=10.0,
    ),
    Reason.HOME_AWAY: Meaning(
        aspect=Aspect.ACCEPTED,
        text="The API server, or the node agent, does not answer.",
        next_step="see whether it is there (`kubectl get --raw /readyz`, `chimera status`); running hosts go on",
        retry_after=10.0,
    ),
    Reason.CONTROLLER_SILENT: Meaning(
        aspect=Aspect.REACHABLE,
        text="Knative has not looked at the cell's Service for a minute.",
        next_step="see whether Knative's controllers run: `kubectl -n knative-serving get pods`",
        retry_after=15.0,
    ),
    Reason.INGRESS_NOT_READY: Meaning(
        aspect=Aspect.REACHABLE,
        text="Knative's ingress has no way to the cell's Service. Running hosts are called all the same; a sleeping "
        "cell can't be woken.",
        next_step="see whether the ingress (such as Kourier) runs; `kubectl describe ksvc` has its words",
        retry_after=15.0,
        patience=15.0,
    ),
    Reason.QUOTA_EXCEEDED: Meaning(
        aspect=Aspect.STARTABLE,
        text="The namespace's ResourceQuota has no room.",
        next_step="raise the ResourceQuota, or lower what cells may use (`knative.max_hosts`, `knative.request_share`)",
        retry_after=30.0,
    ),
    Reason.POD_REFUSED: Meaning(
        aspect=Aspect.STARTABLE,
        text="The cluster refuses the cell's pods: a pod security standard, a limit range, a webhook.",
        next_step="the message names what refuses them; the namespace of cells needs the standard `restricted`",
        retry_after=60.0,
    ),
    Reason.IMAGE_PULL_FAILED: Meaning(
        aspect=Aspect.STARTABLE,
        text="The image of hosts can't be pulled.",
        next_step="see whether the image is there (`knative.image`) and may be pulled (`knative.pull_secrets`)",
        retry_after=30.0,
    ),
    Reason.RUNTIME_MISSING: Meaning(
        aspect=Aspect.STARTABLE,
        text="The framework's environment is not installed on this machine.",
        next_step="install it: `chimera runtime install FRAMEWORK`",
        retry_after=60.0,
    ),
    Reason.UNSCHEDULABLE: Meaning(
        aspect=Aspect.STARTABLE,
        text="No node has room for the cell's pods.",
        next_step="add a node or let the autoscaler add one, uncordon one, or lower `knative.request_share`",
        retry_after=30.0,
        patience=5.0,
    ),
    Reason.CONTAINER_REFUSED: Meaning(
        aspect=Aspect.STARTABLE,
        text="The node can't make the pod's container: its command, a Secret, a volume or the security context.",
        next_step=POD_EVENTS,
        retry_after=60.0,
    ),
    Reason.OUT_OF_MEMORY: Meaning(
        aspect=Aspect.STARTABLE,
        text="Hosts run out of memory before they are ready.",
        next_step="give the agents more memory (`resources.memory`), or unload what they load at their start",
        retry_after=30.0,
    ),
    Reason.CRASH_LOOP: Meaning(
        aspect=Aspect.STARTABLE,
        text="Hosts end again and again before they are ready.",
        next_step="see what they print: `chimera logs --process hosts`, or `kubectl logs --previous` of the pod",
        retry_after=30.0,
    ),
    Reason.NOT_READY_IN_TIME: Meaning(
        aspect=Aspect.STARTABLE,
        text="Hosts run and don't become ready in the time that they have (`start_timeout` of `knative` or `node`).",
        next_step="see what they print: `chimera logs --process hosts`, or `kubectl logs` of the pod",
        retry_after=30.0,
    ),
    Reason.HOST_NOT_STARTED: Meaning(
        aspect=Aspect.STARTABLE,
        text="The machine can't start a host's process.",
        next_step="the message has the system's own words; see `chimera doctor`",
        retry_after=5.0,
    ),
    Reason.NODE_GONE: Meaning(
        aspect=Aspect.HEALTHY,
        text="A node is gone, and the hosts on it. They get no calls, and others take their place.",
        next_step="see `kubectl get nodes`",
    ),
    Reason.HOST_EVICTED: Meaning(
        aspect=Aspect.HEALTHY,
        text="A node gave up a host: it was short of memory or disk, was drained, or needed room for something else.",
        next_step="nothing where a node was drained; else add nodes, or raise `knative.request_share`",
    ),
    Reason.HOST_OUT_OF_MEMORY: Meaning(
        aspect=Aspect.HEALTHY,
        text="A host used more memory than it may and ended; it is replaced.",
        next_step="`chimera get incidents` names the agent; give it more memory, or `isolation: dedicated`",
    ),
    Reason.HOST_DIED: Meaning(
        aspect=Aspect.HEALTHY,
        text="A host ended without being told to; it is replaced.",
        next_step="`chimera get incidents` names the agent, `kubectl logs --previous` has the host's last words",
    ),
    Reason.CREDENTIALS_REFUSED: Meaning(
        aspect=Aspect.CONNECTED,
        text="The API server does not accept the control plane's credentials, or they don't let it look.",
        next_step="log in to the cluster again or mount a fresh token, and compare the clocks",
        retry_after=30.0,
    ),
    Reason.CLOCK_SKEWED: Meaning(
        aspect=Aspect.CONNECTED,
        text="This machine's clock and another's differ by more than is allowed for.",
        next_step="keep the machines' clocks (chrony, systemd-timesyncd); tokens are refused where they differ by more",
        retry_after=30.0,
    ),
    Reason.AS_WANTED: Meaning(aspect=Aspect.READY, text="All is well."),
    Reason.IN_PROGRESS: Meaning(aspect=Aspect.READY, text="It is on its way, or was never tried.", retry_after=5.0),
}
