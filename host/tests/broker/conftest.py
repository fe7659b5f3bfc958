"""Fixtures of the broker's tests: a broker on a platform of dictionaries, a call with a deadline, reference servers."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from chimera_host.broker import Broker
from chimera_host.contract.problem import RemoteProblem
from chimera_host.errors import DeadlineExceeded
from chimera_host.testing.builders import document
from chimera_host.testing.platform import problem

REFERENCE = Path(__file__).with_name("reference_server.py")


class DictPlatform:
    """Credentials and agents from dictionaries; notes what was asked for."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.agents: dict[str, Any] = {}
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.invoked: list[tuple[str, str, str, float]] = []
        self.keys: list[str | None] = []

    async def credentials(self, call_id: str, names: list[str]) -> dict[str, str]:
        self.asked.append((call_id, tuple(names)))
        for name in names:
            if name not in self.secrets:
                raise RemoteProblem(problem("credential-not-found", 404, f"there is no credential {name}"))
        return {name: self.secrets[name] for name in names}

    async def agent_invoke(
        self, call_id: str, agent: str, message: str, deadline: float, key: str | None = None
    ) -> str:
        self.keys.append(key)
        self.invoked.append((call_id, agent, message, deadline))
        answer = self.agents[agent](message)
        return await answer if asyncio.iscoroutine(answer) else answer


class FakeCall:
    """As much of a call as the broker uses."""

    def __init__(self, call: str = "call-1", remaining: float = 120.0) -> None:
        self.request = SimpleNamespace(call=call)
        self.idempotency_key: str | None = None
        self.left = remaining

    def remaining(self) -> float:
        if self.left <= 0:
            raise DeadlineExceeded("the deadline has passed")
        return self.left


class OpenBroker:
    """A broker whose specs were read."""

    def __init__(self, broker: Broker, specs: dict[str, Any]) -> None:
        self.broker = broker
        self.specs = specs
        self.flat = {spec.name: spec for several in specs.values() for spec in several}

    async def call(self, name: str, /, **arguments: Any) -> str:
        return await self.broker.call(name, arguments, call=FakeCall())


@pytest.fixture
def dict_platform() -> DictPlatform:
    return DictPlatform()


@pytest.fixture
def fake_call() -> Callable[..., FakeCall]:
    return FakeCall


@pytest.fixture
async def open_broker(dict_platform: DictPlatform, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await open_broker(tool, …, functions={"m:f": f})`: a broker with its specs read, closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(*tools: Any, functions: Any = None) -> OpenBroker:
            work_dir = tmp_path / "work"
            work_dir.mkdir(exist_ok=True)
            found = (functions or {}).__getitem__
            broker = Broker(document(tools=tools), dict_platform, str(work_dir), found)
            stack.push_async_callback(broker.aclose)
            return OpenBroker(broker, await broker.specs())

        yield start


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """`await serve(handler)`: the base URL of a server that gives every request to `handler`."""
    async with AsyncExitStack() as stack:

        async def start(handler: Any) -> str:
            return await stack.enter_async_context(_serving(handler))

        yield start


@asynccontextmanager
async def _serving(handler: Any) -> AsyncIterator[str]:
    app = web.Application(client_max_size=32 * 1024**2)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(params=["main", "autogen", "langgraph", "crewai"])
def server_python(request: pytest.FixtureRequest) -> str:
    """A Python that has the reference implementation: the tests' own (2.x), and those of the frameworks (1.x, 2.x)."""
    if request.param == "main":
        return sys.executable
    variable = f"CHIMERA_RUNTIME_{request.param.upper()}_PYTHON"
    path = os.environ.get(variable)
    if path is None or shutil.which(path) is None:
        pytest.skip(f"no environment of {request.param}: set {variable} to its python")
    return path


@pytest.fixture(params=["stdio", "sse", "json"])
async def any_reference(request: pytest.FixtureRequest, server_python: str, tmp_path: Path) -> AsyncIterator[Any]:
    """Fields of an `McpTool` that reach the reference server: of each Python, over each transport."""
    async with _reference(request.param, server_python, tmp_path) as way:
        yield way


@pytest.fixture(params=["stdio", "sse", "json"])
async def reference(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Fields of an `McpTool` that reach the reference server in the tests' own Python, over each transport."""
    async with _reference(request.param, sys.executable, tmp_path) as way:
        yield way


@asynccontextmanager
async def _reference(transport: str, python: str, folder: Path) -> AsyncIterator[dict[str, Any]]:
    if transport == "stdio":
        yield {"command": (python, str(REFERENCE), "stdio")}
        return
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    mode = ["--json"] if transport == "json" else []
    (folder / "server").mkdir()
    with (folder / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            python, str(REFERENCE), "http", str(port), *mode, stdout=log, stderr=log, cwd=folder / "server"
        )
    try:
        await _until_listening(port)
        yield {"url": f"http://127.0.0.1:{port}/mcp"}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(120), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
