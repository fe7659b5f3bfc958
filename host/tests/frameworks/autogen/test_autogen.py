"""AutoGen's kinds in a real host, in AutoGen's own environment, against the scripted platform."""

import asyncio

import pytest

from chimera_host.contract.behaviour import AutoGenBehaviour, AutoGenParticipant, Behaviour
from chimera_host.testing.builders import document, invoke_request, session

FRAMEWORK = "autogen"
pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBERS = tuple(AutoGenParticipant(name=name, role=f"the {name}") for name in ("ann", "bob", "cid"))


def agent(kind="conversational", **fields):
    behaviour = AutoGenBehaviour(kind=kind, system_message="Be brief.", **fields)
    return document("talker", "autogen", behaviour=Behaviour(autogen=behaviour), concurrency=100)


@pytest.mark.parametrize("kind", ["conversational", "task_execution"])
async def test_it_answers_with_its_session_in_view(platform, host, kind):
    talker = agent(kind)
    before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
    answer = await host.invoke(invoke_request(talker, platform.add(talker), "Who am I?", session=before))
    assert answer.output == "echo: Who am I?"
    said = [(m["role"], m["content"]) for m in platform.chats[0].body["messages"]]
    assert said == [
        ("system", "Be brief."),
        ("user", "My name is Eve."),
        ("assistant", "Hello Eve."),
        ("user", "Who am I?"),
    ]


async def test_a_group_of_three_speaks_in_turn(platform, host):
    group = agent("coordination", participants=MEMBERS, max_rounds=3)
    platform.say("one", "two", "three TERMINATE")
    answer = await host.invoke(invoke_request(group, platform.add(group), "Go"))
    assert answer.output == "three" and answer.model_calls == 3
    assert [(m.name, m.content) for m in answer.messages] == [("ann", "one"), ("bob", "two"), ("cid", "three")]


async def test_the_model_chooses_who_speaks(platform, host):
    group = agent("coordination", participants=MEMBERS, pattern="auto", max_rounds=1)
    platform.say("cid", "here I am")
    answer = await host.invoke(invoke_request(group, platform.add(group), "Go"))
    assert [(m.name, m.content) for m in answer.messages] == [("cid", "here I am")]


@pytest.mark.parametrize("fields", [{}, {"kind": "coordination", "participants": MEMBERS, "max_rounds": 3}])
async def test_calls_at_once_dont_mix(platform, host, fields):
    talker = agent(**fields)
    platform.default = lambda chat: chat.call
    revision = platform.add(talker)
    calls = [invoke_request(talker, revision, f"word-{n}") for n in range(50)]
    answers = await asyncio.gather(*(host.invoke(call) for call in calls))
    assert [answer.output for answer in answers] == [call.call for call in calls]
    words = {call.call: call.messages[0].content for call in calls}
    for chat in platform.chats:
        seen = {m["content"] for m in chat.body["messages"] if m["content"].startswith("word-")}
        assert seen == {words[chat.call]}
