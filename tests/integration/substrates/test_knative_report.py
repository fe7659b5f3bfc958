"""What a report of a cluster costs and asks, and what its logs leave out (`tests/contract/reports` has the rest)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, timedelta, timezone
from itertools import count
from typing import Any

import msgspec
import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import client, names, podlogs
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterAway, ClusterDenied
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.adapters.substrates.knative.reporting import FRESH, KnativeReport
from chimera.platform.errors import PlatformError
from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec
from chimera.testing.clock import ManualClock
from chimera.testing.cluster import METRICS, FakeCluster, Fault, refusal
from chimera_host.contract.call import LoadedReport

MANAGED = {names.MANAGED_BY: names.MANAGER}
NODE_AWAY = refusal(
    *(500, "InternalError"),
    'Get "https://10.0.0.9:10250/containerLogs/cells/pod-b/host": dial tcp 10.0.0.9:10250: i/o timeout',
)
THROTTLED = refusal(429, "TooManyRequests", "too many requests")
DENIED = refusal(403, "Forbidden", 'pods "pod-b" is forbidden: no access to pods/log')


class Rig:
    """A report on a fake cluster, and a queue-proxy on 127.0.0.1 that answers for every pod there."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.clock = ManualClock()
        self.asked: list[dict[str, str]] = []
        self.report: KnativeReport

    async def __aenter__(self) -> "Rig":
        self.api = Kubernetes(
            ClusterAccess(server=self.cluster.url, tls=None, credentials=NoToken(), namespace="platform")
        )
        self.pool = KnativePool(self.api, self.clock, namespace="cells", key_of=lambda host, uid: f"{host}/{uid}")
        self.runner = web.ServerRunner(web.Server(self._loaded))
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.report = KnativeReport(
            *(self.api, self.pool, self.clock),
            namespace="cells",
            key_of=lambda host, uid: f"{host}/{uid}",
            spec_of=self._spec_of,
            cells_of=lambda agent: frozenset({f"cell-of-{agent}"}),
            own_pod="",
            use=lambda: (1, 0.0, 1),
            port=self.runner.addresses[0][1],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.report.aclose()
        await self.pool.aclose()
        await self.runner.cleanup()

    async def _spec_of(self, cell: str) -> CellSpec:
        raise PlatformError(f"no {cell}")

    async def _loaded(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(dict(request.headers))
        host = request.headers["Authorization"].removeprefix("Bearer ").partition("/")[0]
        told = LoadedReport(
            **{"host": host, "framework": "langgraph", "loaded": 12, "agents": [], "in_flight": 3},
            **{"resident_bytes": 99, "limit_bytes": 100, "evictions": 1},
        )
        return web.Response(body=msgspec.json.encode(told))

    async def pod(self, name: str, *, cell: str = "cell-1", address: str = "127.0.0.1", **status: Any) -> None:
        meta = {"name": name, "namespace": "cells", "uid": f"uid-{name}", "labels": MANAGED}
        conditions = [{"type": "Ready", "status": "True"}]
        await self.cluster.put(
            "pods",
            {
                "metadata": {**meta, "annotations": {names.CELL: cell}, "creationTimestamp": f"2026-01-02T{name}"},
                "status": {"phase": "Running", "podIP": address, "conditions": conditions, **status},
            },
        )

    async def process(self, component: str, *usages: dict[str, str]) -> None:
        """A pod of the platform, and what its containers use where that was measured."""
        labels = {**MANAGED, "app.kubernetes.io/component": component}
        meta = {"name": f"{component}-1", "namespace": "platform", "labels": labels}
        await self.cluster.put("pods", {"metadata": meta})
        if usages:
            containers = [{"name": "c", "usage": usage} for usage in usages]
            await self.cluster.put(f"pods.{METRICS}", {"metadata": meta, "window": "15s", "containers": containers})

    def unreadable(self, fault: Fault, *pods: str) -> None:
        """Answer with `fault` whoever reads the logs of these pods."""
        paths = {f"/api/v1/namespaces/cells/pods/{pod}/log" for pod in pods}
        self.cluster.faults.append(lambda request: fault(request) if request.path in paths else None)

    async def asked_again(self, kind: str, times: int) -> None:
        """Return once the cluster was asked so many more times."""
        before = self.cluster.calls["GET", kind]
        async with asyncio.timeout(20):
            while self.cluster.calls["GET", kind] < before + times:  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.01)

    async def messages(self, query: LogQuery) -> list[str]:
        async with aclosing(await self.report.logs(query, lambda: False)) as lines:
            return [msgspec.json.decode(line)["message"] async for line in lines]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeCluster() as cluster, Rig(cluster) as made:
        yield made


async def test_hosts_are_asked_with_their_keys_by_requests_that_the_autoscaler_leaves_out(rig: Rig) -> None:
    await rig.pod("pod-a")
    await rig.pod("silent", address="127.0.0.77")
    await rig.pod("starting", conditions=[])
    rows = {row.host: row for row in await rig.report.hosts()}
    asked = rows["pod-a"]
    assert (asked.loaded_agents, asked.in_flight, asked.evictions, asked.resident_bytes) == (12, 3, 1, 99)
    assert rows["silent"].loaded_agents is rows["silent"].resident_bytes is rows["starting"].loaded_agents is None
    (headers,) = rig.asked
    assert headers["Authorization"] == "Bearer pod-a/uid-pod-a"
    assert headers["K-Proxy-Request"] == "activator", "what the activator counted is not counted again"


async def test_top_shows_what_every_process_of_the_platform_uses_where_the_cluster_measures_it(rig: Rig) -> None:
    rig.cluster.measures = True
    await rig.process("gateway", {"cpu": "1234567890n", "memory": "200Mi"}, {"cpu": "6m", "memory": "1Ki"})
    await rig.process("control-plane", {"cpu": "3", "memory": "70000Ki"})
    await rig.process("operator", {"cpu": "500u", "memory": "5M"})
    top = await rig.report.top()
    shown = {row.process: (row.cpu_cores, row.working_set_bytes) for row in top.processes}
    assert shown == {
        "gateway": (1.241, 200 * 1024**2 + 1024),
        "control-plane": (3.0, 70_000 * 1024),
        "operator": (0.001, 5_000_000),
    }
    assert top.missing == []
    await rig.process("newcomer")
    top = await rig.report.top()
    assert top.missing == ["what newcomer-1 uses: the cluster's metrics API has not measured it yet"]


async def test_top_says_why_it_does_not_know_what_processes_use(rig: Rig) -> None:
    await rig.process("gateway")

    async def said() -> str:
        top = await rig.report.top()
        assert [(row.process, row.cpu_cores, row.working_set_bytes) for row in top.processes] == [
            ("gateway", None, None)
        ]
        (missing,) = top.missing
        return missing

    assert "install metrics-server" in await said()
    rig.cluster.measures = True
    await rig.process("gateway", {"cpu": "a lot", "memory": "1Ki"})
    assert "a lot" in await said()
    broken = refusal(503, "ServiceUnavailable", "the server is currently unable to handle the request")
    rig.cluster.faults.append(lambda request: broken(request) if METRICS in request.path else None)
    assert "unable to handle" in await said()


async def test_those_who_look_together_share_one_look(rig: Rig) -> None:
    await rig.pod("pod-a")
    await asyncio.gather(rig.report.cells(), rig.report.hosts(), rig.report.incidents(), rig.report.hosts())
    assert (rig.cluster.calls["GET", "pods"], len(rig.asked)) == (1, 1)
    rig.clock.advance(FRESH + 0.1)
    await rig.report.hosts()
    assert (rig.cluster.calls["GET", "pods"], len(rig.asked)) == (2, 2)


async def test_a_cluster_that_refuses_is_an_error_before_anything_is_shown(rig: Rig) -> None:
    rig.cluster.faults.append(refusal(403, "Forbidden", "pods is forbidden"))
    with pytest.raises(ClusterDenied):
        await rig.report.hosts()
    with pytest.raises(ClusterDenied):
        await rig.report.logs(LogQuery(), lambda: False)


async def test_only_pods_of_the_agents_cells_are_read_for_an_agent(rig: Rig) -> None:
    for name, cell in (("pod-a", "cell-of-anna"), ("pod-b", "cell-of-berta")):
        await rig.pod(name, cell=cell)
        await rig.cluster.log("cells", name, "host", '{"time": "1", "message": "hello", "agent": "anna"}')
    assert await rig.messages(LogQuery(agent="default/anna")) == ["hello"]
    assert rig.cluster.calls["GET", "pods/log"] == 1


async def test_what_a_container_said_before_it_started_again_is_shown(rig: Rig) -> None:
    await rig.pod("pod-a", containerStatuses=[{"name": "host", "restartCount": 1}])
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "about to die"}', previous=True)
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "anew"}')
    assert await rig.messages(LogQuery()) == ["about to die", "anew"]


