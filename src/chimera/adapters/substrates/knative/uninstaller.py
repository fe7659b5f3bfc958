"""Taking an installation out of a cluster again.

What is taken out is what was put in, cells first, so that nothing is left that somebody would have to find; and nothing
of anybody else's.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from chimera.adapters.substrates.knative import names, namespaces
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError, NotInCluster
from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES, Say, shown
from chimera.adapters.substrates.knative.labelling import selector
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS, Anything, Resource
from chimera.adapters.substrates.knative.preflight import NotFit
from chimera.adapters.substrates.knative.render import Json
from chimera.adapters.substrates.knative.resources.kinds import CELLS
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, OPERATOR

LOOK_AGAIN = 0.5


async def uninstall(api: Kubernetes, chosen: Installation, say: Say, *, seconds: float) -> Sequence[str]:
    """Delete everything; what is still there after `seconds`. Raises `NotFit` where nothing is installed.

    Where its cells are, the cluster says: the settings may be lost, and name another installation's. A namespace that
    was there before the installation stays, and is its own until the last pod is gone, so that another try finds it.
    """
    await _refuse_others(api, chosen.namespace)
    others = await namespaces.others(api, chosen.namespace)
    own = await _cells_of(api, chosen, others, say)
    places = (*own, chosen.namespace)
    kept = [name for name in places if namespaces.was_there(await namespaces.read(api, name))]
    found = _parts(chosen, own)
    until = asyncio.get_running_loop().time() + seconds
    # Who makes cells first: whoever watches would make those again that are deleted, and watches until its pod is gone.
    for manifest in [one for one in reversed(found) if one["kind"] == "Deployment"]:
        await _delete(api, manifest, say)
    while await _makers(api, chosen.namespace):
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(LOOK_AGAIN)
    # A namespace that is deleted while its pods still end is looked at again after half of their grace, five minutes.
    while any([await _delete_cells(api, cells, say) for cells in own]) or await _end(api, chosen.namespace):
        if asyncio.get_running_loop().time() > until:
            break
        await asyncio.sleep(LOOK_AGAIN)
    for name in kept:
        await _clear(api, name, say)
    await _delete_parts(api, [one for one in found if _place(one) not in kept], others, say)
    while left := await _left(api, places, kept):
        if asyncio.get_running_loop().time() > until:
            return left
        await asyncio.sleep(LOOK_AGAIN)
    for name in kept:
        await api.apply(NAMESPACES, namespaces.let_go(name))
        say(f"Namespace {name} stays: it was there before the installation")
    return []


async def _end(api: Kubernetes, namespace: str) -> bool:
    """Whether processes of the platform still end: gateways do when their last call has."""
    return bool((await api.list(PODS, namespace, names.parts())).items)


async def _delete_parts(api: Kubernetes, found: Sequence[Json], others: Sequence[str], say: Say) -> None:
    """Delete what is left of an installation but its Deployments, and the kinds last, unless `others` need them."""
    for manifest in reversed(found):
        if manifest["kind"] == "CustomResourceDefinition":
            if others:
                say(f"{shown(manifest)} stays: the installation in {others[0]} has its resources by it")
                continue
            await _warn(api, manifest, say)
        if manifest["kind"] != "Deployment":
            await _delete(api, manifest, say)


async def _left(api: Kubernetes, places: Sequence[str], kept: Sequence[str]) -> list[str]:
    """What still ends: namespaces, and pods in those that are kept."""
    left = [name for name in places if name not in kept and await _is_there(api, name)]
    return left + [f"what is in {name}" for name in kept if (await api.list(PODS, name, names.managed())).items]


async def _refuse_others(api: Kubernetes, namespace: str) -> None:
    """Raise `NotFit` for a namespace that is no installation's; one that is gone may have left something to take."""
    found = await namespaces.read(api, namespace)
    if found is None:
        return
    holder = found.labels.get(names.CELLS_OF, namespace)
    if namespaces.is_part(found) and holder == namespace:
        return
    has = f"cells of the installation in {holder}" if namespaces.is_part(found) else "nothing that was installed"
    others = await namespaces.others(api, namespace)
    raise NotFit(
        f"no installation is in the namespace {namespace}, which has {has}",
        next_step=f"give `--namespace` one of those that have one: {', '.join(others)}"
        if others
        else "there is none in this cluster; what Helm has put into a namespace of yours, `helm uninstall` takes out",
    )


