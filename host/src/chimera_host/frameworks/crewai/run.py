"""Running a call on a crew, in a thread: CrewAI blocks.

A crew whose tool failed because the call was cancelled tells that to the model as text; the model call then raises,
so the crew ends there.
"""

from contextvars import copy_context
from typing import Any, cast

from crewai import Crew
from crewai.flow.flow import Flow

from chimera_host.contract.behaviour import CrewAIBehaviour, CrewMember, CrewTask
from chimera_host.errors import AgentLoadError
from chimera_host.frameworks.crewai.build import CrewPlan
from chimera_host.frameworks.crewai.quiet import KEEP_ELSEWHERE
from chimera_host.frameworks.crewai.steps import MethodSteps, stepping
from chimera_host.ports import CallContext, ChatAnswer, ChatBody, RunResult, current_call


class CrewAgent:
    """A declared crew."""

    __slots__ = ("_plan",)

    def __init__(self, plan: CrewPlan) -> None:
        """Answer with crews made from `plan`."""
        self._plan = plan

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        return await call.in_thread(self._kickoff, call)

    def _kickoff(self, call: CallContext) -> RunResult:
        history = (*call.session.messages, *call.request.messages[:-1])
        crew = self._plan.crew(call.prompt, history)
        with stepping(call, crew):
            return RunResult(output=str(crew.kickoff().raw))

    def close(self) -> None:
        """Nothing to let go of."""


class CodeAgent:
    """A crew, or a class of flows, that the agent's own code made. It is given the request as the input `input`."""

    __slots__ = ("_made", "_name")

    def __init__(self, made: Crew | type[Flow[Any]], name: str) -> None:
        """Answer with copies of the crew `made`, or with flows of that class."""
        self._made = made
        self._name = name

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        return await call.in_thread(self._kickoff, call)

    def _kickoff(self, call: CallContext) -> RunResult:
        inputs: dict[str, Any] = {"input": call.prompt}
        if isinstance(self._made, Crew):
            crew = self._made.copy()
            with stepping(call, crew):
                said: Any = crew.kickoff(inputs=inputs)
        else:
            flow = self._made()
            MethodSteps.of(call).follow(flow)
            said = flow.kickoff(inputs=inputs)
        text = str(getattr(said, "raw", said))
        call.emit(text, self._name)
        return RunResult(output=text)

    def close(self) -> None:
        """Nothing to let go of."""


def runnable(made: object, name: str) -> Crew | type[Flow[Any]]:
    """What a factory returned, where it is something that can run many calls."""
    if isinstance(made, Crew):
        if made.memory or any(getattr(one, "memory", None) for one in made.agents):
            raise AgentLoadError(
                "the crew has a memory, for which CrewAI would open a database in the host",
                next_step=f"leave `memory` out, and {KEEP_ELSEWHERE}",
                agent=name,
            )
        if made.knowledge_sources or any(getattr(one, "knowledge_sources", None) for one in made.agents):
            raise AgentLoadError(
                "the crew has knowledge sources, for which CrewAI would open a database in the host",
                next_step="give the crew a tool that looks things up",
                agent=name,
            )
        return made
    if isinstance(made, type) and issubclass(made, Flow):
        return made
    raise AgentLoadError(
        f"the entrypoint returned {type(made).__name__}, which is not a crew",
        next_step="return a crewai Crew, or a subclass of Flow (the class: each call makes its own flow)",
        agent=name,
    )


class _Rehearsal:
    """A call without a caller, whose model answers in place."""

    def chat_blocking(self, _: ChatBody) -> ChatAnswer:
        return {"choices": [{"message": {"role": "assistant", "content": "ready"}}]}

    def emit(self, text: str, source: str | None = None) -> None:
        """Nobody listens."""


def rehearse() -> None:
    """Run one crew of one member once, without a connection; its threads have ended when it returns."""
    member = CrewMember(name="one", role="member", goal="Answer", backstory="You answer.")
    task = CrewTask(name="answer", description="{input}", expected_output="An answer", member="one")
    plan = CrewPlan(behaviour=CrewAIBehaviour(members=(member,), tasks=(task,)), tools={"one": ()})

    def once() -> None:
        current_call.set(cast(CallContext, _Rehearsal()))  # it has what a crew without tools needs
        plan.crew("Are you ready?", ()).kickoff()

    copy_context().run(once)
