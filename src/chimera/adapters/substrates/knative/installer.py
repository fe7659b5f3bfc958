"""Putting an installation into a cluster, by server-side apply; `uninstaller` takes it out again.

The platform's keys are made at the first installation and stay: whoever installs again changes none of them, and needs
no right to read them.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable, Sequence

from msgspec import Struct

from chimera.adapters.substrates.knative import eventing, monitors, names, namespaces
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterRefused, NotInCluster
from chimera.adapters.substrates.knative.installation import KEYS, MADE, Installation, keys, manifests
from chimera.adapters.substrates.knative.objects import Anything, Condition, Meta, Resource
from chimera.adapters.substrates.knative.render import Json

LOOK_AGAIN = 0.5

Say = Callable[[str], None]


class DeploymentSpec(Struct, frozen=True, kw_only=True):
    """What a Deployment should have."""

    replicas: int = 1


class DeploymentStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """What it has."""

    observed_generation: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    replicas: int = 0


class Deployment(Struct, frozen=True, kw_only=True):
    """A Deployment, for waiting until it is as it should be."""

    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()

    @property
    def done(self) -> bool:
        """Whether all of its pods are of the newest kind and available."""
        status, wanted = self.status, self.spec.replicas
        current = status.observed_generation >= self.metadata.generation
        return current and status.updated_replicas == status.available_replicas == status.replicas == wanted


class CarrierStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    """What Knative Eventing says of a Broker or a Trigger."""

    observed_generation: int = 0
    conditions: list[Condition] = []


class Carrier(Struct, frozen=True, kw_only=True):
    """A Broker or a Trigger, for waiting until it carries events."""

    metadata: Meta = Meta()
    status: CarrierStatus = CarrierStatus()

    @property
    def ready(self) -> bool:
        """Whether it carries events as it is now; a Trigger that does has its subscriber known to its channel."""
        current = self.status.observed_generation >= self.metadata.generation
        return current and any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class KeptSecret(Struct, frozen=True, kw_only=True):
    """A Secret, with what it holds in base64."""

    metadata: Meta = Meta()
    data: dict[str, str] = {}


NAMESPACES = namespaces.NAMESPACES
SECRETS = Resource("", "v1", "secrets", "Secret", Anything)
KEPT_KEYS = Resource("", "v1", "secrets", "Secret", KeptSecret)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", Deployment)
BROKERS = Resource(eventing.GROUP, eventing.VERSION, "brokers", "Broker", Carrier)
TRIGGERS = Resource(eventing.GROUP, eventing.VERSION, "triggers", "Trigger", Carrier)
CARRIERS = ((BROKERS, eventing.BROKER), (TRIGGERS, eventing.TRIGGER))
_CRDS = "apiextensions.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
KINDS: dict[str, Resource[Anything]] = {
    one.kind: one
    for one in (
        NAMESPACES,
        SECRETS,
        Resource("", "v1", "serviceaccounts", "ServiceAccount", Anything),
        Resource("", "v1", "configmaps", "ConfigMap", Anything),
        Resource("", "v1", "services", "Service", Anything),
        Resource("", "v1", "resourcequotas", "ResourceQuota", Anything),
        Resource("apps", "v1", "deployments", "Deployment", Anything),
        Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", Anything),
        Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", Anything),
        Resource(_CRDS, "v1", "customresourcedefinitions", "CustomResourceDefinition", Anything, namespaced=False),
        Resource(_RBAC, "v1", "roles", "Role", Anything),
        Resource(_RBAC, "v1", "rolebindings", "RoleBinding", Anything),
        Resource(_RBAC, "v1", "clusterroles", "ClusterRole", Anything, namespaced=False),
        Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", Anything, namespaced=False),
        namespaces.WEBHOOKS,
        Resource(eventing.GROUP, eventing.VERSION, "brokers", "Broker", Anything),
        Resource(eventing.GROUP, eventing.VERSION, "triggers", "Trigger", Anything),
        Resource(monitors.GROUP, monitors.VERSION, "servicemonitors", "ServiceMonitor", Anything),
        Resource(monitors.GROUP, monitors.VERSION, "podmonitors", "PodMonitor", Anything),
    )
}
CHOOSABLE = ("NetworkPolicy", "ResourceQuota", "Service", "Broker", "Trigger", "ServiceMonitor", "PodMonitor")
"""Kinds of which an installation has more or fewer, by what is chosen."""


async def install(api: Kubernetes, chosen: Installation, say: Say) -> None:
    """Apply everything, and make missing keys; raises `NotFit` before, where a namespace is another installation's.

    What was chosen before and isn't any more is taken away, last: an access that was opened, a bound, a Broker.
    """
    kept = await namespaces.claim(api, chosen.namespace, chosen.knative.namespace)
    wanted = manifests(chosen)
    for manifest in wanted:
        if manifest["kind"] == "Namespace" and manifest["metadata"]["name"] in kept:
            manifest = namespaces.noted(manifest)
        await api.apply(KINDS[manifest["kind"]], manifest, force=True)
        say(f"{manifest['kind']} {shown(manifest)}")
        if manifest["kind"] == "Namespace" and manifest["metadata"]["name"] == chosen.namespace:
            await _make_keys(api, chosen, say)
    await _take_away(api, chosen, wanted, lambda what: say(f"{what}, taken away"))


async def _take_away(api: Kubernetes, chosen: Installation, wanted: Sequence[Json], say: Say) -> None:
    """Delete what an installation has made and isn't wanted any more."""
    for kind in CHOOSABLE:
        these = {shown(one) for one in wanted if one["kind"] == kind}
        for namespace in (chosen.namespace, chosen.knative.namespace):
            await namespaces.delete_all(api, KINDS[kind], namespace, say, but=these)


