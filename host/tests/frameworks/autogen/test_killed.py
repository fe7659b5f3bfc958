"""AutoGen's chats whose host is killed with SIGKILL: they go on on another host from the last finished message."""

import msgspec
import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import AutoGenBehaviour, AutoGenParticipant, Behaviour
from chimera_host.contract.call import Message
from chimera_host.contract.problem import RemoteProblem
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, session
from chimera_host.testing.platform import tool_answer

FRAMEWORK = "autogen"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import time
from pathlib import Path
from autogen import ConversableAgent, GroupChat, GroupChatManager, UserProxyAgent

from chimera_host.broker.context import ToolContext


def act(what: str, log: str, context: ToolContext) -> str:
    again = Path(log).exists() and context.idempotency_key in Path(log).read_text()
    with Path(log).open("a") as file:
        file.write(f"{what} {context.idempotency_key}\\n")
        if what == "hang" and not again:
            file.write("in flight\\n")
    if what == "hang" and not again:
        time.sleep(60)
    return f"{what} done"


def speaker(context, name, **fields):
    agent = ConversableAgent(
        name, system_message=f"You are {name}.", llm_config=context.model, human_input_mode="NEVER", **fields
    )
    for tool in context.tools:
        tool.register_tool(agent)
    return agent


def one(context):
    return speaker(context, "solo", max_consecutive_auto_reply=3)


def group(context, pattern="round_robin"):
    members = [speaker(context, name) for name in ("ann", "bob")]
    chat = GroupChat(agents=members, messages=[], max_round=6, speaker_selection_method=pattern)
    return GroupChatManager(chat, llm_config=context.model, human_input_mode="NEVER")


def chosen(context):
    return group(context, "auto")


def told(context):
    manager = group(context)
    return manager.groupchat.agents[0], manager


def pair(context):
    person = UserProxyAgent(
        "person",
        code_execution_config=False,
        is_termination_msg=lambda message: "done" in (message.get("content") or ""),
        human_input_mode="NEVER",
        default_auto_reply="go on",
        max_consecutive_auto_reply=3,
    )
    return person, speaker(context, "worker")


def count(sender, message, recipient, silent):
    'What an agent says, and how often it has replied.'
    variables = sender.context_variables
    return f"{message} ({variables.get('replies')})"


def counting(context):
    person, worker = pair(context)
    worker.register_hook("process_message_before_send", count)
    worker.register_hook("update_agent_state", lambda agent, messages: agent.context_variables.set(
        "replies", (agent.context_variables.get("replies") or 0) + 1
    ))
    return person, worker
