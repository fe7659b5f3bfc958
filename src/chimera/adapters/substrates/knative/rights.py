"""What Chimera's processes may do in a cluster: exactly what they do, as data that tests hold against what they did.

Hosts have no right at all: their service account is what they are known by.
"""

from dataclasses import dataclass

CONTROL_PLANE, GATEWAY = "control-plane", "gateway"


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """What may be done with one kind, in the namespace of cells, in the platform's `own`, or `everywhere`."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    everywhere: bool = False
    own: bool = False


RIGHTS: dict[str, tuple[Right, ...]] = {
    # An apply of what isn't there is a create, too.
    CONTROL_PLANE: (
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch", "create", "patch", "delete")),
    ),
    GATEWAY: (
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch")),
        Right(group="discovery.k8s.io", resource="endpointslices", verbs=("list", "watch")),
        # Pods and their logs are for people: `chimera get hosts`, `top`, `logs`.
        Right(group="serving.knative.dev", resource="revisions", verbs=("list",)),
        Right(group="", resource="pods", verbs=("get", "list")),
        Right(group="", resource="pods/log", verbs=("get",)),
        Right(group="", resource="pods", verbs=("list",), own=True),
        Right(group="", resource="pods/log", verbs=("get",), own=True),
        Right(group="authentication.k8s.io", resource="tokenreviews", verbs=("create",), everywhere=True),
    ),
}
