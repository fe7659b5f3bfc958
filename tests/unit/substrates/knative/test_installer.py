"""What is put into a cluster and taken out again: nothing of anybody else's is taken, and nothing of ours is left."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from chimera.adapters.substrates.knative import names, uninstaller
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterThrottled
from chimera.adapters.substrates.knative.installation import Installation
from chimera.adapters.substrates.knative.installer import KINDS, install
from chimera.adapters.substrates.knative.labelling import selector
from chimera.adapters.substrates.knative.preflight import NotFit
from chimera.adapters.substrates.knative.resources.kinds import CELLS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.testing.cluster import FakeCluster, refusal

DATABASE = "postgresql://chimera@db.example/chimera"
CHOSEN = Installation(
    knative=KnativeSettings(namespace="agents"), database=DATABASE, namespace="platform", eventing=True, monitors=True
)
OTHER = replace(CHOSEN, namespace="second", knative=KnativeSettings(namespace="second-agents"))


class Rig:
    """A cluster in memory, and what an installer says."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.api = Kubernetes(self.access)
        self.told: list[str] = []

    async def install(self, chosen: Installation = CHOSEN) -> None:
        await install(self.api, chosen, self.told.append)

    async def uninstall(self, chosen: Installation = CHOSEN, seconds: float = 0.0) -> Sequence[str]:
        return await uninstall(self.api, chosen, self.told.append, seconds=seconds)

    async def namespace(self, name: str, **labels: str) -> None:
        """One that somebody has made."""
        await self.cluster.put("namespaces", {"metadata": {"name": name, "labels": labels}})

    def specs(self) -> dict[tuple[str, ...], Any]:
        """All that is in the cluster but what is made by chance, as it is wanted."""
        return {
            (kind.kind, one["metadata"].get("namespace", ""), one["metadata"]["name"]): {
                **{name: part for name, part in one.items() if name not in ("metadata", "stringData")},
                "labels": one["metadata"]["labels"],
            }
            for kind in KINDS.values()
            for one in self.cluster.objects(kind.plural)
        }

    def looks_at(self, plural: str, namespace: str, times: int) -> asyncio.Event:
        """Set when the objects of a kind have been listed so often."""
        enough, seen = asyncio.Event(), 0

        def look(request: web.BaseRequest) -> None:
            nonlocal seen
            seen += request.method == "GET" and request.path.endswith(f"/namespaces/{namespace}/{plural}")
            if seen >= times:
                enough.set()

        self.cluster.faults.append(look)
        return enough

    def namespaces(self) -> dict[str, dict[str, Any]]:
        return {one["metadata"]["name"]: one["metadata"] for one in self.cluster.objects("namespaces")}

    def inside(self, namespace: str) -> set[tuple[str, str]]:
        """What is in a namespace, of all kinds that an installation may make and of those that people do."""
        plurals = {one.plural for one in KINDS.values() if one.namespaced} | {"cells", "pods"}
        return {
            (plural, one["metadata"]["name"])
            for plural in plurals
            for one in self.cluster.objects(plural, lambda one: one["metadata"].get("namespace") == namespace)
        }


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeCluster() as cluster:
        made = Rig(cluster)
        yield made
        await made.api.aclose()


# -- a server that has too much to do ----------------------------------------------------------------------------------


def throttled(rig: Rig, every: int) -> None:
    """The server answers every so many-th request that it will do it later, and doesn't."""
    asked = 0
    later = refusal(429, "TooManyRequests", "storage is (re)initializing", Retry_After="0")

    def answer(request: web.BaseRequest) -> web.StreamResponse | None:
        nonlocal asked
        asked += 1
        return later(request) if asked % every == 0 else None

    rig.cluster.faults.append(answer)


