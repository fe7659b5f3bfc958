"""What AutoGen's chats stream, who speaks in them, and how they end early."""

import asyncio

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import AutoGenBehaviour, AutoGenParticipant, Behaviour
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import problem, tool_answer

FRAMEWORK = "autogen"
pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBERS = tuple(AutoGenParticipant(name=name, role=f"the {name}") for name in ("ann", "bob", "cid"))
KINDS = ("conversational", "task_execution")
GROUP = {"kind": "coordination", "participants": MEMBERS}


def agent(kind="conversational", *, behaviour=None, **fields):
    declared = AutoGenBehaviour(kind=kind, system_message="Be brief.", **(behaviour or {}))
    return document("talker", "autogen", behaviour=Behaviour(autogen=declared), concurrency=100, **fields)


def group(**fields):
    return agent("coordination", behaviour={"participants": MEMBERS, **fields})


async def events(host, made, revision, text="Go"):
    return [event async for event in host.client.stream(invoke_request(made, revision, text))]


def deltas(seen):
    return [(data["source"], data["text"]) for name, data in seen if name == "delta"]


async def test_a_groups_words_are_streamed_under_their_speakers_and_without_the_last_word(platform, host):
    made = group(max_rounds=3)
    platform.say("one", "two", "three. TERMINATE")
    seen = await events(host, made, platform.add(made))
    assert deltas(seen) == [("ann", "one"), ("bob", "two"), ("cid", "three.")]
    assert seen[-1][0] == "done" and seen[-1][1]["output"] == "three."


@pytest.mark.parametrize("kind", KINDS)
async def test_one_speakers_answer_is_streamed_once_with_its_tools(platform, host, kind):
    platform.agents["helper"] = lambda message: "five"
    made = agent(kind, behaviour={"tools": ("ask",)}, tools=(AgentTool(name="ask", agent="helper"),))
    platform.say(tool_answer(("ask", {"message": "2 and 3"})), "It is five.")
    seen = await events(host, made, platform.add(made))
    assert deltas(seen) == [("assistant", "It is five.")]
    phases = [(data["tool"], data["phase"]) for name, data in seen if name == "tool"]
    assert phases == [("ask", "start"), ("ask", "end")]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_word_that_ends_chats_may_be_talked_about(platform, host, kind):
    made = agent(kind)
    platform.say("Write TERMINATE to end it. TERMINATE")
    answer = await host.invoke(invoke_request(made, platform.add(made)))
    assert answer.output == "Write TERMINATE to end it."


async def test_a_group_ends_with_its_own_word(platform, host):
    made = group(max_rounds=3, termination="<end>")
    platform.say("no TERMINATE here", "bye <end>", "too late")
    seen = await events(host, made, platform.add(made))
    assert deltas(seen) == [("ann", "no TERMINATE here"), ("bob", "bye")]
    assert [message["content"] for message in seen[-1][1]["messages"]] == ["no TERMINATE here", "bye"]


async def test_random_speakers_are_members_in_different_orders(platform, host):
    made = group(pattern="random", max_rounds=6)
    revision = platform.add(made)
    answers = await asyncio.gather(*(host.invoke(invoke_request(made, revision)) for _ in range(5)))
    orders = {tuple(message.name for message in answer.messages) for answer in answers}
    assert all(len(order) == 6 and set(order) <= {"ann", "bob", "cid"} for order in orders)
    assert len(orders) > 1  # five equal ones in a row: once in 10^11


@pytest.mark.parametrize("fields", [{}, GROUP, {**GROUP, "pattern": "auto"}], ids=["one", "group", "auto"])
async def test_a_models_failure_is_the_calls_and_asked_for_once(platform, host, fields):
    kind = fields.get("kind", "conversational")
    made = agent(kind, behaviour={name: value for name, value in fields.items() if name != "kind"})
    platform.say(problem("budget-exceeded", 402, "no money left"))
    failed = await refused(host.invoke(invoke_request(made, platform.add(made))))
    assert failed.code == "budget-exceeded" and len(platform.chats) == 1


async def test_a_tools_failure_is_told_to_the_model(platform, host):
    made = agent(behaviour={"tools": ("ask",)}, tools=(AgentTool(name="ask", agent="nobody"),))
    platform.say(tool_answer(("ask", {"message": "?"})), "I can't ask.")
    assert (await host.invoke(invoke_request(made, platform.add(made)))).output == "I can't ask."
    assert "no agent nobody" in platform.chats[-1].last


@pytest.mark.parametrize("make", [agent, lambda: agent("task_execution"), group], ids=["one", "pair", "group"])
async def test_a_cancelled_call_ends_at_its_model_call(platform, cancelled, make):
    made = make()
    platform.model_delay = 30.0
    await cancelled(invoke_request(made, platform.add(made)), lambda: platform.chats)
    assert len(platform.chats) == 1


CODE = """
import asyncio
from pathlib import Path


async def wait(where: str) -> str:
    Path(where).touch()
    await asyncio.sleep(30)
    return "late"


def mark(where: str) -> str:
    Path(where).touch()
    return "marked"


def factory(context):
    from autogen import ConversableAgent

    agent = ConversableAgent("own", llm_config=context.model, human_input_mode="NEVER")
    for tool in context.tools:
        if tool.name == "wait":
            tool.register_tool(agent)
    agent.register_for_execution()(agent.register_for_llm(description="Marks a file.")(mark))
    return agent
"""


def tooled(platform, kind):
    """An agent with the tools `wait`, through the broker, and `mark`, in its own code or through the broker."""
    bundle = platform.add_bundle({"agent.py": CODE})
    tools = tuple(FunctionTool(name=name, function=f"agent:{name}") for name in ("wait", "mark"))
    if kind == "entrypoint":
        source = SourceCode(bundle=bundle, entrypoint="agent:factory")
        return document("talker", "autogen", source=source, behaviour=Behaviour(), tools=tools)
    member = AutoGenParticipant(name="ann", role="marks", tools=("wait", "mark"))
    behaviour = {"participants": (member,)} if kind == "coordination" else {"tools": ("wait", "mark")}
    return agent(kind, behaviour=behaviour, source=SourceCode(bundle=bundle), tools=tools)


@pytest.mark.parametrize("kind", [*KINDS, "coordination", "entrypoint"])
async def test_a_call_cancelled_in_a_tool_runs_nothing_more(platform, cancelled, tmp_path, kind):
    made = tooled(platform, kind)
    started, marked = tmp_path / "started", tmp_path / "marked"
    platform.say(tool_answer(("wait", {"where": str(started)}), ("mark", {"where": str(marked)})))
    await cancelled(invoke_request(made, platform.add(made)), started.exists)
    assert not marked.exists() and len(platform.chats) == 1
