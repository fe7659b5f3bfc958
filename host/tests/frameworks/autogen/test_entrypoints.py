"""What an entrypoint may return for AutoGen, with the tools and the model that it is given."""

import asyncio

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import tool_answer

FRAMEWORK = "autogen"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import sys
from autogen import ConversableAgent, GroupChat, GroupChatManager, UserProxyAgent


def speaker(context, name, **fields):
    return ConversableAgent(
        name, system_message=f"You are {name}.", llm_config=context.model, human_input_mode="NEVER", **fields
    )


def one(context):
    return speaker(context, "solo")


def handy(context):
    agent = speaker(context, "handy")
    for tool in context.tools:
        tool.register_tool(agent)

    @agent.register_for_execution()
    @agent.register_for_llm(description="Shouts a text.")
    def shout(text: str) -> str:
        return text.upper()

    return agent


def short(context, bound=1):
    agent = speaker(context, "short", max_consecutive_auto_reply=bound)
    agent.register_for_execution()(agent.register_for_llm(description="Says it.")(say))
    return agent


def longer(context):
    return short(context, 2)


async def say(text: str) -> str:
    return f"said {text}"


def saying(context):
    return short(context, 3)


def group(context, pattern="round_robin"):
    members = [speaker(context, name) for name in ("ann", "bob")]
    chat = GroupChat(agents=members, messages=[], max_round=3, speaker_selection_method=pattern)
    return GroupChatManager(chat, llm_config=context.model, human_input_mode="NEVER")


def chosen(context):
    return group(context, "auto")


def bare(context):
    members = [speaker(context, name) for name in ("ann", "bob", "cid")]
    return GroupChatManager(GroupChat(agents=members, messages=[], max_round=2), human_input_mode="NEVER")


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
    )
    return person, speaker(context, "worker")


def asking(context):
    return UserProxyAgent("person", code_execution_config=False), speaker(context, "worker")


SHARED = []


def shared(context):
    if not SHARED:
        SHARED.append(speaker(context, "shared"))
    return SHARED[0]


def wrong(context):
    return 7
"""
TOOL = "def add(a: int, b: int) -> int:\n    'Add two numbers.'\n    return a + b\n"
ADD = FunctionTool(name="add", function="sums:add")


def coded(platform, factory, **fields):
    bundle = platform.add_bundle({"agent.py": CODE, "sums.py": TOOL})
    source = SourceCode(bundle=bundle, entrypoint=f"agent:{factory}")
    name = fields.pop("name", factory)
    made = document(name, "autogen", source=source, behaviour=Behaviour(), concurrency=100, **fields)
    return made, platform.add(made)


def spoken(answer):
    return [(message.name, message.content) for message in answer.messages]


async def test_a_conversable_agent_answers_with_its_session_in_view(platform, host):
    made = coded(platform, "one")
    before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
    answer = await host.invoke(invoke_request(*made, "Who am I?", session=before))
    assert answer.output == "echo: Who am I?"
    said = [message["content"] for message in platform.chats[0].body["messages"]]
    assert said == ["You are solo.", "My name is Eve.", "Hello Eve.", "Who am I?"]


async def test_it_runs_the_agents_tools_and_its_own(platform, host):
    made = coded(platform, "handy", tools=(ADD,))
    platform.say(tool_answer(("add", {"a": 2, "b": 3}), ("shout", {"text": "five"})), "It is FIVE.")
    answer = await host.invoke(invoke_request(*made, "2 and 3?"))
    assert (answer.output, answer.tool_calls, answer.model_calls) == ("It is FIVE.", 1, 2)
    offered = {tool["function"]["name"]: tool["function"] for tool in platform.chats[0].body["tools"]}
    assert set(offered) == {"add", "shout"} and offered["add"]["parameters"]["required"] == ["a", "b"]
    assert [m["content"] for m in platform.chats[1].body["messages"] if m["role"] == "tool"] == ["5", "FIVE"]


async def test_its_own_tools_may_be_coroutines(platform, host):
    platform.say(tool_answer(("say", {"text": "five"})), "It is said.")
    answer = await host.invoke(invoke_request(*coded(platform, "saying"), "Say it"))
    assert answer.output == "It is said." and platform.chats[1].last == "said five"


@pytest.mark.parametrize("factory", ["short", "longer"])
async def test_an_agent_that_ends_by_its_own_bound_has_no_answer(platform, host, factory):
    platform.say(tool_answer(("say", {"text": "five"})), "never asked")
    failed = await refused(host.invoke(invoke_request(*coded(platform, factory), "Say it")))
    assert failed.code == "agent-failed" and "max_consecutive_auto_reply" in failed.next_step
    assert len(platform.chats) == 1


async def test_a_group_chat_manager_leads_its_group(platform, host):
    platform.say("from ann", "from bob")
    answer = await host.invoke(invoke_request(*coded(platform, "group"), "Go"))
    assert spoken(answer) == [("ann", "from ann"), ("bob", "from bob")] and answer.output == "from bob"


@pytest.mark.parametrize("factory", ["chosen", "bare"])
async def test_the_model_chooses_the_speaker_with_or_without_a_model_of_the_manager(platform, host, factory):
    platform.say("bob", "from bob", "ann", "from ann")
    answer = await host.invoke(invoke_request(*coded(platform, factory), "Go"))
    assert spoken(answer)[0] == ("bob", "from bob")


async def test_a_member_may_bring_the_question_to_its_group(platform, host):
    made = coded(platform, "told")
    platform.say("from bob", "from ann")
    assert spoken(await host.invoke(invoke_request(*made, "Go"))) == [("bob", "from bob"), ("ann", "from ann")]


async def test_a_pair_talks_until_one_of_them_is_done(platform, host):
    made = coded(platform, "pair")
    platform.say("half", "done: 7")
    answer = await host.invoke(invoke_request(*made, "Count"))
    assert answer.output == "done: 7" and answer.model_calls == 2
    assert [m["content"] for m in platform.chats[1].body["messages"]][1:] == ["Count", "half", "go on"]


async def test_an_agent_that_would_ask_a_person_finds_nobody_and_ends(platform, host):
    answer = await host.invoke(invoke_request(*coded(platform, "asking"), "Work"))
    assert answer.output == "echo: Work" and answer.model_calls == 1


async def test_two_agents_of_one_bundle_may_share_an_object(platform, host):
    for name in ("first", "second"):
        made = coded(platform, "shared", name=name)
        assert (await host.invoke(invoke_request(*made, name))).output == f"echo: {name}"


@pytest.mark.parametrize("factory", ["one", "group", "pair"])
async def test_calls_at_once_dont_mix(platform, host, factory):
    made = coded(platform, factory, name=f"many-{factory}")
    platform.default = lambda chat: f"done {chat.call}"
    calls = [invoke_request(*made, f"word-{n}.") for n in range(20)]
    answers = await asyncio.gather(*(host.invoke(call) for call in calls))
    assert [answer.output for answer in answers] == [f"done {call.call}" for call in calls]
    words = {call.call: call.messages[0].content for call in calls}
    for chat in platform.chats:
        seen = {m["content"] for m in chat.body["messages"] if m["content"].startswith("word-")}
        assert seen == {words[chat.call]}


async def test_something_else_is_refused_with_what_is_wanted(platform, host):
    failed = await refused(host.invoke(invoke_request(*coded(platform, "wrong"))))
    assert failed.code == "agent-load-failed" and "int" in failed.detail and "ConversableAgent" in failed.next_step
