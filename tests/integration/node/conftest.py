"""The node agent as it is served: its Unix socket, hosts in memory, and a folder of logs."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chimera.entrypoints.node.app import NodeApp
from chimera.entrypoints.node.report import NodeReport
from chimera.kernel.clock import SystemClock
from chimera.platform.node import NodeAgent
from chimera.platform.settings import NodeSettings
from chimera.testing.launcher import FakeLauncher


class Node:
    """A node agent that runs, and one who asks it."""

    def __init__(self, folder: Path) -> None:
        self.launcher = FakeLauncher()
        self.agent = NodeAgent(self.launcher, SystemClock(), NodeSettings(tick=0.1, probe_interval=0.1))
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.socket = str(folder / "node.sock")
        report = NodeReport(
            self.agent, SystemClock(), self.logs, lambda: {"gateway": os.getpid(), "gone": 2**22 + 1}, lambda _: 4096
        )
        self._runner = web.AppRunner(NodeApp(self.agent, report).make(), access_log=None, shutdown_timeout=0.1)
        self._tasks: list[asyncio.Task[None]] = []
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> "Node":
        await self._runner.setup()
        await web.UnixSite(self._runner, self.socket).start()
        self._tasks.append(asyncio.create_task(self.agent.run()))
        self.session = aiohttp.ClientSession("http://node", connector=aiohttp.UnixConnector(self.socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await self.agent.close()

    async def silence(self) -> None:
        """Answer nobody any more."""
        await self._runner.cleanup()

    async def ask(self, method: str, path: str, body: Any = None, *, data: bytes | None = None) -> tuple[int, Any]:
        """Status and what was answered; `body` goes as JSON, `data` as it is."""
        async with self.session.request(method, path, json=body, data=data) as answer:
            return answer.status, await answer.json(content_type=None) if await answer.read() else None

    async def lines(self, query: str) -> list[dict[str, Any]]:
        """What `/v1/logs` shows."""
        async with self.session.get(f"/v1/logs?{query}") as answer:
            assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
            return [json.loads(line) for line in (await answer.read()).splitlines()]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with Node(tmp_path) as made:
        yield made