async def test_pods_beyond_the_bound_are_left_out_and_that_is_said(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "MOST_PODS", 2)
    for number in range(5):
        await rig.pod(f"pod-{number}")
        await rig.cluster.log("cells", f"pod-{number}", "host", f'{{"time": "{number}", "message": "{number}"}}')
    said, *shown = await rig.messages(LogQuery())
    assert "3 more pods are not read" in said and shown == ["3", "4"], "the newest are read"


async def test_a_follower_goes_on_with_the_container_that_comes_after(rig: Rig) -> None:
    await rig.pod("pod-a")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "one"}')
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "one":
                await rig.pod("pod-a", containerStatuses=[{"name": "host", "restartCount": 1}])
                await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "two"}')
            elif seen[-1] == "two":
                await rig.cluster.log("cells", "pod-a", "host", '{"time": "3", "message": "three"}')
            else:
                break
    assert seen[0] == "one" and seen[-1] == "three"


async def test_who_reads_slowly_follows_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "LOOK_AGAIN", 0.01)
    await rig.pod("pod-a")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "one"}')
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "two":  # this one is taken long over, as by a caller whose connection is slow
                await rig.asked_again("pods", 5)
            if seen[-1] == "three":
                break
            more = "two" if seen[-1] == "one" else "three"
            await rig.cluster.log("cells", "pod-a", "host", f'{{"time": "2", "message": "{more}"}}')
    assert seen == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("fault", "why"), [(NODE_AWAY, "i/o timeout"), (THROTTLED, "too many requests"), (DENIED, "no access to pods/log")]
)
async def test_a_pod_that_cannot_be_read_is_named_and_the_others_are_shown(rig: Rig, fault: Fault, why: str) -> None:
    for name in ("pod-a", "pod-b", "pod-c"):
        await rig.pod(name)
        await rig.cluster.log("cells", name, "host", f'{{"time": "{name}", "message": "of {name}"}}')
    rig.unreadable(fault, "pod-b")
    said, *shown = await rig.messages(LogQuery())
    assert shown == ["of pod-a", "of pod-c"]
    assert "pod-b" in said and why in said and "pod-a" not in said


