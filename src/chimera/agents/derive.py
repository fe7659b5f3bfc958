"""Behaviour for a definition that declares none: made from its description and primary functions, for its framework."""

from chimera.agents.spec import Definition
from chimera_host.contract.behaviour import (
    AgentNode,
    AutoGenBehaviour,
    Behaviour,
    CrewAIBehaviour,
    CrewMember,
    CrewTask,
    FunctionBehaviour,
    GraphNode,
    LangGraphBehaviour,
    PromptNode,
)

LONGEST = 20_000
"""What the wire contract takes as one text; a description and fifty functions may be longer together."""


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
            node: GraphNode = PromptNode(name="answer", prompt="{input}", system_message=message)
            if tools:
                node = AgentNode(name="answer", prompt="{input}", system_message=message, tools=tools)
            return Behaviour(langgraph=LangGraphBehaviour(nodes=(node,), start=("answer",)))
        case "function":
            return Behaviour(function=FunctionBehaviour(system_message=message, tools=tools))


def instructions(definition: Definition) -> str:
    """A system message: what the agent is, and what it does."""
    functions = "\n".join(f"- {function}" for function in definition.capabilities.primary_functions)
    description = definition.metadata.description.strip()
    return f"You are {definition.metadata.name}. {description}\nYou do the following:\n{functions}"[:LONGEST]


def _crew(definition: Definition, message: str, tools: tuple[str, ...]) -> CrewAIBehaviour:
    member = CrewMember(
        name="specialist",
        role=definition.metadata.name,
        goal="; ".join(definition.capabilities.primary_functions)[:LONGEST],
        backstory=message,
        tools=tools,
    )
    task = CrewTask(
        name="answer", description="{input}", expected_output="A complete and correct answer", member="specialist"
    )
    return CrewAIBehaviour(members=(member,), tasks=(task,))
