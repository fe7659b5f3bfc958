"""Green loaded ahead in pods: on those that have blue, on pods that take their place, in a cell that comes for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.gateway.calls import CallTable
from chimera.gateway.hosts import HostClient
from chimera.gateway.routes import RouteTable
from chimera.gateway.sides.loading import Loader
from chimera.gateway.sides.ports import Loads
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.testing.clock import ManualClock
from chimera.testing.cluster import FakeCluster
from chimera.testing.hosts import KEY, FakeHost
from chimera.testing.storage import MemoryStorage
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.call import LoadRequest
from chimera_host.testing import builders

HELD = Lease(name="sides", owner="gateway-1", token=1, expires=9e9)
NAMESPACE, OWN = "cells", "http://10.0.0.9:8081"
PATIENCE = 20.0


def spec(framework: FrameworkName) -> CellSpec:
    runtime = RuntimeClass(
        tenant="default", framework=framework, runtime="python", isolation="tenant:default", resources=STANDARD
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime)


BLUE, GREEN = spec("function"), spec("langgraph")


class Rig:
    """A gateway's part that loads ahead, on Knative."""

    def __init__(self, cluster: FakeCluster, stack: AsyncExitStack) -> None:
        self.cluster, self._stack = cluster, stack
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        self.pool = KnativePool(api, SystemClock(), namespace=NAMESPACE, key_of=lambda *_: KEY)
        self.store, self.hosts, self.calls = MemoryStorage(), HostClient(), CallTable(depth=4, family=100)
        self.routes = RouteTable(self.store, page=100)
        self.told: list[Loads] = []
        self.lent: list[frozenset[str]] = []
        self.loader = Loader(
            self,
            routes=self.routes,
            pool=self.pool,
            hosts=self.hosts,
            calls=self.calls,
            clock=ManualClock(),
            platform_url=OWN,
        )

    async def loaded(self, loads: Sequence[Loads], *, held: Lease) -> None:
        assert held is HELD
        self.told += loads

    async def agent(self, name: str, *, green: CellSpec) -> str:
        """An agent with a green side; green's revision."""
        blue = self.store.put_agent(builders.document(name), BLUE.cell)
        other = self.store.put_agent(builders.document(name, description="Another."), green.cell)
        self.store.cells |= {one.cell: one for one in (BLUE, GREEN)}
        self.store.put_route(replace(blue, others=(replace(other, side="green", rollout="ro-1"),)))
        await self.routes.refresh()
        return other.revision

    async def pod(self, name: str, cell: CellSpec, *holds: str) -> FakeHost:
        """A ready pod of a cell, which has these agents' live revisions loaded."""
        fake = await self._stack.enter_async_context(FakeHost(name, cell=cell.cell))
        fake.holds += [
            {"tenant": "default", "agent": agent, "revision": self.routes.find("default", agent).revision}
            for agent in holds
        ]

        async def load(asked: LoadRequest) -> None:
            self.lent.append(self.calls.revisions_on(name, cell=cell.cell))
            fake.holds.append({"tenant": asked.tenant, "agent": asked.agent, "revision": asked.revision})

        fake.load = load
        service = names.service_name(cell.cell, cell.runtime_class.framework)
        labels = {names.SERVICE_TYPE: "Private", names.KNATIVE_SERVICE: service, names.KNATIVE_REVISION: "r-1"}
        pod = {"kind": "Pod", "name": name, "uid": f"uid-{name}"}
        port = int(fake.endpoint.url.rpartition(":")[2])
        await self.cluster.put(
            "endpointslices",
            {
                "metadata": {"name": f"slice-{name}", "namespace": NAMESPACE, "labels": labels},
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, "targetRef": pod}],
                "ports": [{"name": "http", "port": port}],
            },
        )
        return fake

    async def service(self, cell: CellSpec) -> None:
        """The cell's Knative Service, as Knative has made it ready."""
        meta: dict[str, Any] = {"namespace": NAMESPACE, "labels": {names.MANAGED_BY: names.MANAGER}}
        meta |= {"name": names.service_name(cell.cell, cell.runtime_class.framework)}
        meta |= {"annotations": {names.CELL: cell.cell}}
        traffic = [{"revisionName": "r-1", "percent": 100}]
        await self.cluster.put("services", {"metadata": meta, "spec": {}, "status": {"traffic": traffic}})

    async def gone(self, name: str) -> None:
        await self.cluster.remove("endpointslices", NAMESPACE, f"slice-{name}")

    async def until_hosts(self, cell: CellSpec, *wanted: str) -> None:
        await until(lambda: [one.host for one in self.pool.endpoints(cell.cell)] == list(wanted))

    async def look(self) -> list[tuple[str, int, int]]:
        self.told.clear()
        await self.loader.look(HELD)
        return [(one.agent, one.wanted, one.holding) for one in self.told]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeCluster() as cluster, AsyncExitStack() as stack:
        made = Rig(cluster, stack)
        running = asyncio.create_task(made.pool.run())
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.pool.aclose()
        await made.hosts.aclose()


async def test_green_is_loaded_in_the_pods_that_have_blue_which_fetch_it_at_this_gateway(rig: Rig) -> None:
    green = await rig.agent("anna", green=BLUE)
    await rig.service(BLUE)
    one, other = await rig.pod("pod-a", BLUE, "anna"), await rig.pod("pod-b", BLUE)
    await rig.until_hosts(BLUE, "pod-a", "pod-b")
    assert await rig.look() == [("anna", 1, 1)]
    (asked,) = one.loads
    assert (asked.revision, asked.platform_url, other.loads) == (green, OWN, [])
    assert rig.lent == [frozenset({green})], "the pod may fetch it while it loads, and of this gateway"
    assert rig.calls.revisions_on("pod-a", cell=BLUE.cell) == frozenset()


async def test_a_pod_that_takes_anothers_place_gets_green_too(rig: Rig) -> None:
    await rig.agent("anna", green=BLUE)
    await rig.service(BLUE)
    await rig.pod("pod-a", BLUE, "anna")
    await rig.until_hosts(BLUE, "pod-a")
    assert await rig.look() == [("anna", 1, 1)]
    await rig.gone("pod-a")
    await rig.until_hosts(BLUE)
    assert await rig.look() == [("anna", 0, 0)], "where blue is loaded nowhere, nothing is"
    fresh = await rig.pod("pod-b", BLUE, "anna")
    await rig.until_hosts(BLUE, "pod-b")
    assert await rig.look() == [("anna", 1, 1)] and len(fresh.loads) == 1


async def test_green_in_a_cell_that_knative_makes_for_it_is_loaded_once_that_has_a_pod(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.gateway.sides.loading.WAKE", 0.2)
    green = await rig.agent("anna", green=GREEN)
    await rig.service(BLUE)
    await rig.pod("pod-a", BLUE, "anna")
    await rig.until_hosts(BLUE, "pod-a")
    assert await rig.look() == [("anna", 1, 0)]
    assert rig.told[0].problem is not None and GREEN.cell in rig.told[0].problem
    await rig.service(GREEN)
    fresh = await rig.pod("pod-g", GREEN)
    await rig.until_hosts(GREEN, "pod-g")
    assert await rig.look() == [("anna", 1, 1)]
    assert [one.revision for one in fresh.loads] == [green]