async def test_who_installs_asks_again_where_the_server_throttles(rig: Rig) -> None:
    throttled(rig, 7)
    with pytest.raises(ClusterThrottled):
        await rig.install()
    await rig.api.aclose()
    rig.api = Kubernetes(rig.access, patience=30.0)
    await rig.install()
    assert await rig.uninstall() == []
    assert rig.namespaces() == {}


async def test_who_installs_has_no_patience_without_end(rig: Rig) -> None:
    throttled(rig, 1)
    await rig.api.aclose()
    rig.api = Kubernetes(rig.access, patience=0.05)
    with pytest.raises(ClusterThrottled, match="initializing"):
        await rig.install()


# -- whose a namespace is ---------------------------------------------------------------------------------------------


async def test_what_is_no_installation_is_not_taken_out(rig: Rig) -> None:
    await rig.install()
    await rig.namespace("billing", team="billing")
    await rig.cluster.put("secrets", {"metadata": {"name": "invoices", "namespace": "billing"}})
    before = rig.cluster.version
    with pytest.raises(NotFit, match="billing") as caught:
        await rig.uninstall(replace(CHOSEN, namespace="billing"))
    assert "platform" in (caught.value.next_step or ""), "it says where there is one"
    with pytest.raises(NotFit, match="cells of the installation in platform"):
        await rig.uninstall(replace(CHOSEN, namespace="agents"))
    assert rig.cluster.version == before


async def test_what_is_half_taken_out_is_taken_out_whole_by_another_try(rig: Rig) -> None:
    await rig.install()
    await rig.cluster.remove("namespaces", "", "platform")
    assert await rig.uninstall() == []
    assert rig.namespaces() == {} and rig.inside("agents") == set()


async def test_what_is_anothers_is_not_taken_for_the_cells_of_one_that_is_gone(rig: Rig) -> None:
    await rig.install()
    gone = replace(CHOSEN, namespace="mistyped", knative=KnativeSettings(namespace="platform"))
    before = rig.namespaces(), rig.inside("platform"), rig.inside("agents")
    assert await rig.uninstall(gone) == []
    assert (rig.namespaces(), rig.inside("platform"), rig.inside("agents")) == before


@pytest.mark.parametrize("theirs", ["platform", "agents"])
async def test_a_namespace_that_was_there_before_stays_with_all_that_is_not_ours(rig: Rig, theirs: str) -> None:
    await rig.namespace(theirs, team="billing")
    secret = {"name": "chimera-database", "namespace": theirs}
    copied = {"name": "tools", "namespace": theirs, "labels": {names.MANAGED_BY: "chimera", names.PART_OF: "chimera"}}
    await rig.cluster.put("secrets", {"metadata": secret})
    await rig.cluster.put("networkpolicies", {"metadata": copied, "spec": {}})
    await rig.install()
    await rig.install(replace(CHOSEN, replicas=5))  # an upgrade knows it still
    assert rig.namespaces()[theirs]["labels"][names.PART_OF] == "chimera"
    cell = {"apiVersion": "chimera.ecosystem/v1", "kind": "Cell", "spec": {}}
    cell["metadata"] = {"name": "c-1", "namespace": theirs, "labels": copied["labels"]}
    await rig.api.apply(CELLS, cell, manager="chimera-operator")
    assert await rig.uninstall(replace(CHOSEN, eventing=False, monitors=False)) == [], "it isn't told what there is"
    assert rig.namespaces().keys() == {theirs}
    assert rig.inside(theirs) == {("secrets", "chimera-database"), ("networkpolicies", "tools")}
    assert rig.namespaces()[theirs]["labels"] == {"team": "billing"} and not rig.namespaces()[theirs]["annotations"]
    assert any(line.startswith(f"Namespace {theirs} stays") for line in rig.told)


