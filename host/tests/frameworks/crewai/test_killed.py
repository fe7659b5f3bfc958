"""CrewAI's crews and flows whose host is killed with SIGKILL: they go on on another host after what is finished."""

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, CrewAIBehaviour, CrewMember, CrewTask
from chimera_host.contract.problem import RemoteProblem
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document
from chimera_host.testing.platform import tool_answer

FRAMEWORK = "crewai"
pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """
import time
from pathlib import Path
from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow, and_, listen, or_, router, start
from crewai.flow.persistence import persist
from pydantic import BaseModel

from chimera_host.broker.context import ToolContext


def act(what: str, log: str, context: ToolContext) -> str:
    line = f"{what} {context.idempotency_key}"
    again = Path(log).exists() and line in Path(log).read_text()
    with Path(log).open("a") as file:
        file.write(line + "\\n")
        if what == "hang" and not again:
            file.write("in flight\\n")
    if what == "hang" and not again:
        time.sleep(60)
    return f"{what} done"


class Found(BaseModel):
    colour: str


def crew(context):
    worker = Agent(role="worker", goal="work", backstory="b", llm=context.model, tools=context.tools)
    find = Task(description="Find {input}", expected_output="e", agent=worker, output_pydantic=Found)
    write = Task(description="Write", expected_output="e", agent=worker, context=[find])
    shout = Task(description="Shout", expected_output="e", agent=worker, context=[find, write])
    return Crew(agents=[worker], tasks=[find, write, shout])


def side_by_side(context):
    workers = [Agent(role=f"worker {n}", goal="work", backstory="b", llm=context.model) for n in (1, 2, 3)]
    both = [Task(description="Do it", expected_output="e", agent=one, async_execution=True) for one in workers[:2]]
    end = Task(description="Join", expected_output="e", agent=workers[2], context=both)
    return Crew(agents=workers, tasks=[*both, end])


class Story(BaseModel):
    id: str = ""
    input: str = ""
    parts: list[str] = []


def flow(context):
    @persist()
    class Telling(Flow[Story]):
        @start()
        def begin(self):
            self.state.parts.append(context.model.call("Begin"))
            return {"n": 1}

        @router(begin)
        def decide(self, given):
            assert given == {"n": 1}
            return context.model.call("Which way?")

        @listen("left")
        async def go_left(self):
            self.state.parts.append(context.model.call("Left"))
            worker = Agent(role="worker", goal="work", backstory="b", llm=context.model)
            task = Task(description="Work", expected_output="e", agent=worker)
            return await Crew(agents=[worker], tasks=[task]).kickoff_async()

        @listen("right")
        def go_right(self):
            return "wrong"

        @listen(or_(go_left, go_right))
        def end(self, worked):
            self.state.parts.append(worked.raw)
            self.state.parts.append(context.model.call("End"))
            return " ".join(self.state.parts)

    return Telling


def branches(context):
    class Both(Flow):
        @start()
        def one(self):
            self.state["one"] = context.model.call("One")

        @start()
        def two(self):
            self.state["two"] = context.model.call("Two")

        @listen(and_(one, two))
        def join(self):
            return context.model.call(f"{self.state['one']} and {self.state['two']}")

    return Both


def cycle(context):
    class Again(Flow):
        @start("again")
        def ask(self):
            self.state["asked"] = self.state.get("asked", 0) + 1
            return context.model.call("The same question")

        @router(ask)
        def enough(self, said):
            return "again" if said != "stop" else "done"

        @listen("done")
        def end(self):
            return f"asked {self.state['asked']} times"

    return Again


def unsaved(context):
    class Odd(Flow):
        @start()
        def ask(self):
            return {context.model.call("A set")}

        @listen(ask)
        def end(self, given):
            return context.model.call(",".join(given))

    return Odd


def remembering(context):
    worker = Agent(role="worker", goal="work", backstory="b", llm=context.model)
    task = Task(description="d", expected_output="e", agent=worker)
    return Crew(agents=[worker], tasks=[task], memory=True)


def keeping(context):
    from crewai.flow.persistence import SQLiteFlowPersistence

    @persist(SQLiteFlowPersistence(str(Path(context.work_dir) / "flow.db")))
    class Kept(Flow):
        @start()
        def begin(self):
            return "begun"

    return Kept


def knowing(context):
    from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource

    worker = Agent(role="worker", goal="work", backstory="b", llm=context.model)
    task = Task(description="d", expected_output="e", agent=worker)
    return Crew(agents=[worker], tasks=[task], knowledge_sources=[StringKnowledgeSource(content="It is blue.")])


def recalling(context):
    class Recalling(Flow):
        @start()
        def begin(self):
            return self.recall("anything")

    return Recalling
"""
TOOLS = (FunctionTool(name="act", function="agent:act"),)


