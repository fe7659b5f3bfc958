"""What people see of cells, hosts and logs: the same of a node agent's machine and of a cluster."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.adapters.substrates.knative.reporting import KnativeReport
from chimera.entrypoints.node.report import NodeReport
from chimera.kernel.clock import SystemClock
from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec
from chimera.platform.node import NodeAgent
from chimera.platform.ports import Report
from chimera.platform.settings import NodeSettings
from chimera.testing.cluster import FakeCluster
from chimera.testing.launcher import FakeLauncher
from chimera.testing.storage import cell_spec
from chimera_host.testing import builders
from chimera_host.testing.doubles import until

CELL = cell_spec("cell-1", builders.document())
NAME = names.service_name(CELL.cell, CELL.runtime_class.framework)
PATIENCE = 10.0


class Rig(Protocol):
    """A home with a cell in it."""

    report: Report

    async def start_host(self) -> str: ...

    async def kill(self, host: str, agent: str) -> None: ...

    async def drain(self, host: str) -> None: ...

    async def write(self, process: str, *records: dict[str, Any] | str) -> None: ...


class Machine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.launcher = FakeLauncher()
        self.agent = NodeAgent(self.launcher, SystemClock(), NodeSettings(tick=0.05, probe_interval=0.1))
        self.report = NodeReport(
            self.agent, SystemClock(), folder, lambda: {"gateway": os.getpid(), "control-plane": 2**22 + 1}, lambda _: 1
        )
        self._running: asyncio.Task[None]

    async def __aenter__(self) -> "Machine":
        self._running = asyncio.create_task(self.agent.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await self.agent.close()

    async def start_host(self) -> str:
        return (await self.agent.wake(CELL, PATIENCE))[0].host

    async def kill(self, host: str, agent: str) -> None:
        self.launcher.running[host].calls["c-1"] = (agent, 0.0)
        await self.launcher.kill(host)

    async def drain(self, host: str) -> None:
        self.launcher.running[host].deaf = True

    async def write(self, process: str, *records: dict[str, Any] | str) -> None:
        with (self._folder / f"{process}.jsonl").open("a") as file:
            file.writelines((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)


class Cluster:
    def __init__(self) -> None:
        self.fake = FakeCluster()
        self._stack = AsyncExitStack()
        self._hosts = 0
        self.report: KnativeReport
        self.pool: KnativePool

    async def __aenter__(self) -> "Cluster":
        fake = await self._stack.enter_async_context(self.fake)
        api = Kubernetes(ClusterAccess(server=fake.url, tls=None, credentials=NoToken(), namespace="platform"))
        clock = SystemClock()

        async def spec_of(_: str) -> CellSpec:
            return CELL

        self.pool = KnativePool(api, clock, namespace="cells", key_of=lambda host, _: host)
        self.report = KnativeReport(
            *(api, self.pool, clock),
            namespace="cells",
            key_of=lambda host, _: host,
            spec_of=spec_of,
            cells_of=lambda agent: frozenset({CELL.cell} if agent == "anna" else ()),
            own_pod="gateway-1",
            use=lambda: (7, 1.5, 2048),
        )
        following = asyncio.create_task(self.pool.run())

        async def end() -> None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self.report.aclose()
            await self.pool.aclose()

        self._stack.push_async_callback(end)
        for name in ("gateway", "control-plane"):
            labels = {names.MANAGED_BY: names.MANAGER, "app.kubernetes.io/component": name}
            await fake.put("pods", {"metadata": {"name": f"{name}-1", "namespace": "platform", "labels": labels}})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start_host(self) -> str:
        self._hosts += 1
        host = f"pod-{self._hosts}"
        runtime = CELL.runtime_class
        labels = {
            names.MANAGED_BY: names.MANAGER,
            names.PREFIX + "tenant": runtime.tenant,
            names.PREFIX + "framework": runtime.framework,
        }
        meta = {"namespace": "cells", "labels": labels, "annotations": {names.CELL: CELL.cell}}
        ready = [{"type": "Ready", "status": "True"}]
        revision = {"name": "r-1", "namespace": "cells", "labels": {**labels, names.KNATIVE_SERVICE: NAME}}
        await self.fake.put("services", {"metadata": {**meta, "name": NAME}, "status": {"conditions": ready}})
        await self.fake.put("revisions", {"metadata": revision, "status": {"desiredReplicas": self._hosts}})
        await self.put(host, meta, conditions=ready)
        await until(lambda: bool(self.pool.services()), PATIENCE)
        return host

    async def put(self, host: str, meta: dict[str, Any], **status: Any) -> None:
        limits = {"limits": {"memory": str(CELL.runtime_class.resources.memory_bytes)}}
        created = {"name": host, "creationTimestamp": "2026-01-02T03:04:05Z"}
        await self.fake.put(
            "pods",
            {
                "metadata": {**meta, **created},
                "spec": {"nodeName": "node-1", "containers": [{"name": "host", "resources": limits}]},
                "status": {"phase": "Running", "podIP": "127.0.0.9", **status},
            },
        )

    async def kill(self, host: str, agent: str) -> None:
        meta = self.fake.object("pods", "cells", host)["metadata"]  # type: ignore[index]
        ended = {"exitCode": 137, "reason": "OOMKilled"}
        container = {"name": "host", "restartCount": 1, "lastState": {"terminated": ended}}
        await self.put(host, meta, containerStatuses=[container])
        await self.pool.report(host, kind="crashed", agent=agent, call="c-1")

    async def drain(self, host: str) -> None:
        meta = self.fake.object("pods", "cells", host)["metadata"]  # type: ignore[index]
        await self.put(host, {**meta, "deletionTimestamp": "2026-01-02T03:04:06Z"})

    async def write(self, process: str, *records: dict[str, Any] | str) -> None:
        place = ("platform", f"{process}-1", process) if process in ("gateway", "control-plane") else None
        namespace, pod, container = place or ("cells", process, "host")
        if self.fake.object("pods", namespace, pod) is None:
            labels = {names.MANAGED_BY: names.MANAGER}
            await self.put(pod, {"namespace": namespace, "labels": labels, "annotations": {names.CELL: CELL.cell}})
        lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
        await self.fake.log(namespace, pod, container, *lines)


@pytest.fixture(params=["machine", "knative"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with Machine(tmp_path) if request.param == "machine" else Cluster() as made:
        yield made


async def test_a_host_is_shown_with_its_cell(rig: Rig) -> None:
    host = await rig.start_host()
    async with asyncio.timeout(PATIENCE):
        while not (cells := await rig.report.cells()) or not cells[0].ready:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.05)
    (cell,) = cells
    assert (cell.cell, cell.hosts, cell.ready, cell.wanted, cell.waiting) == (CELL.cell, 1, 1, 1, 0)
    runtime = CELL.runtime_class
    assert (cell.tenant, cell.framework, cell.isolation) == (runtime.tenant, runtime.framework, runtime.isolation)
    assert cell.error is None and cell.reason
    (row,) = await rig.report.hosts()
    assert (row.host, row.cell, row.phase, row.unhealthy) == (host, CELL.cell, "ready", None)
    assert (row.limit_bytes, row.seconds >= 0) == (runtime.resources.memory_bytes, True)


async def test_nothing_is_there_at_first(rig: Rig) -> None:
    assert list(await rig.report.hosts()) == list(await rig.report.incidents()) == []


async def test_a_host_that_died_is_an_incident_with_its_suspects(rig: Rig) -> None:
    host = await rig.start_host()
    await rig.kill(host, "default/culprit")
    async with asyncio.timeout(PATIENCE):
        while not (found := await rig.report.incidents()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert [(one.host, one.cell, one.suspects) for one in found] == [(host, CELL.cell, ("default/culprit",))]
    assert found[0].cause and found[0].seconds_ago < PATIENCE


async def test_top_shows_the_platforms_processes_and_the_hosts(rig: Rig) -> None:
    host = await rig.start_host()
    top = await rig.report.top()
    assert "gateway" in {row.process for row in top.processes}
    assert next(row for row in top.processes if row.process == "gateway").proportional_bytes
    assert [row.host for row in top.hosts] == [host] and [row.cell for row in top.cells] == [CELL.cell]
    assert msgspec.json.decode(msgspec.json.encode(top), type=type(top)) == top


WRITTEN = (
    ("gateway", {"time": "2026-01-02T03:00:01Z", "message": "began", "level": "info"}),
    ("gateway", {"time": "2026-01-02T03:00:03Z", "message": "called", "level": "info", "agent": "default/anna"}),
    ("host_a", {"time": "2026-01-02T03:00:02Z", "message": "loaded", "level": "info", "agent": "anna"}),
    ("host_a", {"time": "2026-01-02T03:00:04Z", "message": "ran", "level": "info", "agent": "anna", "request": "r-1"}),
    ("gateway", {"time": "2026-01-02T03:00:05Z", "message": "failed", "level": "ERROR", "agent": "default/berta"}),
    ("control-plane", {"time": "2026-01-02T03:00:06Z", "message": "changed", "level": "info"}),
)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ({}, "began loaded called ran failed changed"),
        ({"lines": "2"}, "failed changed"),
        ({"agent": "anna"}, "loaded ran"),
        ({"agent": "default/anna"}, "loaded called ran"),
        ({"request": "r-1"}, "ran"),
        ({"process": "gateway"}, "began called failed"),
        ({"process": "hosts"}, "loaded ran"),
        ({"process": "host_a", "lines": "1"}, "ran"),
        ({"level": "error"}, "failed"),
        ({"process": "nobody"}, ""),
    ],
)
async def test_the_newest_lines_are_shown_of_whom_was_asked_for(rig: Rig, query: dict[str, str], shown: str) -> None:
    for process, record in WRITTEN:
        await rig.write(process, record)
    found = [msgspec.json.decode(line) for line in await read(rig, query)]
    assert " ".join(one["message"] for one in found) == shown
    assert all(one["process"] for one in found)


async def test_what_is_no_json_is_shown_as_it_is(rig: Rig) -> None:
    await rig.write("gateway", "Killed", "", "[1, 2]")
    found = [msgspec.json.decode(line) for line in await read(rig, {})]
    assert [(one["message"], one["process"], one["level"]) for one in found] == [("Killed", "gateway", "info")]


async def test_who_follows_gets_every_line_once_and_those_of_hosts_that_come(rig: Rig) -> None:
    await rig.write("gateway", {"time": "1", "message": "before"})
    lines = await rig.report.logs(LogQuery(follow=True), lambda: False)
    seen: list[str] = []
    async with asyncio.timeout(PATIENCE), aclosing(lines):
        async for line in lines:
            seen.append(msgspec.json.decode(line)["message"])
            if seen[-1] == "before":
                await rig.write("gateway", {"time": "2", "message": "more"})
            if seen[-1] == "more":
                await rig.write("host_new", {"time": "3", "message": "from a new host"})
            if seen[-1] == "from a new host":
                break
    assert seen == ["before", "more", "from a new host"]


async def test_following_ends_when_its_reader_is_gone(rig: Rig) -> None:
    await rig.write("gateway", {"time": "1", "message": "before"})
    left: list[bool] = []
    lines = await rig.report.logs(LogQuery(follow=True), lambda: bool(left))
    async with asyncio.timeout(PATIENCE), aclosing(lines):
        async for _ in lines:
            left.append(True)


async def read(rig: Rig, query: dict[str, str]) -> list[bytes]:
    lines = await rig.report.logs(LogQuery.parse(query), lambda: False)
    async with aclosing(lines):
        return [line async for line in lines]
