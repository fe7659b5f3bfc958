"""Pods as hosts: which take calls, how a sleeping cell wakes, and who a pod is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative import pool as pools
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.identities import PodIdentities
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.adapters.substrates.knative.reporting import KnativeReport
from chimera.adapters.substrates.knative.rights import GATEWAY, RIGHTS, Right
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.gateway.errors import CellUnavailable, NodeUnavailable, Unauthenticated
from chimera.gateway.tokens import host_key
from chimera.kernel.clock import SystemClock
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.testing.cluster import METRICS, FakeCluster, refusal

PATIENCE = 20.0
NAMESPACE = "cells"
SECRET = b"a secret of at least sixteen bytes"
RUNTIME = RuntimeClass(
    tenant="default", framework="langgraph", runtime="python", isolation="tenant:default", resources=STANDARD
)
CELL = CellSpec(cell=cell_id(RUNTIME), runtime_class=RUNTIME)
NAME = names.service_name(CELL.cell, "langgraph")


def service(*traffic: str, url: str | None = None, trouble: str | None = None) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    if trouble is not None:
        ready = {"type": "Ready", "status": "False", "reason": "Failed", "message": trouble}
    return {
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {names.MANAGED_BY: names.MANAGER},
            "annotations": {names.CELL: CELL.cell},
        },
        "spec": {},
        "status": {
            "observedGeneration": 1,
            "traffic": [{"revisionName": revision, "percent": 100 // len(traffic)} for revision in traffic],
            "address": {"url": url} if url else None,
            "conditions": [ready],
        },
    }


def pods(revision: str, *ready: str, unready: tuple[str, ...] = (), kind: str = "Private") -> dict[str, Any]:
    def endpoint(name: str, is_ready: bool) -> dict[str, Any]:
        return {
            "addresses": [f"10.0.0.{len(name)}"],
            "conditions": {"ready": is_ready},
            "targetRef": {"kind": "Pod", "name": name, "uid": f"uid-{name}"},
        }

    return {
        "metadata": {
            "name": f"{revision}-{kind.lower()}-abcde",
            "namespace": NAMESPACE,
            "labels": {
                names.SERVICE_TYPE: kind,
                names.KNATIVE_SERVICE: NAME,
                names.KNATIVE_REVISION: revision,
            },
        },
        "endpoints": [*(endpoint(name, True) for name in ready), *(endpoint(name, False) for name in unready)],
        "ports": [{"name": "http-autometric", "port": 9090}, {"name": "http", "port": 8012}],
    }


class Rig:
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.api = Kubernetes(access)
        self.pool = KnativePool(
            self.api,
            SystemClock(),
            namespace=NAMESPACE,
            key_of=lambda host, unique: host_key(SECRET, host=host, unique=unique),
        )
        self.changes: list[str] = []
        self.pool.on_change(self.changes.append)

    def hosts(self) -> list[str]:
        return [endpoint.host for endpoint in self.pool.endpoints(CELL.cell)]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeCluster() as cluster:
        made = Rig(cluster)
        running = asyncio.create_task(made.pool.run())
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.pool.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


async def test_ready_pods_of_a_revision_with_traffic_are_hosts(rig: Rig) -> None:
    await rig.cluster.put("services", service("r-2"))
    await rig.cluster.put("endpointslices", pods("r-1", "old"))
    await rig.cluster.put("endpointslices", pods("r-2", "pod-a", "pod-bb", unready=("pod-ccc",)))
    await rig.cluster.put("endpointslices", pods("r-2", "activator", kind="Public"))
    await until(lambda: rig.hosts() == ["pod-a", "pod-bb"])
    first = rig.pool.endpoints(CELL.cell)[0]
    assert (first.url, first.cell) == ("http://10.0.0.5:8012", CELL.cell)
    assert first.key == host_key(SECRET, host="pod-a", unique="uid-pod-a")
    assert first.key != host_key(SECRET, host="pod-a", unique="another pod of that name")
    assert set(rig.changes) == {CELL.cell}


async def test_calls_go_to_a_new_revision_when_knative_gives_it_traffic(rig: Rig) -> None:
    await rig.cluster.put("services", service("r-1"))
    await rig.cluster.put("endpointslices", pods("r-1", "old"))
    await until(lambda: rig.hosts() == ["old"])
    await rig.cluster.put("endpointslices", pods("r-2", "new"))
    await rig.cluster.put("services", service("r-1", "r-2"))
    await until(lambda: rig.hosts() == ["new", "old"])
    shared = service()
    shares = {"r-1": (0, "previous"), "r-2": (10, None), "r-3": (90, None)}
    shared["status"]["traffic"] = [
        {"revisionName": name, "percent": percent, "tag": tag} for name, (percent, tag) in shares.items()
    ]
    await rig.cluster.put("endpointslices", pods("r-3", "newer"))
    await rig.cluster.put("services", shared)
    await until(lambda: rig.hosts() == ["new", "newer"])
    found = {one.host: (one.side, one.weight) for one in rig.pool.endpoints(CELL.cell)}
    assert found == {"new": ("r-2", 10), "newer": ("r-3", 90)}, "one with a tag and no share takes no calls"
    await rig.cluster.put("services", service("r-2"))
    await until(lambda: rig.hosts() == ["new"])
    await rig.cluster.remove("services", NAMESPACE, NAME)
    await until(lambda: rig.hosts() == [])


async def test_a_sleeping_cell_is_woken_by_a_request_to_its_service(rig: Rig) -> None:
    asked: list[str] = []

    async def activator(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        await rig.cluster.put("endpointslices", pods("r-1", "pod-a"))
        return web.Response(text="ready\n")

    runner = web.ServerRunner(web.Server(activator))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        await rig.cluster.put("services", service("r-1", url=f"http://127.0.0.1:{runner.addresses[0][1]}"))
        found = await rig.pool.wake(CELL, PATIENCE)
        assert [endpoint.host for endpoint in found] == ["pod-a"] and asked[0] == "/readyz"
    finally:
        await runner.cleanup()


async def test_a_cell_that_is_not_there_yet_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "POKE_AGAIN", 0.01)
    waking = asyncio.create_task(rig.pool.wake(CELL, PATIENCE))
    await asyncio.sleep(0.05)
    await rig.cluster.put("services", service("r-1"))
    await rig.cluster.put("endpointslices", pods("r-1", "pod-a"))
    assert [endpoint.host for endpoint in await waking] == ["pod-a"]


async def test_a_cell_that_can_not_start_says_why_at_once(rig: Rig) -> None:
    await rig.cluster.put("services", service("r-1", trouble="Unable to fetch image: manifest unknown"))
    with pytest.raises(CellUnavailable, match="manifest unknown") as refused:
        await rig.pool.wake(CELL, PATIENCE)
    assert "image" in (refused.value.next_step or "")


async def test_a_cell_that_does_not_wake_in_time_says_so(rig: Rig) -> None:
    await rig.cluster.put("services", service("r-1"))
    with pytest.raises(CellUnavailable, match="no pod of cell"):
        await rig.pool.wake(CELL, 0.2)


def shares(**weights: tuple[int, str | None]) -> dict[str, Any]:
    made = service()
    made["status"]["traffic"] = [
        {"revisionName": name.replace("_", "-"), "percent": percent, "tag": tag}
        for name, (percent, tag) in weights.items()
    ]
    return made


async def test_a_new_side_gets_no_calls_before_it_has_loaded_what_the_old_one_has(rig: Rig) -> None:
    asked: list[tuple[list[str], list[str]]] = []
    loaded = asyncio.Event()

    async def warmer(cell: str, before: Any, after: Any) -> None:
        assert cell == CELL.cell
        asked.append(([one.host for one in before], [one.host for one in after]))
        await loaded.wait()

    rig.pool.on_new_side(warmer)
    await rig.cluster.put("services", shares(r_1=(100, None)))
    await rig.cluster.put("endpointslices", pods("r-1", "old"))
    await until(lambda: rig.hosts() == ["old"])
    assert not asked, "what serves from the first has nothing to learn"
    await rig.cluster.put("endpointslices", pods("r-2", "new-a", "new-bb"))
    await rig.cluster.put("services", shares(r_1=(100, None), r_2=(0, "next")))
    await until(lambda: asked == [(["old"], ["new-a", "new-bb"])])
    await rig.cluster.put("services", shares(r_2=(100, None), r_1=(0, "previous")))
    version = rig.cluster.version
    await rig.cluster.put("endpointslices", pods("r-1", "old", "old-b"))
    await until(lambda: rig.hosts() == ["old", "old-b"])
    assert rig.cluster.version > version and len(asked) == 1
    loaded.set()
    await until(lambda: rig.hosts() == ["new-a", "new-bb"])
    await rig.cluster.put("services", shares(r_1=(100, None), r_2=(0, "next")))
    await until(lambda: rig.hosts() == ["old", "old-b"])
    assert len(asked) == 1, "and back without another word"


async def test_a_new_side_that_is_slow_to_load_gets_its_calls_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "LONGEST_WARMING", 0.05)

    async def warmer(*_: Any) -> None:
        await asyncio.Event().wait()

    rig.pool.on_new_side(warmer)
    await rig.cluster.put("services", shares(r_1=(100, None)))
    await rig.cluster.put("endpointslices", pods("r-1", "old"))
    await until(lambda: rig.hosts() == ["old"])
    await rig.cluster.put("endpointslices", pods("r-2", "new"))
    await rig.cluster.put("services", shares(r_1=(70, None), r_2=(30, None)))
    await until(lambda: rig.hosts() == ["new", "old"])


async def test_a_cell_whose_old_pods_are_gone_is_served_by_the_new_side_at_once(rig: Rig) -> None:
    async def warmer(*_: Any) -> None:
        await asyncio.Event().wait()

    rig.pool.on_new_side(warmer)
    await rig.cluster.put("services", shares(r_1=(100, None)))
    await rig.cluster.put("endpointslices", pods("r-1", "old"))
    await until(lambda: rig.hosts() == ["old"])
    await rig.cluster.put("endpointslices", pods("r-2", "new"))
    await rig.cluster.put("services", shares(r_2=(100, None), r_1=(0, "previous")))
    await rig.cluster.put("endpointslices", pods("r-1"))
    await until(lambda: rig.hosts() == ["new"])


class QueueProxy:
    """What answers at a pod's address: its host is as the test says."""

    def __init__(self) -> None:
        self.ready = False
        self.looks: list[float] = []
        self.port = 0

    async def __aenter__(self) -> "QueueProxy":
        self.runner = web.ServerRunner(web.Server(self.handle))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        assert request.headers["User-Agent"].startswith("kube-probe/"), "else it would be counted as a call"
        assert request.headers["K-Network-Probe"] == "queue"
        self.looks.append(asyncio.get_running_loop().time())
        return web.Response(text="queue") if self.ready else web.Response(status=503)

    def slice(self, *others: str) -> dict[str, Any]:
        made = pods("r-1", "pod-a", *others)
        made["endpoints"][0]["addresses"] = ["127.0.0.1"]
        made["ports"] = [{"name": "http", "port": self.port}]
        return made


