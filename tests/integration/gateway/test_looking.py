"""Cells, hosts and logs from a gateway that looks itself, over HTTP: rows, lines, refusals, readers who leave."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chimera.entrypoints.gateway.http import problem_response
from chimera.entrypoints.gateway.looking import LookHandlers
from chimera.gateway.errors import NodeUnavailable
from chimera.platform.logs import LogQuery
from chimera.platform.report import CellRow, HostRow, IncidentRow, Top
from chimera_host.contract.problem import ProblemError

CELL = CellRow(
    **{"cell": "cell-1", "tenant": "default", "framework": "function", "isolation": "tenant:default"},
    **{"hosts": 1, "ready": 1, "wanted": 1, "reason": "wanted", "in_flight": 0.0, "waiting": 0, "error": None},
)
HOST = HostRow(
    **{"host": "pod-a", "cell": "cell-1", "phase": "ready", "seconds": 1.0},
    **{"resident_bytes": None, "limit_bytes": 1, "unhealthy": None, "node": "node-1"},
)


class FakeReport:
    """A `Report` with one of each, whose log goes on while somebody follows it."""

    def __init__(self) -> None:
        self.away = False
        self.left = asyncio.Event()

    async def cells(self) -> list[CellRow]:
        if self.away:
            raise NodeUnavailable("the cluster is away", retry_after=2)
        return [CELL]

    async def hosts(self) -> list[HostRow]:
        return [HOST]

    async def incidents(self) -> list[IncidentRow]:
        return []

    async def top(self) -> Top:
        return Top(processes=[], cells=[CELL], hosts=[HOST], incidents=[])

    async def logs(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        if self.away:
            raise NodeUnavailable("the cluster is away", retry_after=2)
        return self._lines(query, gone)

    async def _lines(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        try:
            yield f'{{"agent": "{query.agent}"}}'.encode()
            while query.follow and not gone():
                await asyncio.sleep(0.01)
                yield b"{}"
        finally:
            self.left.set()


class World:
    def __init__(self) -> None:
        self.report = FakeReport()
        self.handlers = LookHandlers(self.report)
        self.http: aiohttp.ClientSession

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self.handlers.pass_on(request, "r-1", request.path)
        except ProblemError as error:
            return problem_response(error, request="r-1")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    runner = web.ServerRunner(web.Server(made.handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as made.http:
        yield made
    await runner.cleanup()


@pytest.mark.parametrize("path", ["cells", "hosts", "incidents", "top"])
async def test_rows_are_answered_as_json(world: World, path: str) -> None:
    async with world.http.get(f"/v1/{path}") as answer:
        assert (answer.status, answer.headers["X-Request-Id"]) == (200, "r-1")
        body: Any = await answer.json()
    shown = {"cells": ["cell-1"], "hosts": ["cell-1"], "incidents": [], "top": ["cell-1"]}[path]
    assert [row["cell"] for row in (body["cells"] if path == "top" else body)] == shown


async def test_lines_are_streamed_by_what_was_asked_for(world: World) -> None:
    async with world.http.get("/v1/logs", params={"agent": "anna"}) as answer:
        assert (answer.content_type, await answer.read()) == ("application/x-ndjson", b'{"agent": "anna"}\n')


async def test_what_can_not_be_shown_is_a_problem_and_no_empty_log(world: World) -> None:
    world.report.away = True
    for path in ("/v1/cells", "/v1/logs"):
        async with world.http.get(path) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "node-unavailable")
    async with world.http.get("/v1/logs", params={"lines": "0"}) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "invalid-request")


async def test_a_follower_who_leaves_leaves_nothing_behind(world: World) -> None:
    async with world.http.get("/v1/logs", params={"follow": "true"}) as answer:
        await answer.content.readline()
        await answer.content.readline()
    async with asyncio.timeout(10):
        await world.report.left.wait()
