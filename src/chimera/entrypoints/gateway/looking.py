"""Cells, hosts, incidents and logs where no node agent is: the gateway itself looks, through the port `Report`.

The operations are those that a node agent answers on one machine (`entrypoints/node`), with the same rows.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from chimera.entrypoints.gateway.http import HEADER_REQUEST, json_response
from chimera.platform.logs import LogQuery
from chimera.platform.ports import Report


class LookHandlers:
    """Answers the operations of the owner `node`."""

    def __init__(self, report: Report) -> None:
        """Look by `report`."""
        self._report = report
        self._rows: dict[str, Callable[[], Awaitable[Any]]] = {
            "/v1/cells": report.cells,
            "/v1/hosts": report.hosts,
            "/v1/incidents": report.incidents,
            "/v1/top": report.top,
        }

    async def pass_on(self, request: web.BaseRequest, request_id: str, path: str) -> web.StreamResponse:
        """The answer to `request`, asked at `path`."""
        if (rows := self._rows.get(path)) is not None:
            return json_response(await rows(), headers={HEADER_REQUEST: request_id})
        return await self._logs(request, request_id)

    async def _logs(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        query = LogQuery.parse(request.query)
        lines = await self._report.logs(query, lambda: request.transport is None)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", HEADER_REQUEST: request_id})
        async with contextlib.aclosing(lines):
            await response.prepare(request)
            async for line in lines:
                await response.write(line + b"\n")
        await response.write_eof()
        return response
