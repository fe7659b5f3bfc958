"""One warm host for all tests of a module: a framework takes seconds to import, a call milliseconds."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from chimera_host import frameworks
from chimera_host.contract.call import InvokeRequest
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import FakePlatform, default_answer
from chimera_host.testing.process import HostProcess

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
