"""CrewAI's agent executor without work that a crew here never needs: half of a task's CPU time.

The executor is a CrewAI flow of 32 steps, and each of these subtractions leaves its steps themselves as they are:

- Its state is a model without an `id`, so each executor builds a pydantic class that has one. `initial_state`
  names such a class, made once.
- Eighteen steps serve planning and its list of todos. Without planning nothing leads to them, yet each event is held
  against all. The definition used here has the steps of an agent that doesn't plan.
- Each step runs in a thread. Those that only decide where to go next run in place; those that call a model or a tool
  keep their thread, since a delegated task starts an executor of its own.

An agent that plans keeps CrewAI's own executor. The names of the steps are those of the locked version; a step that is
missing fails at import.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from crewai.agents.agent_executor import AgentExecutor, AgentExecutorState
from crewai.flow.flow import FlowState
from crewai.flow.flow_definition import FlowDefinition
from pydantic import Field

DECIDING = (
    "generate_plan",
    "check_todos_available",
    "initialize_reasoning",
    "check_max_iterations",
    "continue_iteration",
    "route_by_answer_type",
    "check_todo_completion",
    "check_native_todo_completion",
    "increment_and_continue",
    "recover_from_parser_error",
    "finalize",
)
"""Steps that decide from the state; without a plan none of them calls a model or a tool."""

WORKING = (
    "call_llm_and_parse",
    "call_llm_native_tools",
    "execute_tool_action",
    "execute_native_tool",
    "ensure_force_final_answer",
    "recover_from_context_length",
)
"""Steps that call a model or a tool."""


def _without_plan() -> FlowDefinition:
    whole = AgentExecutor.flow_definition()
    return whole.model_copy(update={"methods": {name: whole.methods[name] for name in (*DECIDING, *WORKING)}})


class ExecutorState(FlowState, AgentExecutorState):  # type: ignore[misc]
    """An executor's state, with the flow's `id`."""


class LeanExecutor(AgentExecutor):  # type: ignore[misc]
    """CrewAI's executor for an agent that doesn't plan."""

    initial_state: Any = Field(default=ExecutorState, exclude=True)

    @classmethod
    def flow_definition(cls) -> FlowDefinition:
        """The steps of an agent that doesn't plan."""
        return _DEFINITION

    def _class_bound_methods(self) -> dict[Any, Callable[..., Any]]:
        methods: dict[Any, Callable[..., Any]] = super()._class_bound_methods()
        for name in DECIDING:
            methods[name] = _in_place(methods[name])
        return methods


def _in_place(step: Callable[[], Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
    """A step as a coroutine, which a flow runs on its event loop and not in a thread."""

    async def run() -> Any:
        return step()

    return run


_DEFINITION = _without_plan()
