"""What Chimera's processes may do in a cluster: exactly what they do, as data that tests hold against what they did.

Hosts have no right at all: their service account is what they are known by.
"""

from dataclasses import dataclass

from chimera.adapters.substrates.knative.admission.manifests import NAME, configuration_name
from chimera.adapters.substrates.knative.places import LEDGER

CONTROL_PLANE, GATEWAY, OPERATOR = "control-plane", "gateway", "operator"
_OURS = "chimera.ecosystem"


@dataclass(frozen=True, kw_only=True, slots=True)
class Right:
    """What may be done with one kind, in the namespace of cells, in the platform's `own`, or `everywhere`.

    With `only`, it is for objects of these names alone; `{namespace}` in one is the platform's.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    everywhere: bool = False
    own: bool = False
    only: tuple[str, ...] = ()


RIGHTS: dict[str, tuple[Right, ...]] = {
    # An apply of what isn't there is a create, too.
    CONTROL_PLANE: (
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch", "create", "patch", "delete")),
        Right(group="serving.knative.dev", resource="revisions", verbs=("list", "watch", "patch")),
        Right(group="", resource="pods", verbs=("list", "watch")),
        # What agents may extend, wherever they are: the webhook is asked for every namespace.
        Right(group="chimera.ecosystem", resource="agenttemplates", verbs=("list", "watch"), everywhere=True),
        # The webhook's certificates, and whom the API server believes: both are the installation's to make.
        Right(group="", resource="secrets", verbs=("list", "watch", "patch"), own=True, only=(NAME,)),
        # Public keys and checkpoints, out of the database's reach.
        Right(group="", resource="configmaps", verbs=("get", "patch"), own=True, only=(LEDGER,)),
        Right(
            group="admissionregistration.k8s.io",
            resource="validatingwebhookconfigurations",
            verbs=("list", "watch", "patch"),
            everywhere=True,
            only=(configuration_name("{namespace}"),),
        ),
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
        Right(group="metrics.k8s.io", resource="pods", verbs=("list",), own=True),
        Right(group="authentication.k8s.io", resource="tokenreviews", verbs=("create",), everywhere=True),
    ),
    OPERATOR: (
        Right(group=_OURS, resource="agents", verbs=("list", "watch"), everywhere=True),
        Right(group=_OURS, resource="agents/status", verbs=("patch",), everywhere=True),
        Right(group=_OURS, resource="agenttemplates", verbs=("list", "watch"), everywhere=True),
        Right(group=_OURS, resource="agenttemplates/status", verbs=("patch",), everywhere=True),
        Right(group=_OURS, resource="rollouts", verbs=("list", "watch"), everywhere=True),
        Right(group=_OURS, resource="rollouts/status", verbs=("patch",), everywhere=True),
        # Whose a namespace is, and which installations there are.
        Right(group="", resource="namespaces", verbs=("list", "watch"), everywhere=True),
        Right(
            group="admissionregistration.k8s.io",
            resource="validatingwebhookconfigurations",
            verbs=("list", "watch"),
            everywhere=True,
        ),
        Right(group=_OURS, resource="cells", verbs=("list", "watch", "create", "patch", "delete")),
        Right(group=_OURS, resource="cells/status", verbs=("patch",)),
        Right(group="serving.knative.dev", resource="services", verbs=("list", "watch")),
        Right(group="serving.knative.dev", resource="revisions", verbs=("list", "watch")),
    ),
}