async def test_a_namespace_that_stays_is_ours_until_its_pods_are_gone(rig: Rig) -> None:
    await rig.namespace("agents")
    await rig.install()
    pod = {"name": "c-1-a", "namespace": "agents", "labels": {names.MANAGED_BY: names.MANAGER}}
    await rig.cluster.put("pods", {"metadata": pod})
    (left,) = await rig.uninstall()
    assert "agents" in left and rig.namespaces()["agents"]["labels"][names.CELLS_OF] == "platform"
    await rig.cluster.remove("pods", "agents", "c-1-a")
    assert await rig.uninstall() == []
    assert rig.namespaces()["agents"]["labels"] == {}


async def test_a_second_installation_with_the_settings_of_the_first_takes_nothing_over(rig: Rig) -> None:
    await rig.install()
    before = rig.cluster.version
    with pytest.raises(NotFit, match="cells of the installation in platform") as caught:
        await rig.install(replace(CHOSEN, namespace="staging"))
    assert "knative.namespace" in (caught.value.next_step or "")
    with pytest.raises(NotFit, match="the namespace platform is of the installation in platform"):
        await rig.install(replace(CHOSEN, namespace="staging", knative=KnativeSettings(namespace="platform")))
    with pytest.raises(NotFit, match="the namespace agents has cells of the installation in platform"):
        await rig.install(replace(OTHER, namespace="agents"))
    assert rig.cluster.version == before and "staging" not in rig.namespaces()
    await rig.install(OTHER)
    await rig.install(CHOSEN)
    assert rig.namespaces()["agents"]["labels"][names.CELLS_OF] == "platform"


async def test_cells_that_would_be_left_behind_are_told_before_anything_is_applied(rig: Rig) -> None:
    await rig.install()
    before = rig.cluster.version
    with pytest.raises(NotFit, match="its cells are in agents") as caught:
        await rig.install(replace(CHOSEN, knative=KnativeSettings(namespace="elsewhere")))
    assert "agents" in (caught.value.next_step or "")
    assert rig.cluster.version == before
    await rig.cluster.remove("namespaces", "", "agents")
    await rig.install(replace(CHOSEN, knative=KnativeSettings(namespace="elsewhere")))


# -- what is chosen no more -------------------------------------------------------------------------------------------

EGRESS = ({"ports": [{"protocol": "TCP", "port": 8443}]},)
ALL = replace(CHOSEN, egress=EGRESS)
FEW = replace(CHOSEN, eventing=False, monitors=False, knative=KnativeSettings(namespace="agents", most_pods=0))


@pytest.mark.parametrize("first", [ALL, FEW, CHOSEN], ids=["all", "few", "some"])
@pytest.mark.parametrize("then", [ALL, FEW, CHOSEN], ids=["all", "few", "some"])
async def test_whoever_installs_again_has_what_a_new_installation_has(
    rig: Rig, first: Installation, then: Installation
) -> None:
    await rig.install(first)
    rig.told.clear()
    await rig.install(then)
    async with FakeCluster() as cluster:
        fresh = Rig(cluster)
        await fresh.install(then)
        await fresh.api.aclose()
        assert rig.specs() == fresh.specs()
    gone = {line for line in rig.told if line.endswith(", taken away")}
    assert (not gone) == (first is then or first is FEW or then is ALL)
    if (first, then) == (ALL, CHOSEN):
        assert gone == {f"NetworkPolicy platform/{name}-egress, taken away" for name in ("control-plane", "gateway")}


