"""CrewAI's crews in a real host, in CrewAI's own environment, against the scripted platform."""

import asyncio

import pytest
from chimera_host.contract.behaviour import Behaviour, CrewAIBehaviour, CrewMember, CrewTask
from chimera_host.contract.problem import RemoteProblem
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.platform import problem, tool_answer
from chimera_host.testing.process import HostProcess


@pytest.fixture
async def host(platform, runtime_python):
    async with HostProcess(platform, "crewai", python=runtime_python("crewai")) as running:
        yield running


def member(name, **fields):
    return CrewMember(name=name, role=f"the {name}", goal=f"{name} well", backstory=f"You {name}.", **fields)


def task(name, who, *context, text="{input}"):
    return CrewTask(name=name, description=text, expected_output="An answer", member=who, context=context)


def agent(members=1, tasks=None, **fields):
    names = ("find", "check", "write")[:members]
    tasks = tasks or tuple(task(f"{name}-it", name, *(f"{n}-it" for n in names[:i])) for i, name in enumerate(names))
    behaviour = CrewAIBehaviour(members=tuple(member(name) for name in names), tasks=tasks, **fields)
    return document("crew", "crewai", behaviour=Behaviour(crewai=behaviour), concurrency=100)


def seen(chat):
    return "\n".join(m["content"] or "" for m in chat.body["messages"])


async def test_one_member_answers_with_the_conversation_in_view(platform, host):
    crew = agent()
    platform.say("You are Eve.")
    before = session(("user", "My name is Eve."), ("assistant", "Hello Eve."))
    answer = await host.invoke(invoke_request(crew, platform.add(crew), "Who am I {x}?", session=before))
    assert answer.output == "You are Eve." and answer.model_calls == 1
    assert "My name is Eve." in seen(platform.chats[0]) and "Who am I {x}?" in seen(platform.chats[0])
    assert [m.content for m in answer.session.messages][-2:] == ["Who am I {x}?", "You are Eve."]


async def test_three_members_pass_their_results_on(platform, host):
    crew = agent(3)
    platform.say("found", "checked", "written")
    answer = await host.invoke(invoke_request(crew, platform.add(crew), "the moon"))
    assert answer.output == "written" and answer.model_calls == 3
    first, second, third = platform.chats
    assert "You are the find" in seen(first) and "found" in seen(second) and "checked" not in seen(second)
    assert "found" in seen(third) and "checked" in seen(third)


async def test_a_task_without_the_request_gets_it_all_the_same(platform, host):
    crew = agent(tasks=(task("do", "find", text="Do what is asked."),))
    await host.invoke(invoke_request(crew, platform.add(crew), "paint it"))
    assert "The request:\npaint it" in seen(platform.chats[0])


async def test_each_tasks_output_is_streamed_under_its_name(platform, host):
    crew = agent(3)
    platform.say("found", "checked", "written")
    events = [event async for event in host.client.stream(invoke_request(crew, platform.add(crew)))]
    said = [(data["source"], data["text"]) for name, data in events if name == "delta"]
    assert said == [("find-it", "found"), ("check-it", "checked"), ("write-it", "written")]


async def test_a_manager_leads_a_hierarchical_crew(platform, host):
    crew = agent(2, process="hierarchical", tasks=(task("lead", "find"),))
    ask = tool_answer(
        ("delegate_work_to_coworker", {"task": "look it up", "context": "none", "coworker": "the check"})
    )
    platform.say(ask, "it is blue", "The answer: blue")
    answer = await host.invoke(invoke_request(crew, platform.add(crew), "the colour?"))
    assert answer.output == "The answer: blue"
    manager, coworker, last = platform.chats
    assert {t["function"]["name"] for t in manager.body["tools"]} == {
        "delegate_work_to_coworker",
        "ask_question_to_coworker",
    }
    assert "look it up" in seen(coworker) and "You are the check" in seen(coworker)
    assert "it is blue" in seen(last)


async def test_calls_at_once_dont_mix(platform, host):
    crew = agent(3)
    platform.default = lambda chat: f"said-{chat.call}"
    revision = platform.add(crew)
    calls = [invoke_request(crew, revision, f"word-{n}.") for n in range(20)]
    answers = await asyncio.gather(*(host.invoke(call) for call in calls))
    assert [answer.output for answer in answers] == [f"said-{call.call}" for call in calls]
    words = {call.call: call.messages[0].content for call in calls}
    for chat in platform.chats:
        assert {word for word in words.values() if word in seen(chat)} == {words[chat.call]}


async def test_a_cancelled_call_ends_at_its_model_call(platform, host):
    crew = agent(3)
    platform.model_delay = 30.0
    call = invoke_request(crew, platform.add(crew))
    running = asyncio.create_task(host.invoke(call))
    async with asyncio.timeout(20):
        while not platform.chats:
            await asyncio.sleep(0.02)
        await host.client.cancel(call.call)
        with pytest.raises(RemoteProblem) as caught:
            await running
        assert caught.value.code == "call-cancelled"
        while (await host.client.loaded())["in_flight"]:
            await asyncio.sleep(0.02)
    assert len(platform.chats) == 1


async def test_a_models_failure_is_the_calls(platform, host):
    crew = agent()
    platform.say(problem("budget-exceeded", 402, "no money left"))
    with pytest.raises(RemoteProblem) as caught:
        await host.invoke(invoke_request(crew, platform.add(crew)))
    assert caught.value.code == "budget-exceeded" and len(platform.chats) == 1
