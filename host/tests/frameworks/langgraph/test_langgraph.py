"""Declared graphs in a real host, in LangGraph's own environment, against the scripted platform."""

import asyncio

import pytest

from chimera_host.contract.behaviour import AgentNode, Behaviour, BranchNode, Condition, LangGraphBehaviour, PromptNode
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import problem

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")


def graph(*nodes, start, **fields):
    behaviour = LangGraphBehaviour(nodes=nodes, start=start, **fields)
    return document("graph", "langgraph", behaviour=Behaviour(langgraph=behaviour), concurrency=100)


def joined():
    return graph(
        PromptNode(name="a", prompt="A {input}", next=("join",)),
        BranchNode(name="choice", cases=(Condition(to="x", contains="HI"),), otherwise="y"),
        PromptNode(name="x", prompt="X", next=("join",)),
        PromptNode(name="y", prompt="Y", next=("join",)),
        PromptNode(name="join", prompt="[{a}|{x}|{y}]"),
        start=("a", "choice"),
    )


@pytest.mark.parametrize(
    ("said", "output"), [("hi", "echo: [echo: A hi|echo: X|]"), ("bye", "echo: [echo: A bye||echo: Y]")]
)
async def test_a_join_waits_for_parallel_paths_and_not_for_those_not_taken(platform, host, said, output):
    agent = joined()
    answer = await host.invoke(invoke_request(agent, platform.add(agent), said))
    assert (answer.output, answer.model_calls) == (output, 3)


async def test_an_error_goes_where_the_graph_says_else_names_the_node(platform, host):
    ask, mend = PromptNode(name="ask", prompt="?", on_error="mend"), PromptNode(name="mend", prompt="got {error}")
    agent = graph(ask, mend, start=("ask",))
    platform.say(problem("model-failed", 502, "broken model"))
    assert (await host.invoke(invoke_request(agent, platform.add(agent)))).output == "echo: got broken model"
    agent = graph(PromptNode(name="ask", prompt="?"), start=("ask",))
    platform.say(problem("model-failed", 502, "broken model"))
    failed = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert "node ask" in failed.detail and "broken model" in failed.detail


async def test_a_circle_is_refused_at_load(platform, host):
    a, b = PromptNode(name="a", prompt="?", next=("b",)), PromptNode(name="b", prompt="?", next=("a",))
    agent = graph(a, b, start=("a",))
    failed = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert failed.code == "agent-load-failed" and "circle" in failed.detail


async def test_an_agent_node_answers(platform, host):
    agent = graph(AgentNode(name="a", system_message="Help with {input}."), start=("a",))
    assert (await host.invoke(invoke_request(agent, platform.add(agent), "tea"))).output == "echo: tea"
    assert platform.chats[0].body["messages"][0] == {"role": "system", "content": "Help with tea."}


async def test_calls_at_once_dont_mix(platform, host):
    agent, revision = joined(), platform.add(joined())
    answers = await asyncio.gather(*(host.invoke(invoke_request(agent, revision, f"hi {n}")) for n in range(50)))
    assert [a.output for a in answers] == [f"echo: [echo: A hi {n}|echo: X|]" for n in range(50)]
