"""What a cluster's API does for its client: the shipped fake, and the real one that `CHIMERA_TEST_KUBECONFIG` names."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from msgspec import Struct

from chimera.adapters.substrates.knative import client
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken, from_kubeconfig
from chimera.adapters.substrates.knative.client import Change, Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterConflict, ClusterRefused, NotInCluster, WatchExpired
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.installation import Installation
from chimera.adapters.substrates.knative.installer import can_carry_events, can_monitor
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.adapters.substrates.knative.preflight import NotFit
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.install import with_events
from chimera.kernel.clock import SystemClock
from chimera.testing.cluster import FakeCluster, refusal


class Map(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    data: dict[str, str] = {}


MAPS = Resource("", "v1", "configmaps", "ConfigMap", Map)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Map, namespaced=False)


@dataclass
class Rig:
    """A client, a namespace of the test's own, and the fake where it is one."""

    api: Kubernetes
    namespace: str
    fake: FakeCluster | None = None

    def manifest(self, name: str, **data: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": self.namespace, "labels": {"of": "test"}},
            "data": data,
        }


@pytest.fixture(params=["fake", "real"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "fake":
        async with FakeCluster() as fake:
            api = Kubernetes(ClusterAccess(server=fake.url, tls=None, credentials=NoToken(), namespace="default"))
            yield Rig(api, "tests", fake)
            await api.aclose()
        return
    if not (file := os.environ.get("CHIMERA_TEST_KUBECONFIG")):
        pytest.skip("CHIMERA_TEST_KUBECONFIG names no cluster")
    api = Kubernetes(from_kubeconfig(Path(file), SystemClock()))
    name = f"chimera-test-{uuid4().hex[:8]}"
    await api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Rig(api, name)
    await api.delete(NAMESPACES, None, name)
    await api.aclose()


@pytest.fixture
async def background() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that end with the test."""
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


PATIENCE = 20.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


async def test_what_is_applied_is_there(rig: Rig) -> None:
    made = await rig.api.apply(MAPS, rig.manifest("one", a="1"))
    found = await rig.api.get(MAPS, rig.namespace, "one")
    assert (found.data, found.metadata.uid) == ({"a": "1"}, made.metadata.uid)
    assert found.metadata.uid and found.metadata.resource_version


async def test_what_is_applied_again_unchanged_is_no_change(rig: Rig) -> None:
    first = await rig.api.apply(MAPS, rig.manifest("one", a="1"))
    second = await rig.api.apply(MAPS, rig.manifest("one", a="1"))
    assert second.metadata.resource_version == first.metadata.resource_version


async def test_a_field_that_is_applied_no_more_goes(rig: Rig) -> None:
    await rig.api.apply(MAPS, rig.manifest("one", a="1", b="2"))
    assert (await rig.api.apply(MAPS, rig.manifest("one", a="1"))).data == {"a": "1"}


async def test_a_dry_run_leaves_everything_as_it_was(rig: Rig) -> None:
    assert (await rig.api.apply(MAPS, rig.manifest("one", a="1"), dry_run=True)).data == {"a": "1"}
    with pytest.raises(NotInCluster):
        await rig.api.get(MAPS, rig.namespace, "one")


async def test_a_field_of_somebody_else_is_a_conflict_unless_it_is_taken(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as as_somebody_else:
        as_somebody_else.setattr(client, "FIELD_MANAGER", "somebody-else")
        await rig.api.apply(MAPS, rig.manifest("one", a="1", b="theirs"))
    with pytest.raises(ClusterConflict):
        await rig.api.apply(MAPS, rig.manifest("one", a="2"))
    taken = await rig.api.apply(MAPS, rig.manifest("one", a="2"), force=True)
    assert taken.data == {"a": "2", "b": "theirs"}


async def test_a_list_has_what_the_labels_choose_whatever_the_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE", 2)
    for number in range(5):
        await rig.api.apply(MAPS, rig.manifest(f"map-{number}", n=str(number)))
    other = rig.manifest("other")
    other["metadata"]["labels"] = {"of": "others"}  # type: ignore[index]
    await rig.api.apply(MAPS, other)
    listing = await rig.api.list(MAPS, rig.namespace, "of=test")
    assert sorted(item.metadata.name for item in listing.items) == [f"map-{number}" for number in range(5)]
    assert listing.version


async def test_an_object_is_deleted_once_and_only_if_it_is_the_one_that_is_meant(rig: Rig) -> None:
    made = await rig.api.apply(MAPS, rig.manifest("one"))
    with pytest.raises(ClusterConflict):
        await rig.api.delete(MAPS, rig.namespace, "one", uid="00000000-0000-0000-0000-000000000000")
    assert await rig.api.delete(MAPS, rig.namespace, "one", uid=made.metadata.uid)
    assert not await rig.api.delete(MAPS, rig.namespace, "one")


async def test_a_watch_tells_every_change_after_a_version_in_order(rig: Rig) -> None:
    await rig.api.apply(MAPS, rig.manifest("before"))
    listing = await rig.api.list(MAPS, rig.namespace, "of=test")
    await rig.api.apply(MAPS, rig.manifest("one", a="1"))
    await rig.api.apply(MAPS, rig.manifest("one", a="2"))
    await rig.api.delete(MAPS, rig.namespace, "one")
    seen: list[Change[Map]] = []
    async with asyncio.timeout(PATIENCE):
        async for change in rig.api.watch(MAPS, rig.namespace, "of=test", listing.version):
            if change.item is not None:
                seen.append(change)
            if change.gone:
                break
    assert [(change.item.data, change.gone) for change in seen if change.item] == [
        ({"a": "1"}, False),
        ({"a": "2"}, False),
        ({"a": "2"}, True),
    ]


async def test_a_watch_from_a_version_that_is_forgotten_has_expired(rig: Rig) -> None:
    if rig.fake is None:
        pytest.skip("a real server forgets when it likes")
    await rig.api.apply(MAPS, rig.manifest("one"))
    rig.fake.forget()
    with pytest.raises(WatchExpired):
        async with asyncio.timeout(PATIENCE):
            async for _ in rig.api.watch(MAPS, rig.namespace, "of=test", "1"):
                pass


async def test_who_follows_sees_what_is_there_and_what_comes_and_goes(
    rig: Rig, background: "list[asyncio.Task[None]]"
) -> None:
    await rig.api.apply(MAPS, rig.manifest("first", a="1"))
    following = Following(rig.api, MAPS, namespace=rig.namespace, selector="of=test")
    told: list[str] = []
    also: list[str] = []
    for place in (told, also):
        following.on_change(lambda items, place=place: place.extend(item.metadata.name for item in items))  # type: ignore[misc]
    background.append(asyncio.create_task(following.run()))
    await until(lambda: (rig.namespace, "first") in following.objects)
    await rig.api.apply(MAPS, rig.manifest("second", a="2"))
    await until(lambda: (rig.namespace, "second") in following.objects)
    await rig.api.delete(MAPS, rig.namespace, "first")
    await until(lambda: set(following.objects) == {(rig.namespace, "second")})
    assert told == ["first", "second", "first"]
    assert also == told, "all who want to know are told"
    assert following.failure is None


async def test_whether_there_is_anything_that_reads_monitors_is_asked_of_the_cluster(rig: Rig) -> None:
    if rig.fake is None:
        definitions = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "", Map, namespaced=False)
        known = {one.metadata.name for one in (await rig.api.list(definitions, None)).items}
        assert await can_monitor(rig.api) == ("podmonitors.monitoring.coreos.com" in known)
        return
    assert await can_monitor(rig.api)
    rig.fake.faults.append(refusal(404, "NotFound", "no such kind"))
    assert not await can_monitor(rig.api)


class Served(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    spec: dict[str, object] = {}
    status: dict[str, object] = {}


SERVICES = Resource("", "v1", "services", "Service", Served)


async def test_a_status_is_applied_by_itself_to_the_object_that_is_meant(rig: Rig) -> None:
    meta = {"name": "one", "namespace": rig.namespace}
    spec = {"type": "ExternalName", "externalName": "a"}
    whole = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
    told = {
        "type": "Told",
        "status": "True",
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    async def tell(uid: str, *conditions: dict[str, str]) -> Served:
        other = {**whole, "spec": {**spec, "externalName": "b"}, "metadata": {**meta, "uid": uid}}
        document = {**other, "status": {"conditions": conditions}}
        return await rig.api.apply(SERVICES, document, manager="teller", force=True, part="status")

    made = await rig.api.apply(SERVICES, whole)
    with pytest.raises(ClusterRefused, match=r"metadata\.uid"):
        await tell("00000000-0000-0000-0000-000000000000", told)
    answered = await tell(made.metadata.uid, told)
    assert answered.status["conditions"] == [told] and answered.spec["externalName"] == "a"
    again = await tell(made.metadata.uid, told)
    assert again.metadata.resource_version == answered.metadata.resource_version, "the same once more is no change"
    assert not (await tell(made.metadata.uid)).status.get("conditions"), "what is told no more goes"


async def test_whether_events_can_be_carried_is_asked_of_the_cluster_and_refused_where_they_can_not(rig: Rig) -> None:
    chosen = Installation(knative=KnativeSettings(), database="postgresql://somewhere/chimera")
    if rig.fake is None:
        definitions = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "", Map, namespaced=False)
        known = {one.metadata.name for one in (await rig.api.list(definitions, None)).items}
        assert await can_carry_events(rig.api) == ("brokers.eventing.knative.dev" in known)
        return
    assert (await with_events(rig.api, chosen, None)).eventing
    assert not (await with_events(rig.api, chosen, False)).eventing
    rig.fake.faults.append(refusal(404, "NotFound", "no such kind"))
    assert not (await with_events(rig.api, chosen, None)).eventing
    rig.fake.faults.append(refusal(404, "NotFound", "no such kind"))
    with pytest.raises(NotFit, match="knows no Brokers"):
        await with_events(rig.api, chosen, True)
