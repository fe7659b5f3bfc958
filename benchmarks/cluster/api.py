"""What a measurement asks of a cluster: its API server's own counters, and nodes that aren't there.

Simulated nodes (KWOK) prove objects, conditions and convergence: a pod on one is "running" because a controller says
so. Nothing is started and nothing can be called.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from chimera.adapters.substrates.knative.access import ClusterAccess, from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.adapters.substrates.knative.resources.claims import CLAIM
from chimera.kernel.clock import SystemClock

SIMULATED = {"kwok.x-k8s.io/node": "fake"}
NODE_LABEL = "chimera.ecosystem/simulated"
N2_STANDARD_8 = {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "200Gi"}
AT_ONCE, TRIES = 16, 30
COUNTED = 65.0
"""An API server counts its objects, and what they take, once a minute."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Row(Struct, frozen=True, kw_only=True):
    """One figure, and how to read it."""

    what: str
    value: float
    unit: str
    note: str = ""


class Anything(Struct, frozen=True, kw_only=True):
    """An object of which only its name matters."""

    metadata: Meta = Meta()


class NodeSpec(Struct, frozen=True, kw_only=True):
    """What of a node matters here."""

    unschedulable: bool = False


class Node(Struct, frozen=True, kw_only=True):
    """A node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()


class PodStatus(Struct, frozen=True, kw_only=True):
    """A pod's phase."""

    phase: str = ""


class PodSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a pod is."""

    node_name: str = ""


class Pod(Struct, frozen=True, kw_only=True):
    """A pod, as far as it is counted."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


NODES = Resource("", "v1", "nodes", "Node", Node, namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Anything, namespaced=False)
PODS = Resource("", "v1", "pods", "Pod", Pod)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """What the API server says of itself at one moment."""

    requests: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    """By group and verb, watches apart (those are counted when they end)."""
    objects: "Counter[str]" = field(default_factory=Counter)
    sizes: "Counter[str]" = field(default_factory=Counter)
    database: int = 0
    """Bytes of etcd's file, with the history that it hasn't compacted."""

    def since(self, before: "Counters") -> "Counters":
        """The difference."""
        return Counters(
            requests=_less(self.requests, before.requests),
            objects=_less(self.objects, before.objects),
            sizes=_less(self.sizes, before.sizes),
            database=self.database - before.database,
        )

    def calls(self, group: str, *verbs: str) -> int:
        """Requests for kinds of `group`, of some verbs or of all."""
        return sum(count for (of, verb), count in self.requests.items() if of == group and (not verbs or verb in verbs))


def read_counters(page: str) -> Counters:
    """The counters in a page of metrics."""
    requests: Counter[tuple[str, str]] = Counter()
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    database = 0
    for line in page.splitlines():
        if not line.startswith(("apiserver_request_total", "apiserver_resource_", "apiserver_storage_size_bytes")):
            continue
        if (found := _SAMPLE.match(line)) is None:
            continue
        name, labels, value = found[1], dict(_LABEL.findall(found[2] or "")), int(float(found[3]))
        kind = f"{labels.get('resource', '')}.{labels.get('group', '')}".rstrip(".")
        if name == "apiserver_request_total":
            requests[labels.get("group", ""), labels.get("verb", "")] += value
        elif name == "apiserver_resource_objects":
            objects[kind] += max(0, value)
        elif name == "apiserver_resource_size_estimate_bytes":
            sizes[kind] += max(0, value)
        elif name == "apiserver_storage_size_bytes":
            database = value
    return Counters(requests=requests, objects=objects, sizes=sizes, database=database)


def _less(after: "Counter[Any]", before: "Counter[Any]") -> "Counter[Any]":
    return Counter({key: after[key] - before[key] for key in after.keys() | before.keys() if after[key] != before[key]})


class Cluster:
    """A cluster that is measured. Made inside the event loop."""

    def __init__(self, kubeconfig: Path) -> None:
        """Reach it by `kubeconfig`, as its administrator."""
        self.kubeconfig = kubeconfig
        self.access: ClusterAccess = from_kubeconfig(kubeconfig, SystemClock())
        self.api = Kubernetes(self.access)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.api.aclose()

    async def counters(self) -> Counters:
        """The API server's counters now."""
        shown = await self.access.credentials.header()
        headers = {"Authorization": shown} if shown is not None else {}
        tls, name = self.access.tls if self.access.tls is not None else True, self.access.server_name
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.get(self.access.server + "/metrics", headers=headers, ssl=tls, server_hostname=name) as answer,
        ):
            answer.raise_for_status()
            return await asyncio.to_thread(read_counters, await answer.text())

    @asynccontextmanager
    async def namespace(self, name: str, *, of: str | None = None) -> AsyncIterator[str]:
        """A namespace that is gone afterwards, with all that is in it; its agents are `of` an installation."""
        meta: dict[str, Any] = {"name": name, **({"labels": {CLAIM: of}} if of is not None else {})}
        async with asyncio.timeout(300):  # one of that name that is ending would take with it what is made in it
            while any(one.metadata.name == name for one in (await self.api.list(NAMESPACES, None)).items):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await self.api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        try:
            yield name
        finally:
            await self.api.delete(NAMESPACES, None, name)

    @asynccontextmanager
    async def simulated_nodes(self, count: int) -> AsyncIterator[None]:
        """`count` simulated nodes, the only ones that new pods go to meanwhile."""
        real = [node for node in (await self.api.list(NODES, None)).items if NODE_LABEL not in node.metadata.labels]
        try:
            for node in real:
                await self._cordon(node.metadata.name, True)
            await all_of(range(count), self._node)
            yield
        finally:
            for node in real:
                await self._cordon(node.metadata.name, node.spec.unschedulable)
            left = (await self.api.list(NODES, None, NODE_LABEL)).items
            await all_of([node.metadata.name for node in left], lambda name: self.api.delete(NODES, None, name))

    async def _cordon(self, name: str, cordoned: bool) -> None:
        manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": cordoned}}
        await self.api.apply(NODES, manifest, force=True, manager="chimera-benchmark")

    async def _node(self, number: int) -> None:
        name = f"simulated-{number:04d}"
        labels = {NODE_LABEL: "true", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        labels["topology.kubernetes.io/zone"] = f"zone-{number % 3}"
        meta = {"name": name, "labels": labels, "annotations": SIMULATED}
        await self.api.apply(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta}, manager="chimera-benchmark")
        status = {"allocatable": N2_STANDARD_8, "capacity": N2_STANDARD_8}
        whole = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        await self.api.apply(NODES, whole, force=True, manager="chimera-benchmark", part="status")


async def staying(cluster: Cluster, namespace: str) -> list[Pod]:
    """The pods of a namespace that aren't ending: one that ends takes as long as its last request might."""
    return [one for one in (await cluster.api.list(PODS, namespace)).items if one.metadata.deletion_timestamp is None]


async def all_of(items: Iterable[Any], work: Callable[[Any], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """`work` on each of `items`, some at once; asked again where the cluster asks to."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            for left in reversed(range(TRIES)):
                try:
                    await work(item)
                    break
                except ClusterError as error:
                    if error.retry_after is None or not left:
                        raise
                    await asyncio.sleep(min(error.retry_after, 2.0))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def until(condition: Callable[[], bool], seconds: float, each: float = 0.2) -> float:
    """Wait for what happens elsewhere; the seconds it took. Raises `TimeoutError`."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(each)
    return time.monotonic() - began
