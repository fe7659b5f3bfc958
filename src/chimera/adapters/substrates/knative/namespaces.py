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
from chimera.adapters.substrates.knative.errors import NotInCluster
from chimera.adapters.substrates.knative.objects import Anything, Meta, OwnedAnything, Resource
from chimera.adapters.substrates.knative.render import Json
from chimera.adapters.substrates.knative.resources.status import MANAGER as OPERATOR_MANAGER

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Anything, namespaced=False)
WAS_THERE = names.PREFIX + "was-there"
MANAGERS = (FIELD_MANAGER, OPERATOR_MANAGER)


async def read(api: Kubernetes, name: str) -> Meta | None:
    """What a namespace says of itself; None where there is none."""
    try:
        return (await api.get(NAMESPACES, None, name)).metadata
    except NotInCluster:
        return None


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
    """Delete all objects of a kind that an installation has made in a namespace, `but` those of these names."""
    resource = dataclasses.replace(kind, type=OwnedAnything)
    try:
        found = (await api.list(resource, namespace, names.parts())).items
    except NotInCluster:
        return
    for one in found:
        meta = one.metadata
        gone = meta.name in but or not made_by_us(one)
        if not gone and await api.delete(resource, namespace, meta.name, uid=meta.uid):
            say(f"{kind.kind} {namespace}/{meta.name}")