async def _clear(api: Kubernetes, namespace: str, say: Say) -> None:
    """Delete what an installation has made in a namespace that stays, whatever was chosen when it did."""
    kinds: list[Resource[Any]] = [*KINDS.values(), CELLS]
    for kind in kinds:
        if kind.namespaced:
            await namespaces.delete_all(api, kind, namespace, say)


async def _makers(api: Kubernetes, namespace: str) -> list[str]:
    """The pods of processes that make cells."""
    found: list[str] = []
    for component in (CONTROL_PLANE, OPERATOR):
        chosen = ",".join(f"{name}={value}" for name, value in selector(component).items())
        found += [one.metadata.name for one in (await api.list(PODS, namespace, chosen)).items]
    return found


async def _delete_cells(api: Kubernetes, cells: str, say: Say) -> bool:
    """Delete all cells of a namespace that aren't being deleted; whether any were there, or pods of theirs."""
    try:
        services = (await api.list(KNATIVE_SERVICES, cells, names.managed())).items
    except NotInCluster:
        services = []  # Knative is gone already, and its objects with it
    for service in services:
        if service.metadata.deletion_timestamp is None:
            await api.delete(KNATIVE_SERVICES, cells, service.metadata.name)
            say(f"cell {service.metadata.name}")
    return bool(services or (await api.list(PODS, cells, names.managed())).items)


async def _cells_of(api: Kubernetes, chosen: Installation, others: Sequence[str], say: Say) -> list[str]:
    """The namespaces of its cells: those that say so, and the one that settings name unless it says to be another's."""
    made = (await api.list(NAMESPACES, None, names.parts())).items
    whose = {one.metadata.name: one.metadata.labels.get(names.CELLS_OF) for one in made}
    own = [name for name, of in whose.items() if of == chosen.namespace]
    named = chosen.knative.namespace
    if named in whose and whose[named] is None and named not in (chosen.namespace, *others):
        own.append(named)  # of a release that didn't say whose it is
    if named not in own:
        say(f"its cells are in {', '.join(own) or 'no namespace'}; {named}, which the settings name, is left alone")
    return own


def _parts(chosen: Installation, own: Sequence[str]) -> list[Json]:
    """What there may be of an installation with its cells in these namespaces, in the order in which it was applied."""
    named = chosen.knative.namespace
    found = [one for one in manifests(chosen) if _place(one) != named]
    for name in own:
        there = msgspec.structs.replace(chosen, knative=dataclasses.replace(chosen.knative, namespace=name))
        found += [one for one in manifests(there) if _place(one) == name]
    return found


def _place(manifest: Json) -> str | None:
    """The namespace that an object is in, or is."""
    meta = manifest["metadata"]
    found: str | None = meta["name"] if manifest["kind"] == "Namespace" else meta.get("namespace")
    return found


async def _delete(api: Kubernetes, manifest: Json, say: Say) -> None:
    meta = manifest["metadata"]
    if await api.delete(KINDS[manifest["kind"]], meta.get("namespace"), meta["name"]):
        say(f"{manifest['kind']} {shown(manifest)}")


async def _warn(api: Kubernetes, definition: Json, say: Say) -> None:
    """Say what goes with a kind: all of its objects, whoever made them."""
    spec = definition["spec"]
    plural, kind = spec["names"]["plural"], spec["names"]["kind"]
    resource = Resource(spec["group"], spec["versions"][0]["name"], plural, kind, Anything)
    try:
        found = (await api.list(resource, None)).items
    except NotInCluster:
        return
    if found:
        places = len({one.metadata.namespace for one in found})
        say(f"{len(found)} {plural} in {places} namespaces, which go with their CustomResourceDefinition")


async def _is_there(api: Kubernetes, namespace: str) -> bool:
    try:
        await api.get(NAMESPACES, None, namespace)
    except NotInCluster:
        return False
    except ClusterError:
        return True
    return True
