"""The pool of hosts over the node agent's socket: endpoints, waking, reports, averages, a node agent that is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from chimera.adapters.substrates.node_client import NodeClient
from chimera.gateway.errors import NodeUnavailable
from chimera.kernel.clock import SystemClock
from chimera.platform.errors import HostStartFailed
from chimera.platform.model import Endpoint
from chimera.testing.storage import cell_spec
from chimera_host.contract.problem import RemoteProblem
from chimera_host.testing import builders

CELL = cell_spec("cell-1", builders.document())


def endpoint(name: str) -> Endpoint:
    return Endpoint(host=name, cell="cell-1", url="http://127.0.0.1:1", key="k")


class Node:
    """A node agent that a test steers."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.version = 1
        self.cells: dict[str, list[Endpoint]] = {}
        self.stats: list[dict[str, float]] = []
        self.reports: list[Any] = []
        self.fails = False
        self.hears = asyncio.Event()
        self.hears.set()
        self.changed = asyncio.Event()
        self.runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/cells/{cell}/wake", self.wake)
        app.router.add_get("/v1/endpoints", self.endpoints)
        app.router.add_post("/v1/stats", self.take)
        app.router.add_post("/v1/hosts/{host}/report", self.report)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self.runner.setup()
        await web.UnixSite(self.runner, self.path).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    def put(self, *names: str) -> None:
        self.version += 1
        self.cells = {"cell-1": [endpoint(name) for name in names]}
        self.changed.set()

    async def wake(self, request: web.Request) -> web.Response:
        if self.fails:
            problem = HostStartFailed("no memory").problem()
            return web.Response(status=503, body=msgspec.json.encode(problem))
        assert (await request.json())["cell"] == "cell-1"
        self.put("host-1")
        body = {"version": self.version, "endpoints": self.cells["cell-1"]}
        return web.Response(body=msgspec.json.encode(body))

    async def endpoints(self, request: web.Request) -> web.Response:
        if int(request.query["after"]) >= self.version:
            self.changed.clear()
            await self.changed.wait()
        return web.Response(body=msgspec.json.encode({"version": self.version, "cells": self.cells}))

    async def take(self, request: web.Request) -> web.Response:
        self.stats.append((await request.json())["cells"])
        return web.Response()

    async def report(self, request: web.Request) -> web.Response:
        self.reports.append((request.match_info["host"], await request.json()))
        await self.hears.wait()
        return web.Response()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(str(tmp_path / "node.sock"))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def pool(node: Node) -> AsyncIterator[NodeClient]:
    made = NodeClient(node.path, SystemClock(), sample=0.02)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    ended = await asyncio.gather(task, return_exceptions=True)
    await made.aclose()
    assert isinstance(ended[0], asyncio.CancelledError), "its loops go on whatever happens"


async def soon(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")


async def test_endpoints_follow_the_node_agent(node: Node, pool: NodeClient) -> None:
    told: list[str] = []
    pool.on_change(told.append)
    node.put("host-1", "host-2")
    await soon(lambda: [e.host for e in pool.endpoints("cell-1")] == ["host-1", "host-2"])
    node.put("host-2")
    await soon(lambda: [e.host for e in pool.endpoints("cell-1")] == ["host-2"])
    assert set(told) == {"cell-1"}
    assert list(pool.endpoints("other")) == []


async def test_waking_gives_hosts_at_once(node: Node, pool: NodeClient) -> None:
    found = await pool.wake(CELL, 5.0)
    assert [e.host for e in found] == [e.host for e in pool.endpoints("cell-1")] == ["host-1"]


async def test_the_reason_why_a_cell_does_not_start_comes_through(node: Node, pool: NodeClient) -> None:
    node.fails = True
    with pytest.raises(RemoteProblem) as raised:
        await pool.wake(CELL, 5.0)
    assert (raised.value.code, raised.value.detail) == ("host-start-failed", "no memory")


async def test_reports_and_averages_arrive(node: Node, pool: NodeClient) -> None:
    await pool.report("host-1", kind="crashed", agent="a", call="c")
    assert node.reports == [("host-1", {"kind": "crashed", "agent": "a", "call": "c"})]
    pool.observe("cell-1", 3)
    await soon(lambda: any(stats.get("cell-1") == 3 for stats in node.stats))
    pool.observe("cell-1", 0)
    await soon(lambda: node.stats[-1] == {"cell-1": 0.0})
    count = len(node.stats)
    await asyncio.sleep(0.1)
    assert len(node.stats) <= count + 1, "a cell without calls is told once"


async def test_a_host_that_broke_a_call_comes_back_only_by_a_list_that_knows_of_it(
    node: Node, pool: NodeClient
) -> None:
    told: list[str] = []
    node.put("host-1", "host-2")
    await soon(lambda: len(pool.endpoints("cell-1")) == 2)
    pool.on_change(told.append)
    node.hears.clear()
    reporting = asyncio.create_task(pool.report("host-1", kind="crashed", agent="a", call="c"))
    await soon(lambda: node.reports)
    assert [e.host for e in pool.endpoints("cell-1")] == ["host-2"], "at once, whoever is slow to hear of it"
    for names in (("host-1",), ("host-1", "host-2")):  # lists that the node agent made before it heard
        version = node.version
        node.put(*names)
        await soon(lambda version=version: pool._version > version)
        assert [e.host for e in pool.endpoints("cell-1")] == [name for name in names if name != "host-1"]
    node.hears.set()
    await reporting
    told.clear()
    node.put("host-1", "host-2")  # answers the list that was waited for before, which counts for nothing
    node.put("host-1", "host-2")
    await soon(lambda: (node.put("host-1", "host-2"), len(pool.endpoints("cell-1")) == 2)[1])
    assert told == ["cell-1"]


async def test_a_report_that_does_not_arrive_leaves_the_host_out_until_the_next_list(
    node: Node, pool: NodeClient
) -> None:
    node.put("host-1")
    await soon(lambda: pool.endpoints("cell-1"))
    await node.stop()
    with pytest.raises(NodeUnavailable):
        await pool.report("host-1", kind="unreachable", agent="a", call="c")
    assert not pool.endpoints("cell-1")
    await asyncio.sleep(0.2)
    await node.start()
    node.put("host-1")
    await soon(lambda: pool.endpoints("cell-1"))


async def test_a_node_agent_that_goes_and_comes_back(node: Node, pool: NodeClient) -> None:
    node.put("host-1")
    await soon(lambda: pool.endpoints("cell-1"))
    await node.stop()
    with pytest.raises(NodeUnavailable):
        await pool.wake(CELL, 1.0)
    assert [e.host for e in pool.endpoints("cell-1")] == ["host-1"], "what runs goes on taking calls"
    await asyncio.sleep(0.2)  # a node agent isn't back before its clients' one immediate retry
    node.version = 0
    node.put("host-9")
    await node.start()
    await soon(lambda: [e.host for e in pool.endpoints("cell-1")] == ["host-9"])
