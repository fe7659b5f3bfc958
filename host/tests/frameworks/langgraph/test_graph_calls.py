"""What declared graphs stream, what their nodes are told, how their loops and calls end, and who is blamed."""

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import (
    AgentNode,
    Behaviour,
    BranchNode,
    Condition,
    LangGraphBehaviour,
    PromptNode,
    ToolNode,
)
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import problem, tool_answer

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = AgentTool(name="ask", agent="helper")


def graph(*nodes, start, output=None, **fields):
    behaviour = LangGraphBehaviour(nodes=nodes, start=start, output=output)
    return document("graph", "langgraph", behaviour=Behaviour(langgraph=behaviour), **fields)


def asking(**fields):
    """An agent node with a tool, whose answer a prompt node is told."""
    adder = AgentNode(name="adder", system_message="Add.", tools=("ask",), next=("say",))
    return graph(adder, PromptNode(name="say", prompt="{adder}"), start=("adder",), tools=(ASK,), **fields)


async def test_what_nodes_say_is_streamed_word_by_word_under_their_names(platform, host):
    platform.agents["helper"] = lambda message: "five"
    made = asking()
    platform.say(tool_answer(("ask", {"message": "2 and 3"})), "It is", "Five then")
    call = invoke_request(made, platform.add(made), "2 and 3?")
    seen = [event async for event in host.client.stream(call)]
    deltas = [(data["source"], data["text"]) for name, data in seen if name == "delta"]
    assert deltas == [("adder", "It"), ("adder", " is"), ("say", "Five"), ("say", " then")]
    assert [(data["tool"], data["phase"]) for name, data in seen if name == "tool"] == [
        ("ask", "start"),
        ("ask", "end"),
    ]
    assert seen[-1][0] == "done" and seen[-1][1]["output"] == "Five then"


@pytest.mark.parametrize("kind", [PromptNode, AgentNode])
async def test_a_node_sees_the_session_before_its_own_question(platform, host, kind):
    made = graph(kind(name="a", system_message="Be {input}.", prompt="Q: {input}"), start=("a",))
    before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
    await host.invoke(invoke_request(made, platform.add(made), "brief", session=before))
    assert [(m["role"], m["content"]) for m in platform.chats[0].body["messages"]] == [
        ("system", "Be brief."),
        ("user", "My name is Eve."),
        ("assistant", "Hello Eve."),
        ("user", "Q: brief"),
    ]


async def test_a_models_failure_keeps_its_code_and_names_the_node(platform, host):
    for kind in (PromptNode(name="a", prompt="?"), AgentNode(name="a", system_message="?")):
        made = graph(kind, start=("a",))
        platform.say(problem("budget-exceeded", 402, "no money left", next_step="raise the budget"))
        failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
        assert (failed.code, failed.status, failed.next_step) == ("budget-exceeded", 402, "raise the budget")
        assert "node a" in failed.detail and "no money left" in failed.detail


async def test_a_tools_failure_goes_where_the_graph_says(platform, host):
    call = ToolNode(name="call", tool="ask", arguments={"message": "{input}"}, next=("say",), on_error="mend")
    say, mend = PromptNode(name="say", prompt="{call}"), PromptNode(name="mend", prompt="without: {error}")
    made = graph(call, say, mend, start=("call",), tools=(ASK,))
    revision = platform.add(made)
    answer = await host.invoke(invoke_request(made, revision, "hi"))
    assert answer.output.startswith("echo: without: ") and "no agent helper" in answer.output
    platform.agents["helper"] = str.upper
    assert (await host.invoke(invoke_request(made, revision, "hi"))).output == "echo: HI"


async def test_an_agents_loop_of_tools_ends_as_a_failure(platform, host):
    platform.agents["helper"] = lambda message: "again"
    platform.default = lambda chat: tool_answer(("ask", {"message": "?"})) if chat.body.get("tools") else "said"
    made = asking()
    failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
    assert failed.code == "agent-failed" and "node adder" in failed.detail and "tools" in failed.detail
    assert len(platform.chats) == len(platform.invoked) == 25


@pytest.mark.parametrize("node", [AgentNode(name="a", system_message="?", tools=("gone",)), None])
async def test_an_unknown_tool_is_refused_with_its_node(platform, host, node):
    made = graph(node or ToolNode(name="a", tool="gone"), start=("a",), tools=(ASK,))
    failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
    assert failed.code == "agent-load-failed" and "'a'" in failed.detail and "'gone'" in failed.detail


async def test_a_pattern_that_is_none_is_refused_with_its_node(platform, host):
    branch = BranchNode(name="choice", cases=(Condition(to="a", matches="("),), otherwise="a")
    made = graph(branch, PromptNode(name="a", prompt="?"), start=("choice",))
    failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
    assert failed.code == "agent-load-failed" and "choice" in failed.detail


@pytest.mark.parametrize(
    "kind", [PromptNode(name="a", prompt="?", on_error="b"), AgentNode(name="a", system_message="?")]
)
async def test_a_cancelled_call_ends_at_its_model_call(platform, cancelled, kind):
    made = graph(kind, PromptNode(name="b", prompt="?"), start=("a",))
    platform.model_delay = 30.0
    await cancelled(invoke_request(made, platform.add(made)), lambda: platform.chats)
    await until(lambda: platform.chats[0].cancelled)
    assert len(platform.chats) == 1


CODE = """
import asyncio
from pathlib import Path


async def wait(where: str) -> str:
    Path(where).touch()
    await asyncio.sleep(30)
    return "late"
"""


@pytest.mark.parametrize("kind", ["tool", "agent"])
async def test_a_call_cancelled_in_a_tool_runs_nothing_more(platform, cancelled, tmp_path, kind):
    started = tmp_path / "started"
    if kind == "tool":
        node = ToolNode(name="a", tool="wait", arguments={"where": str(started)}, next=("b",), on_error="b")
    else:
        node = AgentNode(name="a", system_message="?", tools=("wait",), next=("b",), on_error="b")
        platform.say(tool_answer(("wait", {"where": str(started)})))
    source = SourceCode(bundle=platform.add_bundle({"slow.py": CODE}))
    tools = (FunctionTool(name="wait", function="slow:wait"),)
    made = graph(node, PromptNode(name="b", prompt="?"), start=("a",), source=source, tools=tools)
    await cancelled(invoke_request(made, platform.add(made)), started.exists)
    assert len(platform.chats) == (kind == "agent")
