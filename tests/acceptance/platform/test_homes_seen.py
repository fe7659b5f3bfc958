"""What people see of agents that run: logs, top, cells, hosts, incidents, with the same commands in both homes."""

import asyncio
import json
from typing import Any

import pytest

from .homes import PATIENCE, Cluster, Home

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def until_said(home: Home, *query: str, words: str) -> list[dict[str, Any]]:
    """The lines of `chimera logs` once one of them holds `words`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            rows = [json.loads(line) for line in (await home.run("logs", *query, "-o", "json")).splitlines()]
            if any(words in row["message"] for row in rows):
                return rows


async def test_what_an_agent_prints_is_in_the_log_under_its_name_and_its_hosts(home: Home) -> None:
    await home.have("sayer")
    assert await home.answer("sayer", "say what-was-said") == "say what-was-said"
    rows = await until_said(home, "sayer", words="what-was-said")
    assert {row["agent"] for row in rows} == {"sayer"}
    (host,) = await home.hosts("sayer")
    of_host = await until_said(home, "--process", host, words="what-was-said")
    assert {row.get("host", row["process"]) for row in of_host} == {host}
    of_hosts = await until_said(home, "--process", "hosts", "-n", "1000", words="what-was-said")
    assert "gateway" not in {row["process"] for row in of_hosts}
    of_gateway = await home.run("logs", "--process", "gateway", "-o", "json")
    assert of_gateway and "what-was-said" not in of_gateway


async def test_who_follows_the_log_sees_lines_as_they_come(home: Home) -> None:
    following = await home.start("logs", "sayer", "--follow", "-n", "1", "-o", "json")
    assert following.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            await following.stdout.readline()  # what was said before: the follower is there
            await home.answer("sayer", "say while-followed")
            while b"while-followed" not in await following.stdout.readline():
                pass
    finally:
        following.terminate()
        await following.wait()


async def test_top_shows_the_hosts_their_agents_and_their_calls(home: Home) -> None:
    cell = await home.cell("sayer")
    calling = asyncio.create_task(home.answer("sayer", "sleep 10"))
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await home.data("top", "--once")
            mine = [row for row in found["hosts"] if row["cell"] == cell and row.get("in_flight")]
            if mine or calling.done():
                break
    assert mine, "the call was not seen while it ran"
    assert mine[0]["loaded_agents"] >= 1 and mine[0]["phase"] == "ready"
    assert 0 < mine[0]["resident_bytes"] < mine[0]["limit_bytes"]
    assert {"gateway", "control-plane"} <= {row["process"] for row in found["processes"]}
    (row,) = [row for row in found["cells"] if row["cell"] == cell]
    assert (row["ready"], row["framework"], row["tenant"], row["error"]) == (1, "function", "default", None)
    assert await calling == "sleep 10"


async def test_cells_hosts_and_the_status_are_told(home: Home) -> None:
    await home.answer("sayer", "hello")
    cell = await home.cell("sayer")
    assert await home.hosts("sayer") == [row["host"] for row in await home.data("get", "hosts") if row["cell"] == cell]
    assert cell in {row["cell"] for row in await home.data("get", "cells")}
    status = await home.data("status")
    assert status["healthy"] and status["hosts"] >= 1 and status["agents"] >= 1
    described = await home.data("describe", "sayer")
    assert described["cell"] == cell and described["limits"]


async def test_looking_keeps_no_cell_awake(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's hosts fall asleep after a minute at least: simulated elsewhere")
    await home.answer("sayer", "hello")
    cell = await home.cell("sayer")
    async with asyncio.timeout(PATIENCE):
        while [row for row in (await home.get("/v1/top"))["hosts"] if row["cell"] == cell and row["phase"] == "ready"]:  # noqa: ASYNC110
            await asyncio.sleep(1)


async def test_a_host_that_died_is_an_incident_that_names_its_agent(home: Home) -> None:
    status, body = await home.call("sayer", "die")
    assert (status, body["code"]) == (502, "host-failed")
    cell = await home.cell("sayer")
    async with asyncio.timeout(PATIENCE):
        while not (found := [row for row in await home.data("get", "incidents") if row["cell"] == cell]):  # noqa: ASYNC110
            await asyncio.sleep(1)
    assert found[0]["cause"]
    assert [one.rpartition("/")[2] for one in found[0]["suspects"]] == ["sayer"]
