"""One warm host for all tests of a module: a framework takes seconds to import, a call milliseconds."""

import asyncio
import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chimera_host import frameworks
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import InvokeRequest, InvokeResponse
from chimera_host.testing.builders import invoke_request
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import Answer, FakePlatform, RecordedChat, default_answer, problem
from chimera_host.testing.process import HostProcess, host_config
from chimera_host.testing.zygotes import ForkedHost, ZygoteProcess

Warm = tuple[FakePlatform, HostProcess]
Cancelled = Callable[[InvokeRequest, Callable[[], object]], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(request: pytest.FixtureRequest, runtime_python: Callable[[str], str]) -> AsyncIterator[Warm]:
    """A host of the module's `FRAMEWORK` and the platform behind it; its tests run in the module's event loop."""
    framework = request.module.FRAMEWORK
    async with FakePlatform() as platform, HostProcess(platform, framework, python=runtime_python(framework)) as host:
        yield platform, host


@pytest.fixture
def warm_platform(warm: Warm) -> FakePlatform:
    """The platform, with nothing left of the test before."""
    platform, _ = warm
    platform.script.clear()
    platform.default = default_answer
    platform.model_delay = 0.0
    platform.chats.clear()
    platform.invoked.clear()
    platform.agents.clear()
    platform.checkpoints.clear()
    return platform


@pytest.fixture
def warm_host(warm: Warm) -> HostProcess:
    """The host."""
    return warm[1]


@pytest.fixture
def cancelled(host: HostProcess) -> Cancelled:
    """Make a call, cancel it once a condition holds, and wait until the host has nothing left of it."""

    async def idle() -> bool:
        return (await host.client.loaded())["in_flight"] == 0

    async def cancel(call: InvokeRequest, once: Callable[[], object]) -> None:
        running = asyncio.create_task(host.invoke(call))
        await until(once, 20)
        await host.client.cancel(call.call)
        assert (await refused(running)).code == "call-cancelled"
        await until(idle)

    return cancel


@pytest.fixture(scope="session")
def pure_module() -> Callable[[str], ModuleType]:
    """Load a module without imports of its framework by its path, since its package can't be imported here."""

    def load(path: str) -> ModuleType:
        file = Path(frameworks.__file__).parent / path
        name = f"pure_{file.parent.name}_{file.stem}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return sys.modules[name]

    return load


class Mortal:
    """A run whose host is killed with SIGKILL, and which goes on on another one. Hosts are forked, in milliseconds.

    The model gives `answers` (or what they say of a chat) in their order, each once; the call number `dies_at` (from 0)
    is never answered, since the host is killed while it waits. `tool_log` is a file to which tools of the tests add a
    line for each time they run.
    """

    def __init__(self, platform: FakePlatform, zygote: ZygoteProcess, folder: Path, framework: str) -> None:
        self.platform = platform
        self.tool_log = folder / "tools"
        self._zygote = zygote
        self._folder = folder
        self._framework = framework
        self._numbers = itertools.count(1)

    def tool_lines(self) -> list[str]:
        """What tools have noted."""
        return self.tool_log.read_text().splitlines() if self.tool_log.exists() else []

    async def whole(self, agent: AgentDocument, prompt: str, *answers: Any, **fields: object) -> InvokeResponse:
        """The call as it is when nobody dies."""
        self._script(answers, None)
        host = await self._fork()
        return await host.client.invoke(self._request(agent, prompt, fields))

    async def killed(
        self,
        agent: AgentDocument,
        prompt: str,
        *answers: Any,
        dies_at: int | None = None,
        then: AgentDocument | None = None,
        streams: bool = False,
        **fields: object,
    ) -> Any:
        """The answer of the second host; the first is killed in a model call, or once a tool has noted `in flight`.

        `then` is the agent as the second host finds it. Where it `streams`, the second stream's events are returned.
        """
        hung = self._script(answers, dies_at)
        first, second = await self._fork(), await self._fork()
        request = self._request(agent, prompt, fields)
        lost = asyncio.create_task(first.client.invoke(request))
        await until(lambda: hung.is_set() or "in flight" in self.tool_lines() or lost.done(), 20)
        assert not lost.done(), f"it ended before it was killed: {await lost}"
        await self.kill(first)
        with pytest.raises(aiohttp.ClientError):
            await lost
        then = then or agent
        again = invoke_request(then, self.platform.add(then), prompt, **fields)
        again = self.platform.runs.begin(again, "run-1")
        if streams:
            return [event async for event in second.client.stream(again)]
        return await second.client.invoke(again)

    async def kill(self, host: ForkedHost) -> None:
        """End a host as nothing else would."""
        os.kill(host.pid, signal.SIGKILL)
        gone = await self._zygote.reply()
        assert (gone.op, gone.id) == ("exited", host.id)

    def _request(self, agent: AgentDocument, prompt: str, fields: dict[str, object]) -> InvokeRequest:
        self.platform.chats.clear()
        self.platform.runs.by_name.clear()
        self.tool_log.unlink(missing_ok=True)
        request = invoke_request(agent, self.platform.add(agent), prompt, **fields)
        return self.platform.runs.begin(request, "run-1")

    def _script(self, answers: tuple[Any, ...], dies_at: int | None) -> asyncio.Event:
        left, hung = iter(enumerate(answers)), asyncio.Event()
        waiting: list[Any] = []

        async def answer(chat: RecordedChat) -> Answer:
            if waiting:
                return spoken(waiting.pop(), chat)
            number, said = next(left, (None, problem("model-failed", 502, "the model was asked once too often")))
            if number is not None and number == dies_at:
                waiting.append(said)
                hung.set()
                await asyncio.sleep(60)
            return spoken(said, chat)

        def spoken(said: Any, chat: RecordedChat) -> Answer:
            return said(chat) if callable(said) else said

        self.platform.default = answer
        return hung

    async def _fork(self) -> ForkedHost:
        name = f"host-{next(self._numbers)}"
        config = host_config(
            self.platform.url, self._framework, self._folder, host=name, black_box=str(self._folder / name)
        )
        return await self._zygote.fork(config)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm_zygote(
    request: pytest.FixtureRequest, runtime_python: Callable[[str], str]
) -> AsyncIterator[tuple[FakePlatform, ZygoteProcess]]:
    """A zygote of the module's `FRAMEWORK` and the platform behind its hosts."""
    framework = request.module.FRAMEWORK
    async with FakePlatform() as platform, ZygoteProcess(framework, python=runtime_python(framework)) as zygote:
        yield platform, zygote


@pytest.fixture
def mortal(warm_zygote: tuple[FakePlatform, ZygoteProcess], tmp_path: Path, request: pytest.FixtureRequest) -> Mortal:
    """Runs whose host is killed."""
    platform, zygote = warm_zygote
    platform.script.clear()
    return Mortal(platform, zygote, tmp_path, request.module.FRAMEWORK)
