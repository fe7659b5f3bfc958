"""CrewAI's agent executor without a class made for each task.

The executor is a CrewAI flow whose state is a model without an `id`, so each executor builds a pydantic class that has
one, which is a third of a task's CPU time. This one names such a class (a flow's `initial_state`), made once.
"""

from typing import Any

from crewai.agents.agent_executor import AgentExecutor, AgentExecutorState
from crewai.flow.flow import FlowState
from crewai.flow.flow_definition import FlowDefinition
from pydantic import Field


class ExecutorState(FlowState, AgentExecutorState):
    """An executor's state, with the flow's `id`."""


class LeanExecutor(AgentExecutor):
    """CrewAI's executor, which makes its state from one class."""

    initial_state: Any = Field(default=ExecutorState, exclude=True)

    @classmethod
    def flow_definition(cls) -> FlowDefinition:
        """The steps of CrewAI's executor: a flow's definition is read from its own class alone."""
        return AgentExecutor.flow_definition()
