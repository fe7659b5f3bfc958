"""From a definition to a crew. A crew keeps its run in itself, so each call gets one made anew from the plan.

The plan holds what crews of an agent share: its tools and its definition. Making a crew of three takes about a
millisecond a member, a fortieth of what running it takes, and leaves nothing of another call behind.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from crewai import Agent, Crew, Process, Task
from crewai.tasks.task_output import TaskOutput
from msgspec import Struct

from chimera_host.contract.behaviour import CrewAIBehaviour, CrewMember
from chimera_host.contract.call import Message
from chimera_host.errors import AgentLoadError
from chimera_host.frameworks.crewai.executor import LeanExecutor
from chimera_host.frameworks.crewai.model import shared_model
from chimera_host.frameworks.crewai.tools import PlatformTool
from chimera_host.ports import AgentBuild, current_call
from chimera_host.substitute import fill


class CrewPlan(Struct, frozen=True, kw_only=True):
    """What a crew is made from, checked. `tools` are each member's."""

    behaviour: CrewAIBehaviour
    tools: Mapping[str, Sequence[PlatformTool]]

    @classmethod
    def of(cls, behaviour: CrewAIBehaviour, build: AgentBuild) -> "CrewPlan":
        """The plan of a definition; raises `AgentLoadError` for a name that isn't there."""
        agent = build.document.name
        members = {member.name for member in behaviour.members}
        earlier: set[str] = set()
        for task in behaviour.tasks:
            _known([task.member], members, f"task {task.name!r}: member", agent)
            _known(task.context, earlier, f"task {task.name!r}: context", agent)
            earlier.add(task.name)
        made: dict[str, PlatformTool] = {}
        tools = {}
        for member in behaviour.members:
            _known(member.tools, set(build.tools), f"member {member.name!r}: tool", agent)
            specs = [spec for name in member.tools for spec in build.tools[name]]
            tools[member.name] = [made.setdefault(spec.name, PlatformTool.of(spec)) for spec in specs]
        return cls(behaviour=behaviour, tools=tools)

    def crew(self, prompt: str, history: Sequence[Message]) -> Crew:
        """A crew for one call: `prompt` stands for `{input}`, the first task sees the conversation before it."""
        values = {"input": prompt}
        members = {member.name: self._member(member, values) for member in self.behaviour.members}
        tasks: dict[str, Task] = {}
        for task in self.behaviour.tasks:
            description = fill(task.description, values)
            if not tasks:
                description = opening(description, history, prompt)
            tasks[task.name] = Task(
                name=task.name,
                description=description,
                expected_output=fill(task.expected_output, values),
                agent=members[task.member],
                context=[tasks[name] for name in task.context],
                callback=emit_output,
            )
        hierarchical = self.behaviour.process == "hierarchical"
        return Crew(
            agents=list(members.values()),
            tasks=list(tasks.values()),
            process=Process.hierarchical if hierarchical else Process.sequential,
            manager_agent=_manager() if hierarchical else None,
            cache=False,
            memory=False,
            verbose=False,
            share_crew=False,
        )

    def _member(self, member: CrewMember, values: Mapping[str, str]) -> Agent:
        return _agent(
            role=fill(member.role, values),
            goal=fill(member.goal, values),
            backstory=fill(member.backstory, values),
            tools=list(self.tools[member.name]),
            allow_delegation=False,
        )


def opening(description: str, history: Sequence[Message], prompt: str) -> str:
    """The first task's text: the conversation so far, the task, and the request where the task doesn't hold it."""
    parts = []
    if history:
        said = "\n".join(f"{message.name or message.role}: {message.content}" for message in history)
        parts.append(f"The conversation so far:\n{said}")
    parts.append(description)
    if prompt not in description:
        parts.append(f"The request:\n{prompt}")
    return "\n\n".join(parts)


def emit_output(output: TaskOutput) -> None:
    """A task's callback: stream what it gave, under its name."""
    current_call.get().emit(output.raw, output.name)


def _agent(**fields: Any) -> Agent:
    return Agent(
        llm=shared_model(),
        executor_class=LeanExecutor,
        max_retry_limit=0,  # the model gateway tries again; a task that failed would ask everything twice
        cache=False,
        verbose=False,
        **fields,
    )


def _manager() -> Agent:
    """Who leads a hierarchical crew. CrewAI lets it delegate a task to that task's own member."""
    return _agent(
        role="Crew Manager",
        goal="Have the crew complete the task in the best possible way",
        backstory="You lead the crew: you give its members work and questions, check what they return, and answer.",
        allow_delegation=True,
    )


def _known(names: Sequence[str], known: set[str], what: str, agent: str) -> None:
    for name in names:
        if name not in known:
            raise AgentLoadError(
                f"{what} {name!r} is not known (known: {', '.join(sorted(known)) or 'none'})",
                next_step="name it in the definition, before it is used",
                agent=agent,
            )
