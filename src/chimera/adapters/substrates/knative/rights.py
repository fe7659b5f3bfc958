"""What Chimera's processes may do in a cluster: exactly what they do, as data that tests hold against what they did.

Hosts have no right at all: their service account is what they are known by.
"""

from dataclasses import dataclass

CONTROL_PLANE, GATEWAY = "control-plane", "gateway"


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """What may be done with one kind, in the namespace of cells or (`everywhere`) in the whole cluster."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    everywhere: bool = False


RIGHTS: dict[str, tuple[Right, ...]] = {
    # An apply of what isn't there is a create, too.
    CONTROL_PLANE: (
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch", "create", "patch", "delete")),
    ),
    GATEWAY: (
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch")),
        Right(group="discovery.k8s.io", resource="endpointslices", verbs=("list", "watch")),
        Right(group="", resource="pods", verbs=("get",)),
        Right(group="authentication.k8s.io", resource="tokenreviews", verbs=("create",), everywhere=True),
    ),
}
