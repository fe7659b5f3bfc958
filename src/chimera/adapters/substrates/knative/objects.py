"""The kinds of a cluster that Chimera reads, as far as it reads them.

A watch decodes into these, so that an object of 10 KB costs the few fields that somebody looks at. Every field has a
default: a bookmark is an object with nothing but its version.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

T = TypeVar("T")


class FieldOwner(Struct, frozen=True, kw_only=True):
    """Who has set which fields of an object."""

    manager: str = ""
    fields: Raw = msgspec.field(default=Raw(b"{}"), name="fieldsV1")


class Identity(Struct, frozen=True, kw_only=True, rename="camel"):
    """What every object says of itself, as far as it tells it from others."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None

    @property
    def edition(self) -> tuple[str, int]:
        """What is another when somebody wants something else of the object, or has made it anew."""
        return self.uid, self.generation


class Meta(Identity, frozen=True, kw_only=True, rename="camel"):
    """With its labels and annotations, and who has set what."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    managed_fields: list[FieldOwner] = []


class Anything(Struct, frozen=True, kw_only=True):
    """An object of which only its name matters."""

    metadata: Meta = Meta()


class OwnedMeta(Meta, frozen=True, kw_only=True, rename="camel"):
    """With the objects that it goes with."""

    owner_references: list[Raw] = []


class OwnedAnything(Struct, frozen=True, kw_only=True):
    """An object of which it matters who has made it."""

    metadata: OwnedMeta = OwnedMeta()


class Condition(Struct, frozen=True, kw_only=True, rename="camel"):
    """One condition of an object's status."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class Traffic(Struct, frozen=True, kw_only=True, rename="camel"):
    """A revision's share of a Knative Service's calls."""

    revision_name: str | None = None
    percent: int | None = None
    tag: str | None = None
    latest_revision: bool | None = None


class Address(Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a Knative Service is called from inside the cluster."""

    url: str | None = None


class Template(Struct, frozen=True, kw_only=True):
    """What revisions are made from, as far as it is read."""

    metadata: Meta = Meta()


class ServiceSpec(Struct, frozen=True, kw_only=True):
    """A Knative Service as asked for."""

    template: Template = Template()
    traffic: list[Traffic] = []


class ServiceStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A Knative Service as observed."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    traffic: list[Traffic] = []
    address: Address | None = None
    latest_ready_revision_name: str | None = None
    latest_created_revision_name: str | None = None


class KnativeService(Struct, frozen=True, kw_only=True, rename="camel"):
    """A Knative Service."""

    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class TargetRef(Struct, frozen=True, kw_only=True, rename="camel"):
    """The pod behind an endpoint."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Readiness(Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether an endpoint takes calls; unknown counts as yes, by the API's own rule."""

    ready: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Struct, frozen=True, kw_only=True, rename="camel"):
    """One endpoint of a slice."""

    addresses: list[str] = []
    conditions: Readiness = Readiness()
    target_ref: TargetRef | None = None


class SlicePort(Struct, frozen=True, kw_only=True, rename="camel"):
    """One port of a slice."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a Service's endpoints."""

    metadata: Meta = Meta()
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


class RevisionStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A revision as observed."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    actual_replicas: int | None = None
    desired_replicas: int | None = None


class Revision(Struct, frozen=True, kw_only=True, rename="camel"):
    """A Knative Revision."""

    metadata: Meta = Meta()
    status: RevisionStatus = RevisionStatus()


class Waiting(Struct, frozen=True, kw_only=True, rename="camel"):
    """Why a container doesn't run yet."""

    reason: str = ""
    message: str = ""


class Running(Struct, frozen=True, kw_only=True, rename="camel"):
    """A container that runs."""

    started_at: str | None = None


class Terminated(Struct, frozen=True, kw_only=True, rename="camel"):
    """How a container ended."""

    reason: str = ""
    exit_code: int = 0
    finished_at: str | None = None


class ContainerState(Struct, frozen=True, kw_only=True, rename="camel"):
    """A container's state: one of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A container of a pod."""

    name: str = ""
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod as observed."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []


class PodSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a pod runs."""

    node_name: str = ""


class Pod(Struct, frozen=True, kw_only=True, rename="camel"):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """A kind as the API's paths name it, and the type that its objects are read as."""

    group: str
    version: str
    plural: str
    kind: str
    type: type[T]
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The path of all objects, or of the one that is named."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace is not None:
            base += f"/namespaces/{quote(namespace, safe='')}"
        return f"{base}/{self.plural}" + (f"/{quote(name, safe='')}" if name is not None else "")


KNATIVE_SERVICES = Resource("serving.knative.dev", "v1", "services", "Service", KnativeService)
REVISIONS = Resource("serving.knative.dev", "v1", "revisions", "Revision", Revision)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", EndpointSlice)
PODS = Resource("", "v1", "pods", "Pod", Pod)
