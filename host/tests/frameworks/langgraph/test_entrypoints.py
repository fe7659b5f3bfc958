"""What an entrypoint may return for LangGraph, with the tools and the model that it is given; sync nodes too."""

import asyncio

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import problem, tool_answer
from chimera_host.testing.process import HostProcess
from chimera_host.watchdog import ExitCode

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
from typing import TypedDict

from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent


class Text(TypedDict, total=False):
    input: str
    half: str
    output: str


def uncompiled(context):
    async def ask(state):
        return {"messages": [await context.model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph


def compiled(context):
    async def ask(state):
        answer = await context.model.ainvoke([("system", "Be brief."), ("user", state["input"])], stop=["##"])
        return {"output": answer.text.upper()}

    graph = StateGraph(Text)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile()


def blocking(context):
    def first(state):
        return {"half": context.model.invoke(state["input"]).text}

    def second(state):
        return {"output": context.model.bind(temperature=0.5).invoke("more of " + state["half"]).text}

    graph = StateGraph(Text)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    return graph


@tool
def shout(text: str) -> str:
    "Shouts a text."
    return text.upper()


def handy(context):
    return create_react_agent(context.model, [*context.tools, shout])


def handy_blocking(context):
    tools = [*context.tools, shout]
    model = context.model.bind_tools(tools)
    by_name = {one.name: one for one in tools}

    def ask(state):
        return {"messages": [model.invoke(state["messages"])]}

    def use(state):
        return {"messages": [by_name[call["name"]].invoke(call) for call in state["messages"][-1].tool_calls]}

    def more(state):
        return "use" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("use", use)
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", more, ["use", END])
    graph.add_edge("use", "ask")
    return graph


def spinning(context):
    def spin(state):
        while state["input"] == "spin":
            pass
        return {"output": "still"}

    graph = StateGraph(Text)
    graph.add_node("spin", spin)
    graph.add_edge(START, "spin")
    return graph


def sleeping(context):
    import time

    def sleep(state):
        time.sleep(0.3)
        return {"output": state["input"]}

    graph = StateGraph(Text)
    graph.add_node("sleep", sleep)
    graph.add_edge(START, "sleep")
    return graph


def mute(context):
    graph = StateGraph(Text)
    graph.add_node("nothing", lambda state: {"half": "said"})
    graph.add_edge(START, "nothing")
    return graph


def strange(context):
    class Other(TypedDict):
        question: str

    graph = StateGraph(Other)
    graph.add_node("nothing", lambda state: state)
    graph.add_edge(START, "nothing")
    return graph


def wrong(context):
    return 7
"""
TOOL = """
def add(a: int, b: int) -> int:
    'Add two numbers.'
    if a < 0:
        raise ValueError("a is negative")
    return a + b
"""
ADD = FunctionTool(name="add", function="sums:add")


def coded(platform, factory, **fields):
    bundle = platform.add_bundle({"agent.py": CODE, "sums.py": TOOL})
    source = SourceCode(bundle=bundle, entrypoint=f"agent:{factory}")
    name = factory.replace("_", "-")
    made = document(name, "langgraph", source=source, behaviour=Behaviour(), concurrency=100, **fields)
    return made, platform.add(made)


async def test_a_graph_that_isnt_compiled_answers_with_its_session_in_view(platform, host):
    before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
    answer = await host.invoke(invoke_request(*coded(platform, "uncompiled"), "Who am I?", session=before))
    assert answer.output == "echo: Who am I?"
    said = [(message["role"], message["content"]) for message in platform.chats[0].body["messages"]]
    assert said == [("user", "My name is Eve."), ("assistant", "Hello Eve."), ("user", "Who am I?")]


async def test_a_compiled_graph_takes_input_and_gives_output(platform, host):
    answer = await host.invoke(invoke_request(*coded(platform, "compiled"), "hi"))
    assert answer.output == "ECHO: HI"
    assert platform.chats[0].body["stop"] == ["##"]


async def test_blocking_nodes_ask_the_model_too(platform, host):
    answer = await host.invoke(invoke_request(*coded(platform, "blocking"), "tea"))
    assert answer.output == "echo: more of echo: tea" and answer.model_calls == 2
    assert platform.chats[1].body["temperature"] == 0.5


@pytest.mark.parametrize("factory", ["handy", "handy_blocking"])
async def test_it_runs_the_agents_tools_and_its_own(platform, host, factory):
    platform.say(tool_answer(("add", {"a": 2, "b": 3}), ("shout", {"text": "five"})), "It is FIVE.")
    answer = await host.invoke(invoke_request(*coded(platform, factory, tools=(ADD,)), "2 and 3?"))
    assert (answer.output, answer.tool_calls, answer.model_calls) == ("It is FIVE.", 1, 2)
    offered = {tool["function"]["name"]: tool["function"] for tool in platform.chats[0].body["tools"]}
    assert set(offered) == {"add", "shout"} and offered["add"]["parameters"]["required"] == ["a", "b"]
    assert [m["content"] for m in platform.chats[1].body["messages"] if m["role"] == "tool"] == ["5", "FIVE"]


@pytest.mark.parametrize("factory", ["handy", "handy_blocking"])
async def test_a_tools_failure_is_told_to_the_model(platform, host, factory):
    platform.say(tool_answer(("add", {"a": -1, "b": 3})), "It doesn't work.")
    answer = await host.invoke(invoke_request(*coded(platform, factory, tools=(ADD,)), "-1 and 3?"))
    assert answer.output == "It doesn't work." and "a is negative" in platform.chats[1].last


@pytest.mark.parametrize(
    ("factory", "script", "words"),
    [
        ("uncompiled", ["one two"], ["one", " two"]),
        ("handy", [tool_answer(("shout", {"text": "x"})), "It is."], ["It", " is."]),
        ("blocking", ["one two", "three"], ["one two", "three"]),
        ("handy_blocking", [tool_answer(("shout", {"text": "x"})), "It is."], ["It is."]),
    ],
)
async def test_what_the_model_says_is_streamed_word_by_word_where_nothing_blocks(
    platform, host, factory, script, words
):
    platform.say(*script)
    events = [event async for event in host.client.stream(invoke_request(*coded(platform, factory)))]
    assert [data["text"] for name, data in events if name == "delta"] == words
    assert events[-1][0] == "done"


@pytest.mark.parametrize("factory", ["uncompiled", "blocking", "handy_blocking"])
async def test_calls_at_once_dont_mix(platform, host, factory):
    made = coded(platform, factory)
    calls = [invoke_request(*made, f"word-{n}.") for n in range(30)]
    answers = await asyncio.gather(*(host.invoke(call) for call in calls))
    assert [answer.output.split()[-1] for answer in answers] == [call.messages[0].content for call in calls]


async def test_blocking_nodes_of_many_calls_run_at_once(platform, host):
    made = coded(platform, "sleeping")
    loop = asyncio.get_running_loop()
    await host.invoke(invoke_request(*made, "first"))
    began = loop.time()
    answers = await asyncio.gather(*(host.invoke(invoke_request(*made, str(n))) for n in range(40)))
    assert [answer.output for answer in answers] == [str(n) for n in range(40)]
    assert loop.time() - began < 40 * 0.3 / 10


@pytest.mark.parametrize("factory", ["uncompiled", "blocking", "handy"])
async def test_a_models_failure_is_the_calls(platform, host, factory):
    platform.say(problem("budget-exceeded", 402, "no money left"))
    failed = await refused(host.invoke(invoke_request(*coded(platform, factory))))
    assert failed.code == "budget-exceeded" and len(platform.chats) == 1


@pytest.mark.parametrize("factory", ["uncompiled", "blocking", "handy", "handy_blocking"])
async def test_a_cancelled_call_ends_at_its_model_call(platform, cancelled, factory):
    platform.model_delay = 30.0
    await cancelled(invoke_request(*coded(platform, factory)), lambda: platform.chats)
    assert len(platform.chats) == 1 and platform.chats[0].cancelled


async def test_a_blocking_node_that_never_ends_costs_the_host(platform, runtime_python):
    python = runtime_python("langgraph")
    async with HostProcess(platform, "langgraph", python=python, grace=0.5) as own:
        made = coded(platform, "spinning")
        assert (await own.invoke(invoke_request(*made, "hold"))).output == "still"
        assert (await refused(own.invoke(invoke_request(*made, "spin", deadline=0.3)))).code == "deadline-exceeded"
        assert await own.ended(20) == ExitCode.CALL_OVERDUE
        assert any(line.get("agents") == ["spinning"] for line in own.log_lines())


@pytest.mark.parametrize(
    ("factory", "code", "words"),
    [
        ("wrong", "agent-load-failed", "int"),
        ("strange", "agent-load-failed", "`messages` or `input`"),
        ("mute", "agent-failed", "neither `output` nor `messages`"),
    ],
)
async def test_what_cant_answer_is_refused_with_what_is_wanted(platform, host, factory, code, words):
    failed = await refused(host.invoke(invoke_request(*coded(platform, factory))))
    assert failed.code == code and words in failed.detail and failed.next_step