async def test_what_somebody_else_has_made_is_not_taken_away_however_it_is_labelled(rig: Rig) -> None:
    await rig.install(ALL)
    labels = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER}
    copied = {"name": "tools", "namespace": "agents", "labels": labels}
    helms = {**copied, "name": "released", "labels": {**labels, names.MANAGED_BY: "Helm"}}
    owned = {**copied, "name": "c-1", "ownerReferences": [{"kind": "Route", "name": "c-1"}]}
    await rig.cluster.put("networkpolicies", {"metadata": copied, "spec": {}})
    for plural, kind, meta in (("networkpolicies", "NetworkPolicy", helms), ("services", "Service", owned)):
        await rig.api.apply(KINDS[kind], {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": meta})
        assert rig.cluster.object(plural, "agents", str(meta["name"]))
    quota = {"metadata": {"name": "ours", "namespace": "platform"}, "spec": {"hard": {"pods": "9"}}}
    await rig.cluster.put("resourcequotas", quota)
    await rig.install(FEW)
    left = rig.inside("agents") | rig.inside("platform")
    assert left >= {("networkpolicies", "tools"), ("networkpolicies", "released"), ("services", "c-1")}
    assert ("resourcequotas", "ours") in left and ("resourcequotas", "chimera-hosts") not in left


async def test_a_kind_that_the_cluster_does_not_know_has_nothing_to_take_away(rig: Rig) -> None:
    def unknown(request: web.BaseRequest) -> web.StreamResponse | None:
        known = not request.path.startswith(("/apis/monitoring.coreos.com/", "/apis/eventing.knative.dev/"))
        return None if known else refusal(404, "NotFound", "the server could not find the requested resource")(request)

    rig.cluster.faults.append(unknown)
    await rig.install(FEW)
    await rig.install(FEW)


# -- cells stay gone --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def meanwhile(*played: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """What others do until the block ends, which is soon or never."""
    tasks = [asyncio.create_task(one) for one in played]
    try:
        async with asyncio.timeout(20):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("component", ["control-plane", "operator"])
async def test_cells_are_deleted_once_nobody_makes_them_again(
    rig: Rig, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that watches makes again what is deleted, until its pod is gone: a while after its Deployment."""
    monkeypatch.setattr(uninstaller, "LOOK_AGAIN", 0.01)
    await rig.install()
    labels = {names.MANAGED_BY: names.MANAGER}
    await rig.cluster.put(
        "pods", {"metadata": {"name": "a", "namespace": "platform", "labels": {**labels, **selector(component)}}}
    )
    cell = {"metadata": {"name": "c-1", "namespace": "agents", "labels": labels}}
    await rig.cluster.put("services", cell)
    looks = rig.looks_at("pods", "platform", 3)

    async def process() -> None:
        while True:
            await rig.cluster.news(rig.cluster.version)
            if rig.cluster.object("services", "agents", "c-1") is None and rig.cluster.object("pods", "platform", "a"):
                await rig.cluster.put("services", cell)

    async def end() -> None:
        await looks.wait()
        await rig.cluster.remove("pods", "platform", "a")

    async with meanwhile(process(), end()):
        assert await rig.uninstall(seconds=30.0) == []
    assert rig.inside("agents") == set() and not rig.cluster.objects("pods")


async def test_a_cell_that_was_on_its_way_is_found_by_another_look(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uninstaller, "LOOK_AGAIN", 0.01)
    await rig.install()
    labels = {names.MANAGED_BY: names.MANAGER}
    await rig.cluster.put("pods", {"metadata": {"name": "c-1-a", "namespace": "agents", "labels": labels}})
    looks = rig.looks_at("pods", "agents", 1)

    async def late() -> None:
        await looks.wait()
        await rig.cluster.put("services", {"metadata": {"name": "c-2", "namespace": "agents", "labels": labels}})
        await rig.cluster.remove("pods", "agents", "c-1-a")

    async with meanwhile(late()):
        assert await rig.uninstall(seconds=30.0) == []
    assert rig.inside("agents") == set()


async def test_a_process_that_does_not_end_is_waited_for_no_longer_than_was_said(rig: Rig) -> None:
    await rig.namespace("platform")
    await rig.install()
    labels = {names.MANAGED_BY: names.MANAGER, **selector("control-plane")}
    await rig.cluster.put("pods", {"metadata": {"name": "lost", "namespace": "platform", "labels": labels}})
    assert await rig.uninstall(seconds=0.0) == ["what is in platform"]
    assert rig.inside("agents") == set() and rig.inside("platform") == {("pods", "lost")}
