"""The platform's nodes, three in three zones, on simulated ones: what stands where, and what the loss of one does.

The pool and the choices are those of `deploy/gke`. Nodes are made here and "run" pods where KWOK does so for nodes with
the annotation `kwok.x-k8s.io/node: fake` (`CHIMERA_TEST_KUBECONFIG` says which cluster). Everything else is the real
thing: API server, scheduler, controllers of Deployments, of disruption budgets and of nodes. KWOK answers for its
nodes, so that none falls silent: they are given up by the taint for it, or go. A simulated pod answers nobody; what the
loss of a leader does is held by real ones (`test_leaders.py`).
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
import yaml
from msgspec import Struct

from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterThrottled
from chimera.adapters.substrates.knative.installation import NODE, ZONE, Installation, manifests
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES
from chimera.adapters.substrates.knative.labelling import selector
from chimera.adapters.substrates.knative.objects import PODS, Condition, Meta, Resource
from chimera.adapters.substrates.knative.pods import READY, SEEN_PODS, phase
from chimera.adapters.substrates.knative.rights import RIGHTS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.clock import SystemClock

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
VALUES = yaml.safe_load((ROOT / "deploy" / "gke" / "values.yaml").read_text())
ZONES = ("zone-a", "zone-b", "zone-c")
N2_STANDARD_4 = {"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
SIMULATED = {"kwok.x-k8s.io/node": "fake"}
TEST = "chimera.ecosystem/test"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
TAINT = {field: VALUES["tolerations"][0][field] for field in ("key", "value", "effect")}
PATIENCE = 180.0  # what was on a node that is gone is cleared away after a minute


class NodeStatus(Struct, frozen=True, kw_only=True):
    conditions: list[Condition] = []


class Node(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class BudgetStatus(Struct, frozen=True, kw_only=True, rename="camel"):
    disruptions_allowed: int = 0


class Budget(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    status: BudgetStatus = BudgetStatus()


NODES = Resource("", "v1", "nodes", "Node", Node, namespaced=False)
BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", Budget)


class Pool:
    """Nodes of the platform's own, and what is installed on them."""

    def __init__(self) -> None:
        self.api = Kubernetes(from_kubeconfig(Path(os.environ["CHIMERA_TEST_KUBECONFIG"]), SystemClock()))
        self.id = uuid4().hex[:8]
        self.namespace = f"chimera-test-{self.id}"
        self.zones: dict[str, str] = {}
        self._made = 0
        self.chosen = Installation(
            knative=KnativeSettings(namespace=f"{self.namespace}-cells"),
            database="postgresql://chimera@nowhere.example/chimera",
            image="registry.example/chimera-platform:0",
            namespace=self.namespace,
            replicas=VALUES["replicas"],
            node_selector={**VALUES["node_selector"], TEST: self.id},
            tolerations=tuple(VALUES["tolerations"]),
            strict_spread=VALUES["strict_spread"],
        )

    async def add(self, zone: str) -> str:
        """One more node."""
        self._made += 1
        name = f"control-{self.id}-{self._made}"
        self.zones[name] = zone
        await self._have(name, [TAINT])
        status = {"allocatable": N2_STANDARD_4, "capacity": N2_STANDARD_4}
        whole = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        await self.api.apply(NODES, whole, force=True, manager="tests", part="status")
        return name

    async def cordon(self, cordoned: bool) -> None:
        """Let no new pod onto any node, or let them again."""
        for name in self.zones:
            await self._have(name, [TAINT], unschedulable=cordoned)

    async def _have(self, name: str, taints: list[dict[str, str]], *, unschedulable: bool = False) -> None:
        labels = {**self.chosen.node_selector, ZONE: self.zones[name], NODE: name, "kubernetes.io/os": "linux"}
        meta = {"name": name, "labels": labels, "annotations": SIMULATED}
        spec = {"taints": taints, **({"unschedulable": True} if unschedulable else {})}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec}
        await self.api.apply(NODES, node, force=True, manager="tests")

    async def are_ready(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                for name in self.zones:
                    while not (await self.api.get(NODES, None, name)).ready:  # noqa: ASYNC110 - KWOK's doing
                        await asyncio.sleep(0.5)
        except TimeoutError:
            return False
        return True

    async def give_up(self, name: str) -> None:
        """Mark a node as lost for good while its object is still there, as whoever looks after nodes does."""
        await self._have(name, [TAINT, {"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}])

    async def remove(self, name: str) -> None:
        """Take a node's object away, as a cloud does with a machine that is gone."""
        await self.api.delete(NODES, None, name)
        del self.zones[name]

    async def apply(self, revision: str = "") -> None:
        """What of an installation is placed on nodes, or says how much of it may go."""
        chosen = msgspec.structs.replace(self.chosen, revision=revision)
        kinds = ("Namespace", "ServiceAccount", "PodDisruptionBudget", "Deployment")
        for one in manifests(chosen):
            place = one["metadata"].get("namespace", one["metadata"]["name"])
            if one["kind"] in kinds and place == self.namespace:
                await self.api.apply(KINDS[one["kind"]], one, force=True)

    async def pods(self, component: str) -> dict[str, str]:
        """The pods of a process that are ready and stay, and their nodes."""
        chosen = ",".join(f"{name}={value}" for name, value in selector(component).items())
        found = (await self.api.list(SEEN_PODS, self.namespace, chosen)).items
        return {one.metadata.name: one.spec.node_name for one in found if phase(one) == READY}

    async def until_placed(self, *nodes: str) -> float:
        """Until each process has all its pods, on these nodes alone, as evenly as they fit; seconds it took."""
        began = time.monotonic()
        most = -(-self.chosen.replicas // len(nodes))
        async with asyncio.timeout(PATIENCE):
            for component in RIGHTS:
                while True:
                    counts = Counter((await self.pods(component)).values())
                    if counts.total() == self.chosen.replicas and counts.keys() <= set(nodes):
                        break
                    await asyncio.sleep(0.5)
                assert max(counts.values()) <= most, (component, counts)
        return time.monotonic() - began

    async def budgets(self) -> dict[str, int]:
        found = (await self.api.list(BUDGETS, self.namespace)).items
        return {one.metadata.name.removeprefix("chimera-"): one.status.disruptions_allowed for one in found}

    async def evict(self, pod: str) -> bool:
        """Ask for an eviction, as a drain does; whether it was granted."""
        meta = {"name": pod, "namespace": self.namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        try:
            await self.api.create(PODS.path(self.namespace, pod) + "/eviction", eviction)
        except ClusterThrottled:
            return False
        return True


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[Pool]:
    if not os.environ.get("CHIMERA_TEST_KUBECONFIG"):
        pytest.skip("no cluster: CHIMERA_TEST_KUBECONFIG not set")
    made = Pool()
    try:
        for zone in ZONES:
            await made.add(zone)
        if not await made.are_ready(30.0):
            pytest.skip("nothing runs nodes with the annotation kwok.x-k8s.io/node=fake: KWOK is not there")
        await made.apply()
        print(f"nine pods on three nodes: {await made.until_placed(*made.zones):.1f} s")
        yield made
    finally:
        for name in tuple(made.zones):
            await made.remove(name)
        await made.api.delete(NAMESPACES, None, made.namespace)
        await made.api.aclose()


async def test_each_process_has_one_pod_in_each_zone(pool: Pool) -> None:
    assert pool.chosen.replicas == len(ZONES)
    for component in RIGHTS:
        nodes = (await pool.pods(component)).values()
        assert sorted(pool.zones[node] for node in nodes) == list(ZONES), component


async def test_a_drain_takes_one_pod_of_each_process_at_a_time(pool: Pool) -> None:
    async with asyncio.timeout(PATIENCE):
        while await pool.budgets() != dict.fromkeys(RIGHTS, 1):  # noqa: ASYNC110 - a controller's doing
            await asyncio.sleep(0.5)
    await pool.cordon(True)  # what is made in place of the first has to wait
    for component in RIGHTS:
        on = {node: pod for pod, node in (await pool.pods(component)).items()}
        assert [await pool.evict(on[node]) for node in pool.zones] == [True, False, False], component
    await pool.cordon(False)  # node by node in the same order: the emptied one first, so all that wait find room there
    await pool.until_placed(*pool.zones)


async def test_what_was_on_a_node_that_was_given_up_is_made_anew_on_the_others(pool: Pool) -> None:
    """The node is still there, and its zone would be the emptiest."""
    lost, *others = pool.zones
    await pool.give_up(lost)
    print(f"the pods of a node that was given up were elsewhere after {await pool.until_placed(*others):.1f} s")
    assert (await pool.api.get(NODES, None, lost)).metadata.deletion_timestamp is None
    await pool.remove(lost)


async def test_what_was_on_a_node_that_is_gone_is_made_anew_on_the_others(pool: Pool) -> None:
    repaired = await pool.add(ZONES[0])
    assert await pool.are_ready(PATIENCE)
    lost = next(name for name, zone in pool.zones.items() if zone == ZONES[1])
    await pool.remove(lost)
    others = [name for name in pool.zones if name != lost]
    assert repaired in others
    print(f"a vanished node's pods were elsewhere after {await pool.until_placed(*others):.1f} s")


async def test_a_change_of_the_processes_spreads_them_over_all_zones_again(pool: Pool) -> None:
    """Nothing moves a pod that runs; the next rollout does, whatever the old pods' places."""
    await pool.add(ZONES[1])
    assert await pool.are_ready(PATIENCE)
    before = {component: set(await pool.pods(component)) for component in RIGHTS}
    await pool.apply("again")
    async with asyncio.timeout(PATIENCE):
        for component, old in before.items():
            now = await pool.pods(component)
            while old & now.keys() or len(now) != pool.chosen.replicas:
                await asyncio.sleep(0.5)
                now = await pool.pods(component)
            assert sorted(pool.zones[node] for node in now.values()) == list(ZONES), component
