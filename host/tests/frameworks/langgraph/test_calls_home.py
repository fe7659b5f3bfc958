"""LangSmith stays off whatever the environment says: nothing of a call leaves the machine."""

import asyncio
import json

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, LangGraphBehaviour, PromptNode
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostProcess, host_config
from chimera_host.testing.zygotes import ZygoteProcess

PROBE = """
import json
import os
import threading
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langsmith.utils import get_env_var, tracing_is_enabled


class Text(TypedDict, total=False):
    input: str
    output: str


def factory(context):
    os.environ["LANGSMITH_TRACING_V2"] = "true"  # as a library that reads a file of settings may
    get_env_var.cache_clear()

    def probe(state):
        tracers = [thread.name for thread in threading.enumerate() if "tracing" in thread.name]
        context.model.invoke("hello")
        return {"output": json.dumps({"enabled": tracing_is_enabled(), "tracers": tracers})}

    graph = StateGraph(Text)
    graph.add_node("probe", probe)
    graph.add_edge(START, "probe")
    return graph
"""
SWITCHES = {
    "LANGSMITH_TRACING": "true",
    "LANGSMITH_TRACING_V2": "true",
    "LANGCHAIN_TRACING_V2": "true",
    "LANGSMITH_API_KEY": "lsv2_test",
    "LANGCHAIN_API_KEY": "lsv2_test",
}
OLD_SWITCHES = {"LANGCHAIN_TRACING": "true", "LANGCHAIN_HANDLER": "langchain"}


@pytest.fixture
async def platform():
    async with FakePlatform() as running:
        yield running


@pytest.fixture
async def home():
    """What LangSmith would call, and who called."""
    callers = []

    def called(_, writer):
        callers.append(writer.get_extra_info("peername"))
        writer.close()

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", callers


async def call_twice(platform, client):
    """A declared graph, then code that switches tracing on itself and tells what it sees."""
    behaviour = LangGraphBehaviour(nodes=(PromptNode(name="ask", prompt="{input}"),), start=("ask",))
    declared = document("declared", "langgraph", behaviour=Behaviour(langgraph=behaviour))
    assert (await client.invoke(invoke_request(declared, platform.add(declared), "hi"))).output == "echo: hi"
    source = SourceCode(bundle=platform.add_bundle({"agent.py": PROBE}), entrypoint="agent:factory")
    coded = document("coded", "langgraph", source=source, behaviour=Behaviour())
    revision = platform.add(coded)
    for _ in range(2):  # what the first call started, the second sees
        seen = json.loads((await client.invoke(invoke_request(coded, revision))).output)
    return seen


@pytest.mark.parametrize("switches", [SWITCHES, OLD_SWITCHES], ids=["on", "old"])
async def test_a_hostile_environment_switches_nothing_on(platform, home, runtime_python, switches):
    url, callers = home
    environ = {**switches, "LANGSMITH_ENDPOINT": url, "LANGCHAIN_ENDPOINT": url}
    async with HostProcess(platform, "langgraph", python=runtime_python("langgraph"), environ=environ) as host:
        assert await call_twice(platform, host.client) == {"enabled": False, "tracers": []}
    assert not callers


async def test_nor_does_it_in_a_forked_host(platform, home, runtime_python, tmp_path):
    url, callers = home
    environ = {**SWITCHES, "LANGSMITH_ENDPOINT": url, "LANGCHAIN_ENDPOINT": url}
    async with ZygoteProcess("langgraph", python=runtime_python("langgraph"), environ=environ) as zygote:
        forked = await zygote.fork(host_config(platform.url, "langgraph", tmp_path))
        assert await call_twice(platform, forked.client) == {"enabled": False, "tracers": []}
    assert not callers
