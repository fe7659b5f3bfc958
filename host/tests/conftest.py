"""Fixtures of the host's tests: a fake platform, a host in this process, a host as a process of its own."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chimera_host.agents import make_broker
from chimera_host.frameworks import adapter as find_adapter
from chimera_host.host import Host
from chimera_host.server import Server
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostClient, HostProcess, host_config


@pytest.fixture
async def platform() -> AsyncIterator[FakePlatform]:
    async with FakePlatform() as running:
        yield running


class LocalHost:
    """A host in the test's own process and event loop, with a client."""

    def __init__(self, host: Host, client: HostClient) -> None:
        self.host = host
        self.client = client
        self.invoke = client.invoke
        self.stream = client.stream


@pytest.fixture
async def local_host(platform: FakePlatform, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start a host in this process: `await local_host(adapter=…, **fields of HostConfig)`."""
    async with AsyncExitStack() as stack:

        async def start(
            adapter: Any = None, *, framework: Any = "function", make_broker: Any = make_broker, **fields: Any
        ) -> LocalHost:
            fields.setdefault("black_box", None)
            url = fields.pop("platform_url", platform.url)
            config = host_config(url, framework, tmp_path, **fields)
            return await stack.enter_async_context(_running(config, adapter or find_adapter(framework), make_broker))

        yield start


@asynccontextmanager
async def _running(config: Any, adapter: Any, broker: Any) -> AsyncIterator[LocalHost]:
    host = Host(config, adapter, make_broker=broker)
    runner = web.ServerRunner(Server(host).make(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = HostClient(f"http://127.0.0.1:{runner.addresses[0][1]}", config.host_key)
    try:
        yield LocalHost(host, client)
    finally:
        await client.close()
        await runner.cleanup()
        await host.aclose()


@pytest.fixture
async def host_process(platform: FakePlatform) -> AsyncIterator[Callable[..., Any]]:
    """Start a host as a process: `await host_process(framework="function", **fields of HostConfig)`."""
    async with AsyncExitStack() as stack:

        async def start(framework: Any = "function", **fields: Any) -> HostProcess:
            return await stack.enter_async_context(HostProcess(platform, framework, **fields))

        yield start


@pytest.fixture(scope="session")
def runtime_python() -> Callable[[str], str]:
    """The Python of a framework's environment, from CHIMERA_RUNTIME_<NAME>_PYTHON; skips where it isn't set."""

    def find(name: str) -> str:
        variable = f"CHIMERA_RUNTIME_{name.upper()}_PYTHON"
        path = os.environ.get(variable)
        if path is None or shutil.which(path) is None:
            pytest.skip(f"no environment of {name}: set {variable} to its python (chimera runtime install {name})")
        return path

    return find
