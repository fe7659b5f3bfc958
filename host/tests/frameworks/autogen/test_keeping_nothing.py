"""A loaded AutoGen agent is as large after many calls as after one: what a call says goes with the call."""

import json

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.platform import tool_answer

FRAMEWORK = "autogen"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import json
from autogen import Agent, ConversableAgent, GroupChat, GroupChatManager

LOADED = {}


def speaker(context, name):
    agent = ConversableAgent(name, llm_config=context.model, human_input_mode="NEVER", max_consecutive_auto_reply=3)

    @agent.register_for_execution()
    @agent.register_for_llm(description="Shouts a text.")
    def shout(text: str) -> str:
        return text.upper()

    return agent


def one(context):
    LOADED["one"] = [speaker(context, "solo")]
    return LOADED["one"][0]


def pair(context):
    LOADED["pair"] = [speaker(context, "ann"), speaker(context, "bob")]
    return tuple(LOADED["pair"])


def group(context):
    members = [speaker(context, name) for name in ("ann", "bob", "cid")]
    chat = GroupChat(agents=members, messages=[], max_round=4, speaker_selection_method="round_robin")
    manager = GroupChatManager(chat, llm_config=context.model, human_input_mode="NEVER")
    LOADED["group"] = [manager, chat, *members]
    return manager


def sizes(kind):
    # Of what holds anything: how much, and how much is in there in turn.
    return [
        {
            name: [len(value), sum(len(one) for one in value.values() if hasattr(one, "__len__"))]
            if isinstance(value, dict)
            else len(value)
            for name, value in vars(made).items()
            if hasattr(value, "__len__")
        }
        for made in LOADED[kind]
    ]


def census(context):
    agent = ConversableAgent("census", llm_config=False, human_input_mode="NEVER")

    def count(recipient, messages, sender, config):
        return True, json.dumps(sizes(messages[-1]["content"]))

    agent.register_reply([Agent, None], count)
    return agent
"""


@pytest.mark.parametrize("kind", ["one", "pair", "group"])
async def test_nothing_of_a_call_stays_with_its_agents(platform, host, kind):
    bundle = platform.add_bundle({"agent.py": CODE})

    def coded(factory):
        source = SourceCode(bundle=bundle, entrypoint=f"agent:{factory}")
        made = document(f"keeping-{factory}", "autogen", source=source, behaviour=Behaviour())
        return made, platform.add(made)

    async def count():
        return json.loads((await host.invoke(invoke_request(*coded("census"), kind))).output)

    async def call():
        platform.say(tool_answer(("shout", {"text": "x"})), "It is X.")
        platform.default = "on"
        before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
        assert "It is X." in str((await host.invoke(invoke_request(*coded(kind), "Go", session=before))).messages)

    await call()
    first = await count()
    for _ in range(3):
        await call()
    assert await count() == first
    assert any("_oai_messages" in sizes for sizes in first)