def coded(mortal, factory):
    bundle = mortal.platform.add_bundle({"agent.py": CODE})
    source = SourceCode(bundle=bundle, entrypoint=f"agent:{factory}")
    return document("coded", "crewai", source=source, behaviour=Behaviour(), tools=TOOLS)


def declared(mortal, process="sequential"):
    bundle = mortal.platform.add_bundle({"agent.py": CODE})
    names = ("find", "check", "write")
    members = tuple(
        CrewMember(name=name, role=f"the {name}", goal=name, backstory=f"You {name}.", tools=("act",)) for name in names
    )
    tasks = tuple(
        CrewTask(name=f"{name}-it", description=f"{name} {{input}}", expected_output="e", member=name, context=before)
        for name, before in zip(names, ((), ("find-it",), ("find-it", "check-it")), strict=True)
    )
    behaviour = Behaviour(crewai=CrewAIBehaviour(members=members, tasks=tasks, process=process))
    return document("crew", "crewai", behaviour=behaviour, tools=TOOLS, source=SourceCode(bundle=bundle))


def acting(mortal, what="act"):
    return tool_answer(("act", {"what": what, "log": str(mortal.tool_log)}))


DELEGATED = tool_answer(("delegate_work_to_coworker", {"task": "look", "context": "none", "coworker": "the find"}))
FOUND = '{"colour": "blue"}'


def chats(mortal, kind):
    """The agent, what the model says, and after how many of these answers a step is finished."""
    act = acting(mortal)
    return {
        "sequential": (declared(mortal), [act, "found", "checked", act, "written"], (2, 3)),
        "hierarchical": (
            declared(mortal, "hierarchical"),
            [DELEGATED, "looked", "found", "checked", "written"],
            (3, 4),
        ),
        "crew": (coded(mortal, "crew"), [act, FOUND, "written", "shouted"], (2, 3)),
        "flow": (coded(mortal, "flow"), ["Once", "left", "he went left", "worked", "the end"], (1, 2, 4)),
        "cycle": (coded(mortal, "cycle"), ["more", "more", "stop"], (1, 2)),
    }[kind]


@pytest.mark.parametrize("kind", ["sequential", "hierarchical", "crew", "flow", "cycle"])
async def test_it_goes_on_with_the_step_that_its_host_died_in(mortal, kind):
    """At whichever model call: that one alone is asked again, with its key; finished steps aren't even looked up."""
    agent, answers, finished = chats(mortal, kind)
    whole = await mortal.whole(agent, "the sky", *answers)
    bodies, tools = [chat.body for chat in mortal.platform.chats], mortal.tool_lines()
    assert len(bodies) == len(answers)
    for number in range(len(answers)):
        answer = await mortal.killed(agent, "the sky", *answers, dies_at=number)
        asked = mortal.platform.chats
        assert answer.output == whole.output, number
        assert [chat.body for chat in asked] == [*bodies[: number + 1], *bodies[number:]]
        keys = [chat.key for chat in asked]
        assert keys[number] == keys[number + 1] and len(set(keys)) == len(answers)
        # What was asked before in the step in flight is looked up, and its tools run again with their key.
        began = max((end for end in finished if end <= number), default=0)
        assert len(mortal.platform.runs["run-1"].asked) == len(asked) + number - began
        assert set(mortal.tool_lines()) == set(tools)