@pytest.mark.parametrize("kind", ["crashed", "unreachable"])
async def test_a_pod_that_broke_a_call_gets_no_other_until_it_was_looked_at(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(pools, "FIRST_LOOK", 0.02)
    async with QueueProxy() as pod:
        await rig.cluster.put("services", service("r-1"))
        await rig.cluster.put("endpointslices", pod.slice("pod-bb"))
        await until(lambda: len(rig.hosts()) == 2)
        await rig.pool.report("pod-a", kind="timeout", agent="a", call="c")
        assert len(rig.hosts()) == 2 and not pod.looks, "what took too long broke nothing"
        await rig.pool.report("pod-a", kind=kind, agent="a", call="c")
        await rig.pool.report("pod-a", kind=kind, agent="a", call="another call that broke with it")
        assert rig.hosts() == ["pod-bb"]
        await until(lambda: len(pod.looks) == 4)
        assert rig.hosts() == ["pod-bb"], "it was looked at, and isn't ready"
        pauses = [later - sooner for sooner, later in zip(pod.looks, pod.looks[1:], strict=False)]
        assert pauses[0] >= 0.04 and pauses[1] >= 0.08 and pauses[2] >= 0.16, "longer each time"
        pod.ready = True
        await until(lambda: rig.hosts() == ["pod-a", "pod-bb"])


async def test_who_wakes_a_cell_whose_only_pod_broke_a_call_waits_for_a_pod_that_lives(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "FIRST_LOOK", 0.02)
    async with QueueProxy() as pod:
        await rig.cluster.put("services", service("r-1"))
        await rig.cluster.put("endpointslices", pod.slice())
        await until(lambda: rig.hosts() == ["pod-a"])
        await rig.pool.report("pod-a", kind="crashed", agent="a", call="c")
        waking = asyncio.create_task(rig.pool.wake(CELL, PATIENCE))
        await until(lambda: len(pod.looks) == 2)
        assert not waking.done()
        pod.ready = True
        assert [endpoint.host for endpoint in await waking] == ["pod-a"]


async def test_a_pod_that_is_gone_is_looked_at_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "FIRST_LOOK", 0.02)
    async with QueueProxy() as pod:
        await rig.cluster.put("services", service("r-1"))
        await rig.cluster.put("endpointslices", pod.slice())
        await until(lambda: rig.hosts() == ["pod-a"])
        await rig.pool.report("pod-a", kind="crashed", agent="a", call="c")
        await until(lambda: len(pod.looks) == 1)
        await rig.cluster.put("endpointslices", pods("r-1", "pod-bb"))
        await until(lambda: rig.hosts() == ["pod-bb"])
        await asyncio.sleep(0.2)
        seen = len(pod.looks)
        await asyncio.sleep(0.3)
        assert len(pod.looks) == seen


