"""A host on Node.js as a real process; skipped where there is no supported Node.js."""

import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import chimera_host
from chimera_host.testing.process import HostProcess

SCRIPT = Path(chimera_host.__file__).parent / "node" / "host.mjs"
OLDEST = 20


@pytest.fixture(scope="session")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js on the path")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.strip().removeprefix("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"Node.js {said.strip()} is older than {OLDEST}")
    return found


@pytest.fixture
async def node_host(platform, node):
    """Start a host: `await node_host(**fields of HostConfig)`."""
    async with AsyncExitStack() as stack:

        async def start(**fields) -> HostProcess:
            return await stack.enter_async_context(HostProcess(platform, command=(node, str(SCRIPT)), **fields))

        yield start
