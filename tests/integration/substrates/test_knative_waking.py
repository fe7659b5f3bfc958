"""What who waits for a cell hears, and what pods get calls while nodes, pods and the API server come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative import pool as pools
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.gateway.errors import CellUnavailable
from chimera.kernel.clock import SystemClock
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.conditions import Condition, Evidence, Seen, cell_subject, judge
from chimera.platform.model import CellSpec, RuntimeClass
from chimera.platform.reasons import MEANINGS, Reason
from chimera.testing.cluster import FakeCluster, refusal
from chimera_host.contract.problem import ProblemError

PATIENCE = 20.0
NAMESPACE = "cells"
RUNTIME = RuntimeClass(
    tenant="default", framework="langgraph", runtime="python", isolation="tenant:default", resources=STANDARD
)
CELL = CellSpec(cell=cell_id(RUNTIME), runtime_class=RUNTIME)
NAME = names.service_name(CELL.cell, "langgraph")


class Rig:
    """A cluster, an activator, and a pool; a test says what is known of the cell."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        self.known: tuple[Condition, ...] = ()
        self.away = False
        self.pokes = 0
        self.mended = False
        self.url = ""
        self.pool = KnativePool(
            Kubernetes(access),
            SystemClock(),
            namespace=NAMESPACE,
            key_of=lambda host, _: host,
            conditions=self._conditions,
        )

    async def _conditions(self, _: str) -> Sequence[Condition]:
        if self.away:
            raise ProblemError("the database is away")
        return self.known

    def trouble(self, *reasons: Reason) -> None:
        evidence = tuple(Evidence(reason=reason, message=f"because of {reason.value}") for reason in reasons)
        seen = Seen(subject=cell_subject(CELL.cell), tenant="default", evidence=evidence)
        self.known = judge(seen, self.known, 1.0)

    async def activate(self, _: web.BaseRequest) -> web.Response:
        self.pokes += 1
        if self.mended:
            await self.endpoints("pod-a")
            return web.Response(text="ready")
        return web.Response(status=503)

    async def service(self) -> None:
        meta = {"name": NAME, "namespace": NAMESPACE}
        meta |= {"labels": {names.MANAGED_BY: names.MANAGER}, "annotations": {names.CELL: CELL.cell}}  # type: ignore[dict-item]
        status = {
            "observedGeneration": 1,
            "traffic": [{"revisionName": "r-1", "percent": 100}],
            "address": {"url": self.url},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await self.cluster.put("services", {"metadata": meta, "spec": {}, "status": status})

    async def endpoints(self, *ready: str, **conditions: dict[str, Any]) -> None:
        """Pods of the slice: those that are ready, and others with the conditions that they have."""
        labels = {names.SERVICE_TYPE: "Private", names.KNATIVE_SERVICE: NAME, names.KNATIVE_REVISION: "r-1"}
        pods = {**{name: {"ready": True} for name in ready}, **conditions}
        value = {
            "metadata": {"name": "r-1-private", "namespace": NAMESPACE, "labels": labels},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": told, "targetRef": {"kind": "Pod", "name": name, "uid": name}}
                for name, told in pods.items()
            ],
            "ports": [{"name": "http", "port": 8012}],
        }
        await self.cluster.put("endpointslices", value)

    def hosts(self) -> list[str]:
        return [endpoint.host for endpoint in self.pool.endpoints(CELL.cell)]


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(pools, "POKE_AGAIN", 0.02)
    monkeypatch.setattr(pools, "LONGEST_POKE_AGAIN", 0.1)
    async with FakeCluster() as cluster:
        made = Rig(cluster)
        runner = web.ServerRunner(web.Server(made.activate), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        running = asyncio.create_task(made.pool.run())
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.pool.aclose()
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


async def refused(rig: Rig) -> CellUnavailable:
    with pytest.raises(CellUnavailable) as found:
        await rig.pool.wake(CELL, PATIENCE)
    return found.value


@pytest.mark.parametrize(
    "reason", [Reason.IMAGE_PULL_FAILED, Reason.QUOTA_EXCEEDED, Reason.CRASH_LOOP, Reason.OUT_OF_MEMORY]
)
async def test_who_waits_hears_the_cause_as_soon_as_it_is_known(rig: Rig, reason: Reason) -> None:
    await rig.service()
    waiting = asyncio.create_task(refused(rig))
    await until(lambda: rig.pokes > 0)
    assert not waiting.done()
    rig.trouble(reason)
    problem = (await waiting).problem()
    assert (problem.code, problem.status, problem.reason) == ("cell-unavailable", 503, reason.value)
    assert problem.detail.endswith(f"because of {reason.value}")
    assert (problem.next_step, problem.retry_after) == (MEANINGS[reason].next_step, MEANINGS[reason].retry_after)


async def test_no_room_may_pass_in_the_seconds_that_a_caller_has(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.service()
    rig.trouble(Reason.UNSCHEDULABLE)
    waiting = asyncio.create_task(rig.pool.wake(CELL, PATIENCE))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    rig.mended = True
    assert [endpoint.host for endpoint in await waiting] == ["pod-a"]


async def test_a_cell_whose_callers_were_refused_is_tried_on_and_comes_once_it_is_mended(rig: Rig) -> None:
    await rig.service()
    rig.trouble(Reason.IMAGE_PULL_FAILED)
    await asyncio.gather(*(refused(rig) for _ in range(20)))
    pokes = rig.pokes
    await until(lambda: rig.pokes > pokes)
    rig.mended = True
    await until(lambda: rig.hosts() == ["pod-a"])
    assert [endpoint.host for endpoint in await rig.pool.wake(CELL, PATIENCE)] == ["pod-a"]


async def test_a_cell_that_nobody_wants_any_more_is_not_poked_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "POKE_TIMEOUT", 0.2)
    await rig.service()
    rig.trouble(Reason.IMAGE_PULL_FAILED)
    await refused(rig)
    await asyncio.sleep(0.5)
    pokes = rig.pokes
    await asyncio.sleep(0.3)
    assert 0 < rig.pokes == pokes <= 20


async def test_what_is_over_keeps_nobody_out_and_a_database_that_is_away_neither(rig: Rig) -> None:
    await rig.service()
    rig.trouble(Reason.CRASH_LOOP)
    rig.trouble()  # nobody tries any more
    rig.mended = True
    assert await rig.pool.wake(CELL, PATIENCE)
    await rig.endpoints()
    await until(lambda: rig.hosts() == [])
    rig.away = True
    assert await rig.pool.wake(CELL, PATIENCE)


async def test_a_pod_that_ends_or_whose_node_is_gone_gets_no_calls(rig: Rig) -> None:
    await rig.service()
    await rig.endpoints("pod-a", "pod-b", "pod-c")
    await until(lambda: rig.hosts() == ["pod-a", "pod-b", "pod-c"])
    gone = {"ready": False, "serving": False, "terminating": False}
    ends = {"ready": False, "serving": True, "terminating": True}
    await rig.endpoints("pod-c", **{"pod-a": gone, "pod-b": ends})
    await until(lambda: rig.hosts() == ["pod-c"])
    # Where a Service publishes what isn't ready, who ends is still told to end.
    await rig.endpoints(**{"pod-c": {"ready": True, "terminating": True}, "pod-d": {}})
    await until(lambda: rig.hosts() == ["pod-d"])


async def test_calls_go_on_while_the_api_server_is_away_and_what_changed_meanwhile_is_seen_then(rig: Rig) -> None:
    await rig.service()
    await rig.endpoints("pod-a", "pod-b")
    await until(lambda: rig.hosts() == ["pod-a", "pod-b"])
    rig.cluster.faults.append(refusal(503, "ServiceUnavailable", "apiserver is shutting down", Retry_After="1"))
    rig.cluster.cut_watches()
    calls = sum(rig.cluster.calls.values())
    await rig.endpoints("pod-c")
    rig.cluster.forget()
    await asyncio.sleep(0.7)
    assert rig.hosts() == ["pod-a", "pod-b"], "what was known stays"
    assert sum(rig.cluster.calls.values()) - calls <= 4, "and nobody knocks all the time"
    rig.cluster.faults.clear()
    await until(lambda: rig.hosts() == ["pod-c"])
