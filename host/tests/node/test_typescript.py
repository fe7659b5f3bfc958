"""Agents in TypeScript: run as they are where Node.js strips types, refused with what to do where it doesn't."""

import subprocess
from pathlib import Path

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused
from chimera_host.testing.process import HostProcess

from .conftest import SCRIPT

EXAMPLE = Path(__file__).parents[3] / "examples" / "typescript" / "code"
TYPES = SCRIPT.with_name("chimera.d.ts")


@pytest.fixture
def sorter(platform):
    files = {file.name: file.read_text() for file in EXAMPLE.iterdir()}
    agent = document("sorter", source=SourceCode(bundle=platform.add_bundle(files), entrypoint="sorter:make"))
    return agent, platform.add(agent)


@pytest.fixture(scope="session")
def strips(node: str) -> bool:
    said = subprocess.run([node, "-p", "!!process.features.typescript"], capture_output=True, text=True, check=True)
    return said.stdout.strip() == "true"


async def test_the_example_answers_and_counts(platform, node_host, sorter, strips) -> None:
    if not strips:
        pytest.skip("this Node.js doesn't strip types: `chimera runtime install node`")
    host = await node_host()
    platform.say("the pump leaks", "not urgent", "the other pump leaks")
    first = await host.invoke(invoke_request(*sorter, "there is a leak", session=session()))
    second = await host.invoke(invoke_request(*sorter, "please paint the door", session=first.session))
    third = await host.invoke(invoke_request(*sorter, "Leak!", session=second.session))
    outputs = [first.output, second.output, third.output]
    assert outputs == ["now (1): the pump leaks", "later (1): not urgent", "now (2): the other pump leaks"]
    assert third.session.values == {"counts": {"now": 2, "today": 0, "later": 1}}


async def test_a_node_that_strips_no_types_says_so(platform, node, sorter, strips) -> None:
    command = (node, *(("--no-experimental-strip-types",) if strips else ()), str(SCRIPT))
    async with HostProcess(platform, command=command) as host:
        problem = await refused(host.invoke(invoke_request(*sorter)))
    assert problem.code == "agent-load-failed" and "22.18" in (problem.next_step or "")


def test_the_example_has_the_types_that_are_shipped() -> None:
    assert (EXAMPLE / TYPES.name).read_bytes() == TYPES.read_bytes()
