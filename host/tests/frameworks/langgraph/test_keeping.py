"""Which graphs are kept and how: what it costs in requests, what is refused, and what a kept state may hold."""

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import AgentNode, Behaviour, LangGraphBehaviour, PromptNode
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, Problem
from chimera_host.contract.state import PutCheckpoint, RunState, Several
from chimera_host.contract.tools import AgentTool
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import tool_answer

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import operator
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy, interrupt
from pydantic import BaseModel


class Colour(Enum):
    RED = "red"


class Wish(BaseModel):
    colour: Colour


@dataclass
class Hidden:
    number: int


class Text(TypedDict, total=False):
    input: str
    wish: Wish
    anything: Any
    output: str


def graph(first, second=None):
    made = StateGraph(Text)
    made.add_node("first", first)
    made.add_edge(START, "first")
    if second is not None:
        made.add_node("second", second)
        made.add_edge("first", "second")
    return made


def failing(context, kept, told):
    async def second(state):
        await context.model.ainvoke("second")
        return {"output": told(state)}

    return graph(lambda state: kept, second)


def typed(context):
    return failing(context, {"wish": Wish(colour=Colour.RED)}, lambda state: type(state["wish"]).__name__)


def hidden(context):
    return failing(context, {"anything": Hidden(1)}, lambda state: str(state["anything"].number))


def unkept(context):
    return failing(context, {"anything": sys.stdin}, lambda state: "said")


def off(context):
    return failing(context, {"anything": sys.stdin}, lambda state: "said").compile(checkpointer=False)


def asking(context):
    return graph(lambda state: {"output": interrupt("who?")})


class Own(BaseCheckpointSaver):
    pass


def own(context):
    return graph(lambda state: {}).compile(checkpointer=Own())


def inherits(context):
    return graph(lambda state: {}).compile(checkpointer=True)


def breaks(context):
    return graph(lambda state: {}).compile(checkpointer=InMemorySaver(), interrupt_before=["first"])


def retrying(context):
    async def ask(state):
        one, two = [(await context.model.ainvoke("same")).text for _ in range(2)]
        return {"output": one + two + (await context.model.ainvoke("third")).text}

    made = StateGraph(Text)
    made.add_node("ask", ask, retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.001, retry_on=Exception))
    made.add_edge(START, "ask")
    return made