async def test_a_log_is_refused_only_where_no_pod_can_be_read(rig: Rig) -> None:
    for name in ("pod-a", "pod-b"):
        await rig.pod(name)
        await rig.cluster.log("cells", name, "host", '{"time": "1", "message": "hello"}')
    rig.unreadable(NODE_AWAY, "pod-a", "pod-b")
    with pytest.raises(ClusterAway, match="i/o timeout"):
        await rig.report.logs(LogQuery(), lambda: False)


async def test_a_pod_whose_log_stays_silent_is_left_out_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(web.StreamResponse):
        async def prepare(self, request: web.BaseRequest) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(client, "LOG_SILENCE", 0.05)
    for name in ("pod-a", "pod-b"):
        await rig.pod(name)
        await rig.cluster.log("cells", name, "host", f'{{"time": "1", "message": "of {name}"}}')
    rig.unreadable(lambda _: Silent(), "pod-b")
    async with asyncio.timeout(20):
        said, *shown = await rig.messages(LogQuery())
    assert shown == ["of pod-a"] and "pod-b" in said


async def test_a_follower_is_told_once_of_a_pod_that_cannot_be_read_and_gets_its_lines_when_it_can(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(podlogs, "LOOK_AGAIN", 0.01)
    for name in ("pod-a", "pod-b"):
        await rig.pod(name)
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "of pod-a"}')
    numbers = count()
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        rig.unreadable(THROTTLED, "pod-b")
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if "pod-b" in seen[-1]:
                await rig.asked_again("pods/log", 5)  # and nothing more is said
                rig.cluster.faults.clear()
                await rig.cluster.log("cells", "pod-b", "host", '{"time": "2", "message": "read at last"}')
            if seen[-1] == "read at last":
                break
            assert next(numbers) < 10, seen
    first, said, last = seen
    assert (first, last) == ("of pod-a", "read at last") and "too many requests" in said


