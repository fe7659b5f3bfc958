"""Which namespaces are this installation's, as the cluster says it: a watch of namespaces, and one of installations.

What a rule makes of it is `claims`; loops are told when it may be another.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.adapters.substrates.knative.resources.claims import CLAIM, Claim, claim_of, installation_of, not_here


class Marked(Struct, frozen=True, kw_only=True):
    """An object of which its labels matter, and since when it is there."""

    metadata: Meta = Meta()


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Marked, namespaced=False)
CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    Marked,
    namespaced=False,
)


class Claims:
    """Whose namespaces are, for the installation `own`. Run what is `followed`."""

    def __init__(self, api: Kubernetes, own: str) -> None:
        """Know nothing yet."""
        self._own = own
        self._namespaces = Following(api, NAMESPACES, namespace=None)
        self._configurations = Following(api, CONFIGURATIONS, namespace=None, selector=names.parts())
        self.followed: tuple[Following[Any], ...] = (self._namespaces, self._configurations)
        self._claimed: dict[str, str] = {}
        self._installations: dict[str, str] = {}
        self._callbacks: list[Callable[[], None]] = []
        for one in self.followed:
            one.on_change(self._changed)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a namespace may be another's than before."""
        self._callbacks.append(callback)

    async def known(self) -> None:
        """Wait until the cluster has said it."""
        for one in self.followed:
            await one.synced.wait()

    def of(self, namespace: str) -> Claim:
        """Whose a namespace is."""
        return claim_of(self._claimed.get(namespace), self._installations, self._own)

    def refusal(self, namespace: str) -> str:
        """What to tell of resources in a namespace that is nobody's."""
        return not_here(namespace, self._claimed.get(namespace, ""))

    def _changed(self, _: Iterable[Marked]) -> None:
        claimed = {
            one.metadata.name: claim
            for one in self._namespaces.objects.values()
            if (claim := one.metadata.labels.get(CLAIM))
        }
        installations = {
            name: one.metadata.creation_timestamp or ""
            for one in self._configurations.objects.values()
            if (name := installation_of(one.metadata.name)) is not None
        }
        if (claimed, installations) == (self._claimed, self._installations):
            return
        self._claimed, self._installations = claimed, installations
        for callback in self._callbacks:
            callback()