"""


def code(platform, entrypoint):
    source = SourceCode(bundle=platform.add_bundle({"agent.py": CODE}), entrypoint=f"agent:{entrypoint}")
    return document(entrypoint, "langgraph", source=source, behaviour=Behaviour())


def line(count):
    nodes = [
        PromptNode(name=f"n{number}", prompt=f"{number}?", next=(f"n{number + 1}",) if number < count else ())
        for number in range(1, count + 1)
    ]
    graph = LangGraphBehaviour(nodes=tuple(nodes), start=("n1",))
    return document(f"line-{count}", "langgraph", behaviour=Behaviour(langgraph=graph))


def on(run, platform, made, text="hi", **fields):
    """A call on a run; as the gateway does it, one that goes on says so."""
    resume = RunState(attempt=2, checkpoints=True) if platform.checkpoints.threads else None
    return invoke_request(made, platform.add(made), text, run=run, resume=resume, **fields)


async def test_a_call_without_a_run_keeps_nothing(platform, host):
    for made in (line(3), code(platform, "typed")):
        await host.invoke(invoke_request(made, platform.add(made)))
    assert platform.checkpoints.asked == []


@pytest.mark.parametrize("count", [1, 3, 10])
async def test_a_kept_graph_makes_one_request_for_its_beginning_and_one_for_each_node(platform, host, count):
    await host.invoke(on("run_1", platform, line(count)))
    assert len(platform.checkpoints.asked) == 1 + count
    assert all(
        isinstance(ask, Several) and isinstance(ask.asks[-1], PutCheckpoint) for ask in platform.checkpoints.asked
    )
    assert platform.checkpoints.threads == ("run_1@" + platform.add(line(count))[-12:],)


async def test_the_steps_of_an_agents_loop_are_kept_too(platform, host):
    platform.agents["helper"] = str.upper
    tools = (AgentTool(name="ask", agent="helper"),)
    node = AgentNode(name="loop", system_message="Go.", tools=("ask",))
    made = document(
        "loop",
        "langgraph",
        behaviour=Behaviour(langgraph=LangGraphBehaviour(nodes=(node,), start=("loop",))),
        tools=tools,
    )
    platform.say(tool_answer(("ask", {"message": "x"})), "done")
    assert (await host.invoke(on("run_1", platform, made))).output == "done"
    puts = [one for ask in platform.checkpoints.asked for one in (ask.asks if isinstance(ask, Several) else (ask,))]
    inner = [ask for ask in puts if isinstance(ask, PutCheckpoint) and ask.namespace.startswith("loop:")]
    assert len(inner) == 5  # the question, its start, the model, the tool, the model
    assert len(platform.checkpoints.asked) == 1 + 4 + 1


async def test_types_that_the_schema_names_are_kept(platform, host):
    made = code(platform, "typed")
    platform.say(Problem(type=PROBLEM_TYPE_PREFIX + "x", title="x", status=502, detail="x", code="model-failed"))
    assert (await refused(host.invoke(on("run_1", platform, made)))).code == "model-failed"
    assert (await host.invoke(on("run_1", platform, made))).output == "Wish"


async def test_types_that_it_does_not_name_are_not_made_from_bytes(platform, host):
    made = code(platform, "hidden")
    platform.say(Problem(type=PROBLEM_TYPE_PREFIX + "x", title="x", status=502, detail="x", code="model-failed"))
    await refused(host.invoke(on("run_1", platform, made)))
    failed = await refused(host.invoke(on("run_1", platform, made)))
    assert failed.code == "agent-failed" and "agent.Hidden" in failed.detail and "schema" in failed.next_step
    platform.checkpoints.clear()
    assert (await host.invoke(on("run_2", platform, made))).output == "1"


async def test_what_can_not_be_kept_says_so_and_how_to_do_without(platform, host):
    failed = await refused(host.invoke(on("run_1", platform, code(platform, "unkept"))))
    assert failed.code == "agent-failed" and "TextIOWrapper" in failed.detail
    assert "checkpointer=False" in failed.next_step
    platform.checkpoints.clear()
    assert (await host.invoke(on("run_1", platform, code(platform, "off")))).output == "said"
    assert platform.checkpoints.asked == []


@pytest.mark.parametrize("entrypoint", ["own", "inherits", "breaks"])
async def test_other_checkpointers_and_breakpoints_are_refused(platform, host, entrypoint):
    made = code(platform, entrypoint)
    failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
    assert failed.code == "agent-load-failed"
    assert ("interrupt(question)" if entrypoint == "breaks" else "InMemorySaver()") in failed.next_step


async def test_a_graph_that_asks_back_needs_a_session(platform, host):
    made = code(platform, "asking")
    for call in (invoke_request(made, platform.add(made)), on("run_1", platform, made)):
        failed = await refused(host.invoke(call))
        assert failed.code == "agent-failed" and failed.next_step == "call the agent with a session"


async def test_a_question_that_the_graph_has_forgotten_is_not_asked_for(platform, host):
    """What the session names is gone, or of a graph that was changed since: the call begins anew."""
    made = code(platform, "asking")
    before = session(langgraph={"thread": "gone", "checkpoint": "1", "question": "2"}, other="kept")
    answer = await host.invoke(on("run_1", platform, made, session=before))
    left = answer.session.values["langgraph"]["thread"]
    assert (answer.output, answer.threads) == ("who?", (left,))
    assert left.startswith("run_1@")
    assert answer.session.values["other"] == "kept"
    odd = session(langgraph="something else")
    platform.checkpoints.clear()
    assert (await host.invoke(on("run_2", platform, made, session=odd))).output == "who?"


async def test_a_platform_that_does_not_keep_ends_the_call_with_its_reason(platform, host):
    """Also where a node would go on otherwise: it isn't the node that failed."""
    node = AgentNode(name="a", system_message="?", on_error="b")
    graph = LangGraphBehaviour(nodes=(node, PromptNode(name="b", prompt="?")), start=("a",))
    made = document("graph", "langgraph", behaviour=Behaviour(langgraph=graph))
    taken = Problem(type=PROBLEM_TYPE_PREFIX + "run-taken", title="x", status=409, detail="x", code="run-taken")
    platform.checkpoints.refusals = {2: taken}
    failed = await refused(host.invoke(on("run_1", platform, made)))
    assert (failed.code, failed.status) == ("run-taken", 409)


async def test_a_node_that_is_tried_again_asks_with_the_same_keys(platform, host):
    made = code(platform, "retrying")
    answers = iter("abcdef")
    platform.default = lambda chat: next(answers)
    call = invoke_request(made, platform.add(made))
    failure = Problem(type=PROBLEM_TYPE_PREFIX + "x", title="x", status=502, detail="x", code="model-failed")
    platform.say(lambda chat: next(answers), lambda chat: next(answers), failure)
    answer = await host.invoke(platform.runs.begin(call, "run_1"))
    assert answer.output == "abc"
    asked = platform.runs["run_1"].asked
    assert asked[:3] == asked[3:] and len(set(asked)) == 3
    assert len(platform.chats) == 4