async def test_a_follower_outlasts_a_cluster_that_asks_to_slow_down(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "LOOK_AGAIN", 0.01)
    await rig.pod("pod-a")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "one"}')
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "one":
                await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "two"}')
            elif seen[-1] == "two":
                rig.cluster.faults.append(
                    lambda request: THROTTLED(request) if request.path.endswith("/pods") else None
                )
                await rig.asked_again("pods", 3)
                rig.cluster.faults.clear()
                await rig.pod("pod-b")
                await rig.cluster.log("cells", "pod-b", "host", '{"time": "3", "message": "of one that came"}')
            else:
                break
    assert seen == ["one", "two", "of one that came"]


@pytest.mark.parametrize("hours", [2, -5, 0])
async def test_a_node_in_any_zone_is_read_and_followed(rig: Rig, hours: int) -> None:
    rig.cluster.zone = timezone(timedelta(hours=hours))
    await rig.pod("pod-a", cell="cell-of-anna")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "other", "agent": "berta"}')
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "one", "agent": "anna"}')
    seen: list[str] = []
    query = LogQuery(agent="default/anna", follow=True)
    async with asyncio.timeout(20), aclosing(await rig.report.logs(query, lambda: False)) as lines:
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "one":
                await rig.cluster.log("cells", "pod-a", "host", '{"time": "3", "message": "two", "agent": "anna"}')
            else:
                break
    assert seen == ["one", "two"]


async def test_a_node_whose_zone_changes_is_read_and_followed_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "LOOK_AGAIN", 0.01)
    rig.cluster.zone = timezone(timedelta(hours=2))
    await rig.pod("pod-a")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "1", "message": "one"}')
    seen: list[str] = []
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "one":
                rig.cluster.zone = UTC
                await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "two"}')
            else:
                break
    assert seen == ["one", "two"]


async def test_what_a_node_says_in_place_of_a_log_is_shown_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "LOOK_AGAIN", 0.01)
    said = "unable to retrieve container logs for containerd://0123456789abcdef0123456789abcdef"
    await rig.pod("pod-a")
    times = count(1)
    rig.unreadable(lambda _: web.Response(text=said) if next(times) < 6 else None, "pod-a")
    await rig.cluster.log("cells", "pod-a", "host", '{"time": "2", "message": "there again"}')
    async with asyncio.timeout(20), aclosing(await rig.report.logs(LogQuery(follow=True), lambda: False)) as lines:
        seen = [msgspec.json.decode(await anext(lines))["message"] for _ in range(2)]
    assert seen == [said, "there again"]