# -- who a pod is ------------------------------------------------------------------------------------------------------

ACCOUNT = "system:serviceaccount:cells:chimera-host"


def review(pod: str, uid: str, *, username: str = ACCOUNT, audience: str = "chimera") -> dict[str, Any]:
    extra = {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]}
    return {"user": {"username": username, "extra": extra}, "audiences": [audience]}


@pytest.fixture
async def identities(rig: Rig) -> AsyncIterator[PodIdentities]:
    access = ClusterAccess(server=rig.cluster.url, tls=None, credentials=NoToken(), namespace="default")
    api = Kubernetes(access)
    pod = {
        "metadata": {
            "name": "pod-a",
            "namespace": NAMESPACE,
            "uid": "uid-a",
            "labels": {names.MANAGED_BY: names.MANAGER},
            "annotations": {names.CELL: CELL.cell},
        }
    }
    await rig.cluster.put("pods", pod)
    await rig.cluster.put("pods", {"metadata": {"name": "other", "namespace": NAMESPACE, "uid": "uid-o"}})
    yield PodIdentities(api, KnativeSettings(namespace=NAMESPACE))
    await api.aclose()


async def test_a_pod_of_a_cell_is_known_by_its_token(rig: Rig, identities: PodIdentities) -> None:
    rig.cluster.reviews["good"] = review("pod-a", "uid-a")
    known = await identities.identify("good")
    assert (known.host, known.cell, known.unique) == ("pod-a", CELL.cell, "uid-a")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (None, "doesn't know the token"),
        (review("pod-a", "uid-a", audience="somebody else"), "another audience"),
        (review("pod-a", "uid-a", username="system:serviceaccount:cells:default"), "not the service account"),
        (review("pod-a", "uid-of-before"), "not the one"),
        (review("pod-gone", "uid-a"), "there is no pod"),
        (review("other", "uid-o"), "no host of a cell"),
        ({"user": {"username": ACCOUNT}, "audiences": ["chimera"]}, "bound to no pod"),
    ],
)
async def test_nobody_else_is(rig: Rig, identities: PodIdentities, shown: dict[str, Any] | None, words: str) -> None:
    if shown is not None:
        rig.cluster.reviews["token"] = shown
    with pytest.raises(Unauthenticated, match=words):
        await identities.identify("token")


