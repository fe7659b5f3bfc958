"""Behaviour for a definition that declares none: made from its description and primary functions, for its framework."""

from chimera.agents.spec import Definition
from chimera_host.contract.behaviour import (
    AutoGenBehaviour,
    Behaviour,
    CrewAIBehaviour,
    CrewMember,
    CrewTask,
    FunctionBehaviour,
    LangGraphBehaviour,
    PromptNode,
)


def behaviour_of(definition: Definition) -> Behaviour:
    """The declared behaviour, or one derived; an entry point has none (its code decides)."""
    if definition.specification.entrypoint is not None or definition.behaviour != Behaviour():
        return definition.behaviour
    message = instructions(definition)
    tools = tuple(tool.name for tool in definition.tools)
    match definition.specification.framework:
        case "AutoGen":
            return Behaviour(autogen=AutoGenBehaviour(kind="conversational", system_message=message, tools=tools))
        case "CrewAI":
            return Behaviour(crewai=_crew(definition, message, tools))
        case "LangGraph":
            node = PromptNode(name="answer", prompt="{input}", system_message=message)
            return Behaviour(langgraph=LangGraphBehaviour(nodes=(node,), start=("answer",)))
        case "function":
            return Behaviour(function=FunctionBehaviour(system_message=message, tools=tools))


def instructions(definition: Definition) -> str:
    """A system message: what the agent is, and what it does."""
    functions = "\n".join(f"- {function}" for function in definition.capabilities.primary_functions)
    description = definition.metadata.description.strip()
    return f"You are {definition.metadata.name}. {description}\nYou do the following:\n{functions}"


def _crew(definition: Definition, message: str, tools: tuple[str, ...]) -> CrewAIBehaviour:
    member = CrewMember(
        name="specialist",
        role=definition.metadata.name,
        goal="; ".join(definition.capabilities.primary_functions)[:20_000],
        backstory=message[:20_000],
        tools=tools,
    )
    task = CrewTask(
        name="answer", description="{input}", expected_output="A complete and correct answer", member="specialist"
    )
    return CrewAIBehaviour(members=(member,), tasks=(task,))
