"""What every `HostLauncher` does: the shipped fake, forked processes, processes started whole, and Node.js."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.substrates.local import limits, nodejs
from chimera.adapters.substrates.local.launcher import LauncherOptions, LocalLauncher
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera.platform.ports import HostExit, HostLauncher
from chimera.testing.launcher import FakeLauncher
from chimera_host.contract.call import InvokeRequest
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import until
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostClient

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows runs Chimera in WSL2")
GRACE = 15.0


class Rig:
    """A launcher, what it told, and a call of one agent."""

    launcher: HostLauncher
    runtime = "python"

    def __init__(self) -> None:
        self.exits: list[HostExit] = []
        self.platform = FakePlatform()
        self.agent = document("agent")
        self.revision = "r"
        self.clients: list[HostClient] = []

    def spec(self) -> CellSpec:
        resources = ResourceClass(name="standard", cpu_millicores=1000, memory_bytes=1024**3)
        runtime = RuntimeClass(
            tenant="default",
            framework="function",
            runtime=self.runtime,  # type: ignore[arg-type]
            isolation="tenant:default",
            resources=resources,
        )
        return CellSpec(cell="cell-1", runtime_class=runtime)

    async def host(self, name: str) -> HostClient:
        """A started host that is ready."""
        endpoint = await self.launcher.start(self.spec(), name)
        assert (endpoint.host, endpoint.cell) == (name, "cell-1")
        self.clients.append(HostClient(endpoint.url, endpoint.key))

        async def ready() -> bool:
            return await self.launcher.ready(name)

        await until(ready, 30)
        return self.clients[-1]

    def request(self, **fields: Any) -> InvokeRequest:
        return invoke_request(self.agent, self.revision, **fields)

    def takes(self, seconds: float) -> None:
        """Calls take so long from here on."""
        self.platform.model_delay = seconds

    async def runs(self) -> None:
        """Wait until a call is on its way."""
        await until(lambda: self.platform.chats, 10)

    async def kill(self, host: str) -> None:
        assert isinstance(self.launcher, LocalLauncher)
        os.kill(self.launcher.processes()[host], signal.SIGKILL)


class FakeRig(Rig):
    """The fake, with real sockets."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.running = 0

        async def answer(request: InvokeRequest) -> str:
            self.running += 1
            await asyncio.sleep(self.seconds)
            return f"echo: {request.messages[-1].content}"

        self.fake = self.launcher = FakeLauncher(answer=answer)

    def takes(self, seconds: float) -> None:
        self.seconds = seconds

    async def runs(self) -> None:
        await until(lambda: self.running, 10)

    async def kill(self, host: str) -> None:
        await self.fake.kill(host)


def local(rig: Rig, home: Path, **options: Any) -> LocalLauncher:
    async def requirements(_: str) -> bytes:
        raise AssertionError("no agent of these tests has any")

    made = LauncherOptions(
        home=home,
        platform_url=rig.platform.url,
        mint=lambda host, cell: rig.platform.token,
        requirements=requirements,
        grace=GRACE,
        **options,
    )
    return LocalLauncher(made, Runtimes(home / "runtimes", {"function": Path(sys.executable)}), limits.NONE)


@pytest.fixture(params=["fake", "forked", "whole", "node"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    made = FakeRig() if request.param == "fake" else Rig()
    async with made.platform:
        made.revision = made.platform.add(made.agent)
        if request.param == "forked" and not sys.platform.startswith("linux"):
            pytest.skip("there is no fork here")
        if request.param == "node":
            found = shutil.which("node")
            if found is None or not nodejs.supported(nodejs.version(Path(found))):
                pytest.skip(f"no Node.js {nodejs.OLDEST} or newer")
            made.runtime = "node"
        if request.param != "fake":
            made.launcher = local(made, tmp_path, fork=request.param == "forked")
        made.launcher.on_exit(made.exits.append)
        yield made
        await made.launcher.close()
        await asyncio.gather(*(client.close() for client in made.clients))


async def test_a_host_starts_answers_and_is_counted(rig: Rig) -> None:
    client = await rig.host("host-1")
    assert await rig.launcher.alive("host-1")
    assert (await client.invoke(rig.request(prompt="hello"))).output == "echo: hello"
    assert list(rig.launcher.memory()) == ["host-1"] and rig.launcher.memory()["host-1"] > 0
    assert rig.exits == []


async def test_a_killed_host_is_told_with_the_calls_that_it_ran(rig: Rig) -> None:
    client = await rig.host("host-1")
    rig.takes(30.0)
    request = rig.request()
    running = asyncio.ensure_future(client.invoke(request))
    await rig.runs()
    await rig.kill("host-1")
    await until(lambda: rig.exits, 10)
    (ended,) = rig.exits
    assert (ended.host, ended.cell, ended.expected) == ("host-1", "cell-1", False) and "SIGKILL" in ended.cause
    assert [(one.agent, one.call) for one in ended.calls] == [("default/agent", request.call)]
    assert 0 <= ended.calls[0].seconds < 20
    assert not await rig.launcher.ready("host-1") and rig.launcher.memory() == {}
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stopped_host_finishes_its_calls_first(rig: Rig) -> None:
    client = await rig.host("host-1")
    rig.takes(0.5)
    running = asyncio.ensure_future(client.invoke(rig.request(prompt="last")))
    await rig.runs()
    await rig.launcher.stop("host-1", GRACE)
    assert (await running).output == "echo: last"
    (ended,) = rig.exits
    assert ended.expected and ended.calls == () and "SIGKILL" not in ended.cause
    assert not await rig.launcher.alive("host-1") and rig.launcher.memory() == {}


async def test_a_host_that_does_not_finish_in_time_is_killed(rig: Rig) -> None:
    client = await rig.host("host-1")
    rig.takes(60.0)
    running = asyncio.ensure_future(client.invoke(rig.request()))
    await rig.runs()
    await rig.launcher.stop("host-1", 0.3)
    (ended,) = rig.exits
    assert ended.expected and "SIGKILL" in ended.cause
    assert [one.agent for one in ended.calls] == ["default/agent"]
    await asyncio.gather(running, return_exceptions=True)


async def test_closing_ends_all_hosts(rig: Rig) -> None:
    for name in ("host-1", "host-2"):
        await rig.host(name)
    pids = rig.launcher.processes() if isinstance(rig.launcher, LocalLauncher) else {}
    await rig.launcher.close()
    assert rig.launcher.memory() == {} and {ended.host for ended in rig.exits} == {"host-1", "host-2"}
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_host_that_nobody_started_is_no_error(rig: Rig) -> None:
    assert not await rig.launcher.ready("nobody") and not await rig.launcher.alive("nobody")
    await rig.launcher.stop("nobody", 1.0)
    assert rig.exits == []