async def test_a_tool_in_flight_runs_again_with_its_key_and_those_of_finished_tasks_dont(mortal):
    agent = declared(mortal)
    answers = [acting(mortal), "found", acting(mortal, "hang"), "checked", "written"]
    answer = await mortal.killed(agent, "the sky", *answers)
    first, in_flight, _, again = mortal.tool_lines()
    assert first.startswith("act ") and in_flight.startswith("hang ") and in_flight == again
    assert answer.output == "written" and len(mortal.platform.chats) == len(answers)


async def test_a_finished_task_is_streamed_and_kept_as_it_was(mortal):
    agent, answers, _ = chats(mortal, "crew")
    await mortal.killed(agent, "the sky", *answers, dies_at=3)
    found, written = mortal.platform.runs["run-1"].steps
    assert (found.step, found.kind, found.output["pydantic"]) == ("task-1", "task", {"colour": "blue"})
    assert written.output["raw"] == "written" and written.output["agent"] == "worker"


async def test_of_tasks_side_by_side_the_finished_one_is_kept(mortal):
    """One of two is answered, the other never is: the crew goes on with that one and with what needs both."""
    agent = coded(mortal, "side_by_side")
    await mortal.whole(agent, "x", "a", "b", "joined")
    answer = await mortal.killed(agent, "x", "a", "b", "joined", dies_at=2)
    asked = mortal.platform.chats
    assert answer.output == "joined" and len(asked) == 4 and asked[2].key == asked[3].key
    run = mortal.platform.runs["run-1"]
    assert sorted(run.names) == ["task-1", "task-2"] and len(run.asked) == 4


async def test_of_branches_of_a_flow_the_state_of_all_is_kept(mortal):
    agent = coded(mortal, "branches")

    def said(chat):
        return {"One": "first", "Two": "second"}.get(chat.last, f"joined {chat.last}")

    answer = await mortal.killed(agent, "x", said, said, said, dies_at=2)
    assert answer.output == "joined first and second"
    assert len(mortal.platform.chats) == 4 and len(mortal.platform.runs["run-1"].asked) == 4


async def test_a_method_that_gives_no_json_is_no_step_and_runs_again(mortal):
    agent = coded(mortal, "unsaved")
    answer = await mortal.killed(agent, "x", "one", "two", dies_at=1)
    run = mortal.platform.runs["run-1"]
    assert answer.output == "two" and run.names == ["end/1"]
    assert len(mortal.platform.chats) == 3 and len(run.asked) == 4  # its model's answer is not paid again


async def test_a_crew_that_was_changed_meanwhile_is_refused(mortal):
    agent, answers, _ = chats(mortal, "sequential")
    other = document("crew", "crewai", behaviour=Behaviour(crewai=_reversed(agent)), tools=TOOLS, source=agent.source)
    with pytest.raises(RemoteProblem, match="'find-it', which isn't in its place any more"):
        await mortal.killed(agent, "the sky", *answers, dies_at=2, then=other)


def _reversed(agent):
    before = agent.behaviour.crewai
    tasks = tuple(
        CrewTask(name=task.name, description="{input}", expected_output="e", member=task.member)
        for task in reversed(before.tasks)
    )
    return CrewAIBehaviour(members=before.members, tasks=tasks)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("remembering", "the crew has a memory"),
        ("keeping", "SQLiteFlowPersistence would open a database"),
        ("knowing", "the crew has knowledge sources"),
        ("recalling", "Memory requires an embedder"),
    ],
)
async def test_what_would_open_a_database_is_refused(mortal, factory, said):
    with pytest.raises(RemoteProblem, match=said):
        await mortal.whole(coded(mortal, factory), "x", "answer")
