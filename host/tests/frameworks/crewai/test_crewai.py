"""CrewAI's crews in a real host, in CrewAI's own environment, against the scripted platform."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, CrewAIBehaviour, CrewMember, CrewTask
from chimera_host.contract.problem import RemoteProblem
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.platform import problem, tool_answer
from chimera_host.testing.process import HostProcess, environment, host_config
from chimera_host.testing.zygotes import ZygoteProcess


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
    work = {"task": "look it up", "context": "none", "coworker": "the find"}
    ask = tool_answer(("delegate_work_to_coworker", work))
    platform.say(ask, "it is blue", "The answer: blue")
    answer = await host.invoke(invoke_request(crew, platform.add(crew), "the colour?"))
    assert answer.output == "The answer: blue"
    manager, coworker, last = platform.chats
    assert {t["function"]["name"] for t in manager.body["tools"]} == {
        "delegate_work_to_coworker",
        "ask_question_to_coworker",
    }
    assert "look it up" in seen(coworker) and "You are the find" in seen(coworker)
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


async def test_a_cancelled_call_ends_at_its_model_call(platform, cancelled):
    crew = agent(3)
    platform.model_delay = 30.0
    await cancelled(invoke_request(crew, platform.add(crew)), lambda: platform.chats)
    assert len(platform.chats) == 1


async def test_a_models_failure_is_the_calls(platform, host):
    crew = agent()
    platform.say(problem("budget-exceeded", 402, "no money left"))
    with pytest.raises(RemoteProblem) as caught:
        await host.invoke(invoke_request(crew, platform.add(crew)))
    assert caught.value.code == "budget-exceeded" and len(platform.chats) == 1


CREW = """
from crewai import Agent, Crew, Task
from crewai.tools import BaseTool

class Doubler(BaseTool):
    name: str = "double"
    description: str = "Doubles a number"

    def _run(self, number: int) -> str:
        return f"doubled: {number * 2}"

def factory(context):
    assert context.document.name and context.model is not None
    worker = Agent(role="worker", goal="work", backstory="b", llm=context.model, tools=[Doubler()])
    task = Task(description="Work on {input}", expected_output="e", agent=worker)
    return Crew(agents=[worker], tasks=[task])
"""

FLOW = """
from crewai.flow.flow import Flow, listen, start

def factory(context):
    class Shout(Flow):
        @start()
        def ask(self):
            return context.model.call(self.state["input"])

        @listen(ask)
        def shout(self, said):
            return said.upper()
    return Shout
"""


def coded(platform, text):
    source = SourceCode(bundle=platform.add_bundle({"agent.py": text}), entrypoint="agent:factory")
    made = document("coded", "crewai", source=source, behaviour=Behaviour(), concurrency=100)
    return made, platform.add(made)


async def test_an_entrypoints_crew_runs_with_tools_of_its_own(platform, host):
    made, revision = coded(platform, CREW)
    platform.say(tool_answer(("double", {"number": 21})), "It is 42.")
    answer = await host.invoke(invoke_request(made, revision, "21"))
    assert answer.output == "It is 42."
    assert "Work on 21" in seen(platform.chats[0])
    assert "doubled: 42" in platform.chats[1].last


async def test_an_entrypoints_crew_doesnt_mix_calls(platform, host):
    made, revision = coded(platform, CREW)
    platform.default = lambda chat: f"said-{chat.call}"
    calls = [invoke_request(made, revision, f"word-{n}.") for n in range(10)]
    answers = await asyncio.gather(*(host.invoke(call) for call in calls))
    assert [answer.output for answer in answers] == [f"said-{call.call}" for call in calls]
    for chat in platform.chats:
        assert sum(f"word-{n}." in seen(chat) for n in range(10)) == 1


async def test_an_entrypoint_may_give_a_class_of_flows(platform, host):
    made, revision = coded(platform, FLOW)
    platform.say("quietly")
    assert (await host.invoke(invoke_request(made, revision))).output == "QUIETLY"


async def test_an_entrypoint_that_gives_something_else_is_told(platform, host):
    made, revision = coded(platform, "def factory(context):\n    return 7\n")
    with pytest.raises(RemoteProblem) as caught:
        await host.invoke(invoke_request(made, revision))
    assert caught.value.code == "agent-load-failed" and "int" in str(caught.value)


async def test_hosts_forked_from_a_warm_zygote_answer(platform, runtime_python, tmp_path):
    crew = agent(3)
    revision = platform.add(crew)
    async with ZygoteProcess("crewai", python=runtime_python("crewai")) as zygote:
        for name in ("one", "two"):
            box = str(tmp_path / name)
            forked = await zygote.fork(host_config(platform.url, "crewai", tmp_path, host=name, black_box=box))
            platform.say("a", "b", f"written by {name}")
            answer = await forked.client.invoke(invoke_request(crew, revision, "hi"))
            assert (answer.output, answer.host) == (f"written by {name}", name)


TOOLS = """
import threading
from chimera_host.contract.behaviour import CrewAIBehaviour, CrewMember, CrewTask
from chimera_host.frameworks.crewai import Adapter
from chimera_host.frameworks.crewai.build import CrewPlan
from chimera_host.ports import AgentBuild, ToolSpec, current_call
from chimera_host.testing.builders import document
from chimera_host.testing.platform import text_answer, tool_answer

class Call:
    def __init__(self):
        self.bodies, self.used = [], []
        self.script = [tool_answer(("look_up", {"key": "k", "deep": {"a": [1]}})), text_answer("found 7")]
    def chat_blocking(self, body):
        self.bodies.append(body)
        return self.script.pop(0)
    def tool_blocking(self, name, arguments):
        self.used.append((name, arguments))
        return "it is 7"
    def emit(self, text, source=None):
        pass

parameters = {
    "type": "object",
    "properties": {"key": {"type": "string", "pattern": "^k"}, "deep": {"type": "object"}},
    "required": ["key"],
}
Adapter().preload()
assert threading.active_count() == 1, threading.enumerate()
behaviour = CrewAIBehaviour(
    members=(CrewMember(name="m", role="r", goal="g", backstory="b", tools=("lookup",)),),
    tasks=(CrewTask(name="t", description="{input}", expected_output="e", member="m"),),
)
spec = ToolSpec(name="look_up", description="Looks things up.", parameters=parameters)
plan = CrewPlan.of(behaviour, AgentBuild(document=document(), tools={"lookup": [spec]}))
call = Call()
current_call.set(call)
assert plan.crew("what?", ()).kickoff().raw == "found 7"
assert call.used == [("look_up", {"key": "k", "deep": {"a": [1]}})], call.used
offered = call.bodies[0]["tools"][0]["function"]
assert offered["name"] == "look_up" and "Looks things up." in offered["description"], offered
shown = offered["parameters"]["properties"]
assert shown["key"]["type"] == "string" and shown["deep"]["type"] == "object", shown
assert call.bodies[1]["messages"][-1]["content"] == "it is 7", call.bodies[1]
"""


async def test_tools_go_to_the_broker_with_their_schema(runtime_python):
    process = await asyncio.create_subprocess_exec(
        runtime_python("crewai"), "-c", TOOLS, env=environment(), stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
