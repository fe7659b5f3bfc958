"""Whose a namespace is: what is asked before anything is put into one or taken out of one.

An installation's two namespaces carry the label of its parts, and the one of cells says whose cells they are. One that
was there before, as where its Secrets were made first, is somebody else's: that is noted in an annotation, by the same
request that labels it, and when the installation is taken out it stays, with what else is in it.
"""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import FIELD_MANAGER, Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterDenied, NotInCluster
from chimera.adapters.substrates.knative.objects import Anything, Meta, OwnedAnything, Resource
from chimera.adapters.substrates.knative.preflight import NotFit
from chimera.adapters.substrates.knative.render import Json
from chimera.adapters.substrates.knative.resources.claims import installation_of
from chimera.adapters.substrates.knative.resources.status import MANAGER as OPERATOR_MANAGER

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Anything, namespaced=False)
WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    Anything,
    namespaced=False,
)
WAS_THERE = names.PREFIX + "was-there"
MANAGERS = (FIELD_MANAGER, OPERATOR_MANAGER)


async def read(api: Kubernetes, name: str) -> Meta | None:
    """What a namespace says of itself; None where there is none."""
    try:
        return (await api.get(NAMESPACES, None, name)).metadata
    except NotInCluster:
        return None


async def others(api: Kubernetes, namespace: str) -> list[str]:
    """The other installations of the cluster, by their namespaces."""
    found = (await api.list(WEBHOOKS, None, names.parts())).items
    known = (installation_of(one.metadata.name) for one in found)
    return sorted(one for one in known if one is not None and one != namespace)


async def claim(api: Kubernetes, platform: str, cells: str) -> list[str]:
    """Those of an installation's two namespaces that were there before; raises `NotFit` where one is another's.

    So is one whose cells are elsewhere: they would run on, and nobody would see to them.
    """
    found = {name: await read(api, name) for name in (platform, cells)}
    for name, meta in found.items():
        if meta is not None and (holder := meta.labels.get(names.CELLS_OF, platform)) != platform:
            setting = "`--namespace`" if name == platform else "the setting `knative.namespace`"
            gone = f", or take that installation out (`chimera uninstall --namespace {holder}`)"
            raise NotFit(
                f"the namespace {name} has cells of the installation in {holder}",
                next_step=f"name another one by {setting}{gone}",
            )
    unsaid = (meta := found[cells]) is not None and is_part(meta) and names.CELLS_OF not in meta.labels
    if unsaid and cells in await others(api, platform):
        raise NotFit(
            f"the namespace {cells} is of the installation in {cells}",
            next_step="name another one by the setting `knative.namespace`",
        )
    if elsewhere := await _cells_elsewhere(api, platform, cells):
        first = elsewhere[0]
        way = "chimera uninstall" if was_there(first) else f"kubectl delete namespace {first.name}"
        raise NotFit(
            f"there is an installation in {platform}, and its cells are in {first.name}, not in {cells}: they would be "
            "left behind",
            next_step=f"set `knative.namespace` to {first.name}; to have another, end these cells first, and the calls "
            f"on them (`{way}`)",
        )
    return [name for name, meta in found.items() if was_there(meta)]


async def _cells_elsewhere(api: Kubernetes, platform: str, cells: str) -> list[Meta]:
    try:
        own = (await api.list(NAMESPACES, None, f"{names.CELLS_OF}={platform}")).items
    except ClusterDenied:
        return []  # whoever installs into two namespaces may not look at all
    return [one.metadata for one in own if one.metadata.name != cells]


def is_part(found: Meta) -> bool:
    """Whether it is an installation's."""
    return found.labels.get(names.PART_OF) == names.MANAGER


def was_there(found: Meta | None) -> bool:
    """Whether it is there and no installation has made it."""
    return found is not None and (WAS_THERE in found.annotations or not is_part(found))


def noted(manifest: Json) -> Json:
    """The manifest of a namespace that was there before."""
    meta = manifest["metadata"]
    return {**manifest, "metadata": {**meta, "annotations": {**meta.get("annotations", {}), WAS_THERE: "true"}}}


def let_go(name: str) -> Json:
    """What is applied to a namespace so that it carries nothing of an installation any more."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {}, "annotations": {}}}


def made_by_us(found: OwnedAnything) -> bool:
    """Whether an installation itself has made an object, or its operator: no controller, no Helm, and nobody by hand.

    Labels alone don't say it: people copy an object with those that it has, and Knative hands a Service's on.
    """
    meta = found.metadata
    labelled = meta.labels.get(names.PART_OF) == meta.labels.get(names.MANAGED_BY) == names.MANAGER
    return labelled and not meta.owner_references and any(one.manager in MANAGERS for one in meta.managed_fields)


async def delete_all(
    api: Kubernetes, kind: Resource[Any], namespace: str, say: Callable[[str], None], but: Collection[str] = ()
) -> None:
    """Delete all objects of a kind that an installation has made in a namespace, `but` these (`NAMESPACE/NAME`)."""
    resource = dataclasses.replace(kind, type=OwnedAnything)
    try:
        found = (await api.list(resource, namespace, names.parts())).items
    except NotInCluster:
        return
    for one in found:
        meta, shown = one.metadata, f"{namespace}/{one.metadata.name}"
        stays = shown in but or not made_by_us(one)
        if not stays and await api.delete(resource, namespace, meta.name, uid=meta.uid):
            say(f"{kind.kind} {shown}")
