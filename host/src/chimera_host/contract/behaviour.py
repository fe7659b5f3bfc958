"""What an agent does, declared: one structure for each framework's common cases.

These types are both the `behaviour` section of a definition (ADaC v2.0) and what a host receives, so that a field is
written down once. A definition without a `behaviour` section gets one made from its description and primary functions
when it is compiled; a host always receives exactly one of the four. Text fields may hold `{input}`, which is replaced
by the caller's last message, and, in a graph, `{node-name}`, replaced by that node's output.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$", max_length=63)]
ShortText = Annotated[str, Meta(min_length=1, max_length=500)]
Text = Annotated[str, Meta(min_length=1, max_length=20_000)]
CredentialReference = Annotated[str, Meta(pattern=r"^secret:[A-Za-z][A-Za-z0-9_.-]{0,127}$")]


class AutoGenParticipant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One agent of a group chat."""

    name: Identifier
    role: ShortText
    system_message: Text | None = None
    tools: tuple[Identifier, ...] = ()


class AutoGenBehaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An AutoGen agent (classic API): one conversable agent, or a group chat of several.

    `conversational` answers a person; `task_execution` works in a chat of an assistant and an executor that runs its
    tools; `coordination` leads a group chat of the participants, and may be given participants only here.
    """

    kind: Literal["conversational", "task_execution", "coordination"]
    system_message: Text
    participants: Annotated[tuple[AutoGenParticipant, ...], Meta(max_length=20)] = ()
    pattern: Literal["round_robin", "auto", "random"] = "round_robin"
    max_rounds: Annotated[int, Meta(ge=1, le=50)] = 6
    termination: ShortText = "TERMINATE"
    tools: tuple[Identifier, ...] = ()


class CrewMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One CrewAI agent."""

    name: Identifier
    role: ShortText
    goal: Text
    backstory: Text
    tools: tuple[Identifier, ...] = ()


class CrewTask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One CrewAI task; `context` names earlier tasks whose results it is given."""

    name: Identifier
    description: Text
    expected_output: Text
    member: Identifier
    context: tuple[Identifier, ...] = ()


class CrewAIBehaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A CrewAI crew: members, their tasks, and how the tasks follow each other."""

    members: Annotated[tuple[CrewMember, ...], Meta(min_length=1, max_length=20)]
    tasks: Annotated[tuple[CrewTask, ...], Meta(min_length=1, max_length=50)]
    process: Literal["sequential", "hierarchical"] = "sequential"


class PromptNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="prompt"):
    """Asks the model."""

    name: Identifier
    prompt: Text
    system_message: Text | None = None
    next: tuple[Identifier, ...] = ()
    on_error: Identifier | None = None


class ToolNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="tool"):
    """Calls one tool; string arguments may hold `{input}` and `{node-name}`."""

    name: Identifier
    tool: Identifier
    arguments: dict[str, str | int | float | bool | None] = {}
    next: tuple[Identifier, ...] = ()
    on_error: Identifier | None = None


class AgentNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="agent"):
    """A model with tools, in a loop until it answers (LangGraph's prebuilt react agent)."""

    name: Identifier
    system_message: Text
    prompt: Text = "{input}"
    tools: tuple[Identifier, ...] = ()
    next: tuple[Identifier, ...] = ()
    on_error: Identifier | None = None


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one test on the text of a branch node's `value`, and where to go if it holds."""

    to: Identifier
    contains: ShortText | None = None
    equals: ShortText | None = None
    matches: ShortText | None = None
    longer_than: Annotated[int, Meta(ge=0)] | None = None


class BranchNode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="branch"):
    """Chooses the next node: the first case that holds, else `otherwise`."""

    name: Identifier
    cases: Annotated[tuple[Condition, ...], Meta(min_length=1, max_length=20)]
    otherwise: Identifier
    value: Text = "{input}"


GraphNode = PromptNode | ToolNode | AgentNode | BranchNode


class LangGraphBehaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A LangGraph graph: acyclic, checked when compiled.

    `start` lists the nodes that run first (several: in parallel). A node without `next` ends its path. A node with
    several predecessors outside a branch waits for all of them. `output` is the text of the answer; by default the
    outputs of the last nodes in order, joined.
    """

    nodes: Annotated[tuple[GraphNode, ...], Meta(min_length=1, max_length=100)]
    start: Annotated[tuple[Identifier, ...], Meta(min_length=1, max_length=20)]
    output: Text | None = None


class FunctionEndpoint(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function that answers for the agent, by HTTP (`chimera_host.contract.function`).

    The gateway calls it, so a host needs no way out and sees no credential; `credential` is shown as a bearer token.
    Addresses that aren't public, and those without encryption, must be allowed by the operator (`functions.allow`).
    """

    url: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@]+(/[^\s#]*)?$", max_length=2_000)]
    format: Literal["json", "cloudevents"] = "json"
    credential: CredentialReference | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=540)] = 60.0
    max_output_bytes: Annotated[int, Meta(ge=1, le=10_485_760)] = 262_144


class FunctionBehaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A lightweight agent without a framework: one model call with a system message, or tools called by name.

    With an `endpoint` it is answered by a function elsewhere instead, and has neither.
    """

    system_message: Text | None = None
    endpoint: FunctionEndpoint | None = None
    tools: tuple[Identifier, ...] = ()
    max_rounds: Annotated[int, Meta(ge=1, le=50)] = 6


class Behaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The declared behaviour: at most one section, the one of the definition's framework."""

    autogen: AutoGenBehaviour | None = None
    crewai: CrewAIBehaviour | None = None
    langgraph: LangGraphBehaviour | None = None
    function: FunctionBehaviour | None = None