"""
TOOLS = (FunctionTool(name="act", function="agent:act"),)
ANN = AutoGenParticipant(name="ann", role="acts", tools=("act",))
MEMBERS = (ANN, *(AutoGenParticipant(name=name, role=f"the {name}") for name in ("bob", "cid")))


def made(mortal, kind):
    bundle = mortal.platform.add_bundle({"agent.py": CODE})
    declared = {
        "conversational": {"tools": ("act",)},
        "task_execution": {"tools": ("act",)},
        "round_robin": {"participants": MEMBERS, "max_rounds": 4},
        "auto": {"participants": MEMBERS, "max_rounds": 2, "pattern": "auto"},
    }
    if kind not in declared:
        source = SourceCode(bundle=bundle, entrypoint=f"agent:{kind}")
        return document("talker", "autogen", source=source, behaviour=Behaviour(), tools=TOOLS)
    named = kind if kind in ("conversational", "task_execution") else "coordination"
    behaviour = AutoGenBehaviour(kind=named, system_message="Be brief.", **declared[kind])
    source = SourceCode(bundle=bundle)
    return document("talker", "autogen", source=source, behaviour=Behaviour(autogen=behaviour), tools=TOOLS)


def acting(mortal, what="act"):
    return tool_answer(("act", {"what": what, "log": str(mortal.tool_log)}))


def chats(mortal, kind):
    """What the model says in a chat of that kind, with one message that asks for a tool."""
    act = acting(mortal)
    return {
        "conversational": [act, act, "It is done."],
        "task_execution": [act, act, "It is done."],
        "round_robin": [act, "ann says", "bob says", "cid says", "ann again"],
        "auto": ["ann", act, "ann says", "bob", "bob says"],
        "one": [act, "It is done."],
        "group": [act, "ann says", "bob says", "ann again"],
        "chosen": ["ann", act, "ann", "ann", "ann says", "bob", "bob says", "ann", "ann again"],
        "told": [act, "bob says", "ann says", "bob again"],
        "pair": ["first", "second", "third done"],
    }[kind]


KINDS = ("conversational", "task_execution", "round_robin", "auto", "one", "group", "chosen", "told", "pair")


def said(answer):
    return [(message.role, message.name, message.content) for message in answer.messages]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_chat_goes_on_with_the_message_that_its_host_died_in(mortal, kind):
    """At whichever model call: only that one is asked again, with its key; the rest is as if nobody had died."""
    agent, answers = made(mortal, kind), chats(mortal, kind)
    fields = {"session": session(("user", "Before."), ("assistant", "Then."))}
    whole = await mortal.whole(agent, "Go", *answers, **fields)
    bodies, tools = [chat.body for chat in mortal.platform.chats], mortal.tool_lines()
    assert len(bodies) == len(answers) and whole.session.messages[0].content == "Before."
    for number in range(len(answers)):
        answer = await mortal.killed(agent, "Go", *answers, dies_at=number, **fields)
        asked = mortal.platform.chats
        assert (said(answer), answer.session) == (said(whole), whole.session), number
        assert [chat.body for chat in asked] == [*bodies[: number + 1], *bodies[number:]]
        keys = [chat.key for chat in asked]
        assert keys[number] == keys[number + 1] and len(set(keys)) == len(answers)
        assert mortal.tool_lines() == tools
        # Nothing that is finished had to be looked up: but the choice of a speaker is part of what he says.
        looked_up = len(mortal.platform.runs["run-1"].asked) - len(asked)
        assert looked_up <= (kind in ("auto", "chosen"))


@pytest.mark.parametrize("kind", ["conversational", "task_execution", "round_robin", "group"])
async def test_a_tool_in_flight_runs_again_with_its_key_and_others_dont(mortal, kind):
    agent = made(mortal, kind)
    answers = [acting(mortal), acting(mortal, "hang"), *(f"message {n}" for n in range(4))]
    answer = await mortal.killed(agent, "Go", *answers)
    first, in_flight, _, again = mortal.tool_lines()
    assert first.startswith("act ") and in_flight.startswith("hang ") and in_flight == again
    assert answer.output.startswith("message")
    assert len({chat.key for chat in mortal.platform.chats}) == len(mortal.platform.chats)  # nothing was asked again


async def test_finished_words_become_the_sessions_if_it_never_ends(mortal):
    """The steps as the platform keeps them: words are messages of the conversation, tools' traffic isn't."""
    agent = made(mortal, "round_robin")
    await mortal.killed(agent, "Go", *chats(mortal, "round_robin"), dies_at=4)
    steps = mortal.platform.runs["run-1"].steps
    assert [(step.step, step.kind) for step in steps] == [
        ("message-1", "tools"),
        ("message-2", "tools"),
        ("message-3", "message"),
        ("message-4", "message"),
        ("message-5", "message"),
    ]
    words = [msgspec.convert(step.output, Message) for step in steps if step.kind == "message"]
    assert words == [Message(role="assistant", name=name, content=f"{name} says") for name in ("ann", "bob", "cid")]


async def test_a_stream_that_is_asked_for_again_tells_the_whole(mortal):
    """Whoever lost the first stream in its middle gets one that begins with what was said before."""
    agent = made(mortal, "round_robin")
    seen = await mortal.killed(agent, "Go", *chats(mortal, "round_robin"), dies_at=3, streams=True)
    assert [(data["source"], data["text"]) for name, data in seen if name == "delta"] == [
        ("ann", "ann says"),
        ("bob", "bob says"),
        ("cid", "cid says"),
        ("ann", "ann again"),
    ]
    assert seen[-1][0] == "done" and len(mortal.platform.chats) == 6


async def test_the_agents_variables_are_those_of_the_last_message(mortal):
    """AutoGen's own state beside the messages; each call begins with its own."""
    agent = made(mortal, "counting")
    answers = ["first", "second", "third", "fourth done"]
    whole = await mortal.whole(agent, "Go", *answers)
    assert whole.messages[-1].content == "fourth done (4)"
    answer = await mortal.killed(agent, "Go", *answers, dies_at=2)
    assert said(answer) == said(whole)


async def test_work_that_another_agent_began_is_refused(mortal):
    agent, other = made(mortal, "group"), made(mortal, "pair")
    with pytest.raises(RemoteProblem, match="message 1 of the unfinished work is from ann, not from worker"):
        await mortal.killed(agent, "Go", "one", "two", dies_at=1, then=other)


async def test_a_bound_on_replies_counts_those_of_the_first_host(mortal):
    agent, act = made(mortal, "one"), acting(mortal)
    with pytest.raises(Exception, match="ended the conversation"):
        await mortal.killed(agent, "Go", act, act, act, dies_at=1)
    assert len(mortal.platform.chats) == 3 and len(mortal.tool_lines()) == 1