@pytest.mark.parametrize("token", ["", "x" * 20_000, "nicht-ascii-ä"])
async def test_what_can_be_no_token_is_not_asked_about(rig: Rig, identities: PodIdentities, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await identities.identify(token)
    assert ("POST", "tokenreviews") not in rig.cluster.calls


async def test_a_cluster_that_can_not_say_is_no_refusal(rig: Rig, identities: PodIdentities) -> None:
    rig.cluster.faults.append(refusal(403, "Forbidden", "tokenreviews is forbidden"))
    with pytest.raises(NodeUnavailable, match="can't say"):
        await identities.identify("good")


async def test_the_gateways_rights_are_exactly_what_it_does(rig: Rig, identities: PodIdentities) -> None:
    rig.cluster.reviews["good"] = review("pod-a", "uid-a")
    await identities.identify("good")
    await until(lambda: all(("WATCH", plural) in rig.cluster.calls for plural in ("services", "endpointslices")))
    process = {"name": "gateway-1", "namespace": "default", "labels": {names.MANAGED_BY: names.MANAGER}}
    await rig.cluster.put("pods", {"metadata": process})
    await look_at_everything(rig)
    used = {
        (("cells", "own", "everywhere")[(NAMESPACE, "default", "").index(where)], *what)
        for where, *what in rig.cluster.verbs
    }
    assert used == {
        ("everywhere" if right.everywhere else "own" if right.own else "cells", shown(right), verb)
        for right in RIGHTS[GATEWAY]
        for verb in right.verbs
    }


def shown(right: Right) -> str:
    """A resource as the fake cluster names it: what pods use is apart from pods."""
    return f"{right.resource}.{right.group}" if right.group == METRICS else right.resource


async def look_at_everything(rig: Rig) -> None:
    async def spec_of(_: str) -> CellSpec:
        return CELL

    report = KnativeReport(
        *(rig.api, rig.pool, SystemClock()),
        namespace=NAMESPACE,
        key_of=lambda host, _: host,
        spec_of=spec_of,
        cells_of=lambda _: frozenset(),
        own_pod="gateway-1",
        use=lambda: (1, 0.0, 1),
    )
    await report.top()
    async with aclosing(await report.logs(LogQuery(), lambda: False)) as lines:
        assert [line async for line in lines] == []
    await report.aclose()
