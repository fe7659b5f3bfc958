"""Every framework calls a real MCP server, over stdio and streamable HTTP, when the scripted model asks for it."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from chimera_host.contract.behaviour import (
    AgentNode,
    AutoGenBehaviour,
    AutoGenParticipant,
    Behaviour,
    CrewAIBehaviour,
    CrewMember,
    CrewTask,
    FunctionBehaviour,
    LangGraphBehaviour,
    ToolNode,
)
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, ToolLimits
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.platform import tool_answer
from chimera_host.testing.process import HostProcess

REFERENCE = Path(__file__).parent.parent / "broker" / "reference_server.py"
FRAMEWORKS = ("autogen", "langgraph", "crewai")
ARGUMENTS = {"a": 2, "b": 3}


def crew(tools):
    member = CrewMember(name="adder", role="Adder", goal="Add", backstory="Adds.", tools=tools)
    task = CrewTask(name="add", description="{input}", expected_output="A number", member="adder")
    return Behaviour(crewai=CrewAIBehaviour(members=(member,), tasks=(task,)))


def autogen(kind, tools, **fields):
    return Behaviour(autogen=AutoGenBehaviour(kind=kind, system_message="Add.", tools=tools, **fields))


def group(tools):
    member = AutoGenParticipant(name="adder", role="adds", tools=tools)
    return Behaviour(
        autogen=AutoGenBehaviour(kind="coordination", system_message="Add.", participants=(member,), max_rounds=1)
    )


def react(tools):
    node = AgentNode(name="adder", system_message="Add.", tools=tools)
    return Behaviour(langgraph=LangGraphBehaviour(nodes=(node,), start=("adder",)))


BEHAVIOURS = {
    "autogen-conversational": ("autogen", lambda tools: autogen("conversational", tools)),
    "autogen-task_execution": ("autogen", lambda tools: autogen("task_execution", tools)),
    "autogen-coordination": ("autogen", group),
    "langgraph-agent": ("langgraph", react),
    "crewai": ("crewai", crew),
    "function": ("function", lambda tools: Behaviour(function=FunctionBehaviour(system_message="Add.", tools=tools))),
}


@pytest.fixture
async def start(platform, runtime_python):
    """`await start("autogen")`: a host of the framework, and the Python of its environment."""
    async with AsyncExitStack() as stack:

        async def begin(framework):
            python = runtime_python(framework) if framework != "function" else sys.executable
            return await stack.enter_async_context(HostProcess(platform, framework, python=python)), python

        yield begin


@pytest.fixture
async def http_server():
    """`await http_server(python)`: the URL of a reference server as a process of its own."""
    processes = []

    async def begin(python):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = await asyncio.create_subprocess_exec(python, str(REFERENCE), "http", str(port))
        processes.append(process)
        async with asyncio.timeout(120):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return f"http://127.0.0.1:{port}/mcp"

    yield begin
    for process in processes:
        process.kill()
        await process.wait()


async def ask(platform, host, agent):
    platform.say(tool_answer((agent.tools[0].name + "_add", ARGUMENTS)), "It is 5.")
    return await host.invoke(invoke_request(agent, platform.add(agent), "What is 2 and 3?"))


def told(platform):
    """What the model was told by tools in its last call."""
    return [one["content"] for one in platform.chats[-1].body["messages"] if one["role"] in ("tool", "function")]


@pytest.mark.parametrize("case", BEHAVIOURS)
async def test_a_model_calls_a_server_over_stdio(platform, start, case):
    framework, behaviour = BEHAVIOURS[case]
    host, python = await start(framework)
    tool = McpTool(name="sums", allow=("add",), command=(python, str(REFERENCE), "stdio"))
    agent = document("adder", framework, behaviour=behaviour(("sums",)), tools=(tool,))
    answer = await ask(platform, host, agent)
    assert "It is 5." in answer.output
    assert answer.tool_calls == 1 and answer.model_calls == 2
    offered = [one["function"]["name"] for one in platform.chats[0].body["tools"]]
    assert offered == ["sums_add"]
    assert told(platform) == ["5"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_model_calls_a_server_over_http(platform, start, http_server, framework):
    case = next(name for name in BEHAVIOURS if name.startswith(framework))
    host, python = await start(framework)
    url = await http_server(python)
    tool = McpTool(name="sums", allow=("add",), url=url, limits=ToolLimits(egress=("127.0.0.1",)))
    agent = document("adder", framework, behaviour=BEHAVIOURS[case][1](("sums",)), tools=(tool,))
    answer = await ask(platform, host, agent)
    assert "It is 5." in answer.output and told(platform) == ["5"]


async def test_a_graphs_tool_node_calls_a_server_without_a_model(platform, start):
    host, python = await start("langgraph")
    tool = McpTool(name="sums", allow=("echo",), command=(python, str(REFERENCE), "stdio"))
    node = ToolNode(name="say", tool="sums_echo", arguments={"text": "you said {input}"})
    behaviour = Behaviour(langgraph=LangGraphBehaviour(nodes=(node,), start=("say",)))
    agent = document("echo", "langgraph", behaviour=behaviour, tools=(tool,))
    answer = await host.invoke(invoke_request(agent, platform.add(agent), "hello"))
    assert answer.output == "you said hello" and answer.model_calls == 0 and answer.tool_calls == 1


@pytest.mark.parametrize("case", ["autogen-conversational", "langgraph-agent", "crewai"])
async def test_a_model_calls_the_agents_own_function(platform, start, case):
    framework, behaviour = BEHAVIOURS[case]
    host, _ = await start(framework)
    code = "def add(a: int, b: int) -> int:\n    'Add two numbers.'\n    return a + b\n"
    bundle = platform.add_bundle({"sums.py": code})
    tool = FunctionTool(name="plus", function="sums:add")
    agent = document("adder", framework, behaviour=behaviour(("plus",)), tools=(tool,), source={"bundle": bundle})
    platform.say(tool_answer(("plus", ARGUMENTS)), "It is 5.")
    answer = await host.invoke(invoke_request(agent, platform.add(agent), "What is 2 and 3?"))
    assert "It is 5." in answer.output and told(platform) == ["5"]


@pytest.mark.parametrize("case", ["autogen-conversational", "langgraph-agent", "crewai"])
async def test_a_model_asks_another_agent(platform, start, case):
    framework, behaviour = BEHAVIOURS[case]
    host, _ = await start(framework)
    platform.agents["helper"] = lambda message: f"{message}: five"
    tool = AgentTool(name="helper", agent="helper")
    agent = document("asker", framework, behaviour=behaviour(("helper",)), tools=(tool,))
    platform.say(tool_answer(("helper", {"message": "2 and 3"})), "It is five.")
    answer = await host.invoke(invoke_request(agent, platform.add(agent), "What is 2 and 3?"))
    assert "It is five." in answer.output and told(platform) == ["2 and 3: five"]
