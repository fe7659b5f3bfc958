"""One warm host for all tests of a module: a framework takes seconds to import, a call milliseconds."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from chimera_host.testing.platform import FakePlatform, default_answer
from chimera_host.testing.process import HostProcess

Warm = tuple[FakePlatform, HostProcess]


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
