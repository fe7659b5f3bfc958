"""The node agent over its socket: waking, following endpoints, what gateways report, what people see, what is wrong."""

import asyncio
from typing import Any

import msgspec
import pytest

from chimera.adapters.substrates.node_client import NodeClient
from chimera.kernel.clock import SystemClock
from chimera.platform.errors import HostStartFailed
from chimera.platform.model import CellSpec
from chimera.testing.storage import cell_spec
from chimera_host.contract.problem import RemoteProblem
from chimera_host.testing import builders
from chimera_host.testing.doubles import until

CELL = cell_spec("cell-1", builders.document())
WAKE = "/v1/cells/cell-1/wake"


def body(spec: CellSpec) -> Any:
    return msgspec.to_builtins(spec)


async def test_a_gateways_pool_wakes_follows_and_hears_of_deaths(node) -> None:
    pool = NodeClient(node.socket, SystemClock(), sample=0.02)
    running = asyncio.create_task(pool.run())
    try:
        (endpoint,) = await pool.wake(CELL, 10.0)
        assert node.launcher.hosts("cell-1") == [endpoint.host]
        pool.observe("cell-1", 3)
        await until(lambda: node.agent.cells()[0].in_flight == 3, 5)
        await node.launcher.kill(endpoint.host)
        await until(lambda: [one.host for one in pool.endpoints("cell-1")] not in ([], [endpoint.host]), 5)
        pool.observe("cell-1", 0)
        with pytest.raises(RemoteProblem) as raised:
            await pool.report("nobody", kind="unreachable", agent="a", call="c")
        assert (raised.value.status, raised.value.code) == (404, "unknown-host")
        assert [one["host"] for one in (await node.ask("GET", "/v1/incidents"))[1]] == [endpoint.host]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.aclose()


async def test_one_who_can_not_be_served_is_told_why_and_when_to_come_again(node) -> None:
    node.launcher.refuses = HostStartFailed("no memory", next_step="add some", retry_after=3.2)
    async with node.session.post(WAKE, json=body(CELL)) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
        assert answer.content_type == "application/problem+json"
    assert (problem["code"], problem["detail"], problem["instance"]) == ("host-start-failed", "no memory", WAKE)
    rows = (await node.ask("GET", "/v1/cells"))[1]
    assert rows[0]["error"] == "no memory"


async def test_a_reported_host_that_is_silent_is_replaced_at_once(node) -> None:
    await node.ask("PUT", "/v1/cells", [body(msgspec.structs.replace(CELL, min_hosts=1))])
    await until(lambda: node.launcher.hosts("cell-1"), 5)
    (host,) = node.launcher.hosts("cell-1")
    await until(lambda: node.agent.cells()[0].hosts[host].phase.value == "ready", 5)
    report = {"kind": "unreachable", "agent": "a", "call": "c"}
    assert await node.ask("POST", f"/v1/hosts/{host}/report", report) == (204, None)
    await asyncio.sleep(0.05)
    assert node.launcher.hosts("cell-1") == [host], "it answers its probe, so it stays"
    node.launcher.running[host].deaf = True
    await node.ask("POST", f"/v1/hosts/{host}/report", report)
    await until(lambda: node.launcher.hosts("cell-1") not in ([], [host]), 5)


async def test_the_list_of_endpoints_is_waited_for(node) -> None:
    status, first = await node.ask("GET", "/v1/endpoints")
    assert (status, first["cells"]) == (200, {})
    waiting = asyncio.ensure_future(node.ask("GET", f"/v1/endpoints?after={first['version']}&wait=20"))
    woken = (await node.ask("POST", f"{WAKE}?within=10", body(CELL)))[1]
    _, later = await waiting
    assert later["version"] > first["version"]
    assert woken["endpoints"] == (await node.ask("GET", "/v1/endpoints"))[1]["cells"]["cell-1"]
    newest = (await node.ask("GET", "/v1/endpoints"))[1]["version"] + 100
    assert (await node.ask("GET", f"/v1/endpoints?after={newest}&wait=0.01"))[0] == 200, "nothing came, and it says so"


async def test_what_people_look_at(node) -> None:
    await node.ask("POST", f"{WAKE}?within=10", body(CELL))
    await node.ask("POST", "/v1/stats", {"cells": {"cell-1": 2.5, "unknown": 1.0}})
    await until(lambda: node.agent.cells()[0].wanted == 1, 5)
    (host,) = node.launcher.hosts("cell-1")
    top = (await node.ask("GET", "/v1/top"))[1]
    assert [(row["process"], row["proportional_bytes"]) for row in top["processes"]] == [("gateway", 4096)]
    assert [row["host"] for row in top["hosts"]] == [row["host"] for row in (await node.ask("GET", "/v1/hosts"))[1]]
    assert (top["hosts"][0]["host"], top["cells"][0]["in_flight"], top["incidents"]) == (host, 2.5, [])
    async with node.session.get("/metrics") as answer:
        series = await answer.text()
    assert 'chimera_cell_calls_in_flight{cell="cell-1",tenant="default",framework="function"} 2.5\n' in series
    assert "chimera_host_incidents_total 0\n" in series
    assert (await node.ask("GET", "/livez"))[0] == (await node.ask("GET", "/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("POST", WAKE, b"{"),
        ("POST", WAKE, b"{}"),
        ("POST", WAKE, b"\xff"),
        ("POST", f"{WAKE}?within=soon", msgspec.json.encode(CELL)),
        ("PUT", "/v1/cells", b'{"cell": "cell-1"}'),
        ("POST", "/v1/stats", b'{"cells": {"cell-1": "many"}}'),
        ("POST", "/v1/hosts/host-1/report", b'{"kind": "crashed"}'),
        ("GET", "/v1/endpoints?after=x", None),
        ("GET", "/v1/endpoints?after=-1", None),
        ("GET", "/v1/endpoints?after=%C2%B2", None),
        ("GET", f"/v1/endpoints?after={'9' * 5000}", None),
        ("GET", "/v1/endpoints?wait=long", None),
        ("GET", "/v1/logs?lines=0", None),
        ("GET", "/v1/logs?follow=null", None),
        ("GET", "/v1/logs?lines=%C2%B2", None),
        ("GET", "/v1/logs?lines=100000", None),
    ],
)
async def test_a_malformed_request_is_the_callers_fault(node, method: str, path: str, data: bytes | None) -> None:
    status, problem = await node.ask(method, path, data=data)
    assert (status, problem["code"]) == (400, "invalid-request"), problem
    assert node.launcher.started == {} and node.agent.version == 1
