"""The node agent over HTTP, on a Unix socket that only this user can open.

The gateway wakes cells, waits for endpoints, and reports; the control plane says which cells keep hosts; people see
cells, hosts, incidents and logs through the gateway, which has authenticated them.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from chimera.entrypoints.node.report import NodeReport
from chimera.platform.conditions import Seen
from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec, Endpoint
from chimera.platform.node import NodeAgent
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_WAIT = 60.0
MAX_BODY = 8 * 1024 * 1024
VERSION_DIGITS = 18


log = logging.getLogger(__name__)


class Stats(msgspec.Struct, frozen=True):
    """Average calls in flight by cell since the last report."""

    cells: dict[str, float]


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway saw a host fail a call."""

    kind: str
    agent: str
    call: str


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The numbered list that a gateway waits on."""

    version: int
    cells: dict[str, list[Endpoint]]


class SeenCells(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to see of each cell's trouble, at a version; the control plane waits on it."""

    version: int
    cells: list[Seen]


class Woken(msgspec.Struct, frozen=True, kw_only=True):
    """The hosts of a cell that was woken."""

    version: int
    endpoints: list[Endpoint]


class NodeFailed(ProblemError):
    """A fault of the node agent."""

    code = "internal"
    status = 500
    title = "The node agent failed"


class BadNodeRequest(ProblemError):
    """A request to the node agent is malformed."""

    code = "invalid-request"
    status = 400
    title = "The request is not valid"


class NodeApp:
    """Routes and handlers."""

    def __init__(self, agent: NodeAgent, report: NodeReport) -> None:
        """Serve `agent`; `report` makes what people look at."""
        self._agent = agent
        self._report = report

    def make(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._livez)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/cells/{cell}/wake", self._wake)
        app.router.add_put("/v1/cells", self._put_cells)
        app.router.add_get("/v1/cells", self._cells)
        app.router.add_get("/v1/endpoints", self._endpoints)
        app.router.add_get("/v1/seen", self._seen)
        app.router.add_post("/v1/stats", self._stats)
        app.router.add_post("/v1/hosts/{host}/report", self._host_report)
        app.router.add_get("/v1/hosts", self._hosts)
        app.router.add_get("/v1/incidents", self._incidents)
        app.router.add_get("/v1/top", self._top)
        app.router.add_get("/v1/logs", self._logs)
        return app

    async def _livez(self, _: web.Request) -> web.StreamResponse:
        return _json({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text=self._report.metrics(), content_type="text/plain")

    async def _wake(self, request: web.Request) -> web.StreamResponse:
        spec = _decode(await request.read(), CellSpec)
        endpoints = await self._agent.wake(spec, _seconds(request, "within", 60.0))
        return _json(Woken(version=self._agent.version, endpoints=endpoints))

    async def _put_cells(self, request: web.Request) -> web.StreamResponse:
        self._agent.put_cells(_decode(await request.read(), list[CellSpec]))
        return _json({"version": self._agent.version})

    async def _cells(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._report.cells())

    async def _endpoints(self, request: web.Request) -> web.StreamResponse:
        version, cells = await self._agent.endpoints(_version(request), _seconds(request, "wait", 0.0))
        return _json(Endpoints(version=version, cells=cells))

    async def _seen(self, request: web.Request) -> web.StreamResponse:
        version, cells = await self._agent.seen(_version(request), _seconds(request, "wait", 0.0))
        return _json(SeenCells(version=version, cells=cells))

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        self._agent.observe(_decode(await request.read(), Stats).cells)
        return web.Response(status=204)

    async def _host_report(self, request: web.Request) -> web.StreamResponse:
        told = _decode(await request.read(), HostReport)
        self._agent.report(request.match_info["host"], kind=told.kind, agent=told.agent, call=told.call)
        return web.Response(status=204)

    async def _hosts(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._report.hosts())

    async def _incidents(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._report.incidents())

    async def _top(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._report.top())

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = LogQuery.parse(request.query)
        lines = await self._report.logs(query, lambda: request.transport is None)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # whoever follows leaves by hanging up
            async with contextlib.aclosing(lines):
                async for line in lines:
                    await response.write(line + b"\n")
            await response.write_eof()
        return response


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as raised:
        error = raised if isinstance(raised, ProblemError) else NodeFailed("the node agent failed; its log says why")
        if error is not raised:
            log.exception("a request failed", extra={"path": request.path})
        headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else {}
        body = msgspec.json.encode(error.problem(instance=request.path))
        return web.Response(status=error.status, body=body, content_type=PROBLEM_MEDIA_TYPE, headers=headers)


def _decode(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadNodeRequest(f"the body is not what was expected: {error}") from None


def _version(request: web.Request) -> int:
    after = request.query.get("after", "0")
    if not (after.isdecimal() and len(after) <= VERSION_DIGITS):
        raise BadNodeRequest(f"after={after[:20]!r} is not a version", next_step="pass the version of the last answer")
    return int(after)


def _seconds(request: web.Request, name: str, default: float) -> float:
    try:
        return min(MAX_WAIT, max(0.0, float(request.query.get(name, default))))
    except ValueError:
        raise BadNodeRequest(f"{name}={request.query[name]!r} is not a number of seconds") from None


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