async def can_monitor(api: Kubernetes) -> bool:
    """Whether the cluster has the kinds of Prometheus' operator."""
    return await _knows(api, "PodMonitor")


async def can_carry_events(api: Kubernetes) -> bool:
    """Whether the cluster has Knative Eventing."""
    return await _knows(api, "Broker") and await _knows(api, "Trigger")


async def _knows(api: Kubernetes, kind: str) -> bool:
    try:
        await api.list(KINDS[kind], "default")
    except NotInCluster:
        return False
    return True


async def wait(api: Kubernetes, chosen: Installation, seconds: float) -> Sequence[str]:
    """Wait until all processes run and events are carried; what isn't so after `seconds`, by name.

    A channel takes an event that it has no subscriber for yet, and forgets it. So whoever installs is told that all is
    well only once what is sent arrives.
    """
    until = asyncio.get_running_loop().time() + seconds
    wanted = [one["metadata"]["name"] for one in manifests(chosen) if one["kind"] == "Deployment"]
    missing = list(await wait_for(api, chosen.namespace, wanted, seconds))
    while chosen.eventing:
        silent = [
            f"{kind.kind} {name}" for kind, name in CARRIERS if not (await api.get(kind, chosen.namespace, name)).ready
        ]
        if not silent or asyncio.get_running_loop().time() > until:
            return missing + silent
        await asyncio.sleep(LOOK_AGAIN)
    return missing


async def wait_for(api: Kubernetes, namespace: str, wanted: Sequence[str], seconds: float) -> Sequence[str]:
    """Wait until these Deployments are as they should be; those that aren't after `seconds`."""
    until = asyncio.get_running_loop().time() + seconds
    while True:
        missing = [name for name in wanted if not (await api.get(DEPLOYMENTS, namespace, name)).done]
        if not missing or asyncio.get_running_loop().time() > until:
            return missing
        await asyncio.sleep(LOOK_AGAIN)


async def installed(api: Kubernetes, namespace: str) -> Sequence[str]:
    """The Deployments of the platform in a namespace, by name; none where it isn't installed."""
    return sorted(one.metadata.name for one in (await api.list(DEPLOYMENTS, namespace, names.parts())).items)


async def read_key(api: Kubernetes, namespace: str) -> str:
    """The key that does everything, which whoever may read the namespace's Secrets may have."""
    try:
        return base64.b64decode((await api.get(KEPT_KEYS, namespace, KEYS)).data["chimera.key"]).decode()
    except (KeyError, ValueError) as error:
        raise ClusterRefused(
            f"the Secret {namespace}/{KEYS} holds no chimera.key", next_step="install again"
        ) from error


async def _make_keys(api: Kubernetes, chosen: Installation, say: Say) -> None:
    for secret, held in MADE.items():
        try:
            await api.get(SECRETS, chosen.namespace, secret)
        except NotInCluster:
            await api.apply(SECRETS, keys(chosen, {name: secrets.token_urlsafe(32) for name in held}, secret))
            say(f"Secret {chosen.namespace}/{secret}, made anew")


def shown(manifest: Json) -> str:
    """An object as people name it."""
    meta = manifest["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])
