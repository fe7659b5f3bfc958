"""Toxic flows: where private data, untrusted text and a way out meet in one context.

Text from outside can hold instructions. Where they meet private data and a way out, a stranger can have that data sent
to them, whatever the prompts say; no filter of words prevents it surely, and taking away one of the three does. So
this is a rule over the definitions alone.

A *context* is what one model sees: a whole AutoGen chat, a crew's member, a node of a graph. What its tools bring is in
it, and so is what other contexts hand to it: a task's context, a graph's `{node}`. An agent that is called brings all
that it reaches itself, so labels are passed along calls until nothing changes: one pass over all agents, by a
worklist.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.model import Place, Result, found
from chimera.delivery.scanning.reaching import TOXIC, Label, Reach, reach_of
from chimera_host.contract.behaviour import AgentNode, CrewAIBehaviour, LangGraphBehaviour, ToolNode

CONFIDENTIAL = ("confidential", "personal")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]{0,62})\}")
_NAMES = {Label.PRIVATE: "private data", Label.UNTRUSTED: "untrusted text", Label.OUT: "a way out"}


class Context(Struct, frozen=True, kw_only=True):
    """What one model sees: the tools in it, and the contexts whose output it is handed."""

    name: str
    field: str
    tools: tuple[str, ...]
    takes: tuple[str, ...] = ()


class Flow(Struct, frozen=True, kw_only=True):
    """A context where all three meet, and the tools that bring each."""

    context: Context
    brings: tuple[tuple[Label, tuple[str, ...]], ...]


def toxic_flows(values: Sequence[CanonicalDefinition], trusted: Iterable[str]) -> Iterator[tuple[str, Result]]:
    """Toxic flows of every agent, by its name."""
    trusted = tuple(trusted)
    reaches = {
        value.agent.name: tuple(reach_of(tool, index, trusted) for index, tool in enumerate(value.agent.tools))
        for value in values
    }
    labels = agent_labels(values, reaches)
    for value in values:
        for flow in flows_of(value, reaches[value.agent.name], labels):
            yield value.agent.name, _finding(flow)


def agent_labels(values: Sequence[CanonicalDefinition], reaches: Mapping[str, Sequence[Reach]]) -> dict[str, Label]:
    """What each agent brings to whoever calls it: its own labels, and those of all that it calls in turn."""
    labels = {value.agent.name: own_labels(value) for value in values}
    callers: dict[str, list[str]] = defaultdict(list)
    for name, tools in reaches.items():
        for reach in tools:
            labels[name] |= reach.labels
            if reach.agent is not None:
                callers[reach.agent].append(name)
    waiting = deque(name for name in labels if callers.get(name))
    while waiting:
        name = waiting.popleft()
        for caller in callers[name]:
            if (more := labels[caller] | labels[name]) != labels[caller]:
                labels[caller] = more
                if callers.get(caller):
                    waiting.append(caller)
    return labels


def own_labels(value: CanonicalDefinition) -> Label:
    """What an agent has in every context: data of its class, and events from outside as its input."""
    labels = Label.PRIVATE if value.data_class in CONFIDENTIAL else Label.NONE
    if any(_from_outside(one.sources) for one in value.subscriptions):
        labels |= Label.UNTRUSTED
    return labels


def _from_outside(sources: Sequence[str]) -> bool:
    """Whether events of somebody else's addresses start the agent."""
    return any(source.startswith(("http://", "https://")) for source in sources)


def flows_of(value: CanonicalDefinition, tools: Sequence[Reach], labels: Mapping[str, Label]) -> Iterator[Flow]:
    """The toxic contexts of one agent."""
    by_name = {
        reach.name: reach.labels | (labels.get(reach.agent, Label.NONE) if reach.agent else Label.NONE)
        for reach in tools
    }
    base = own_labels(value)
    if base | _all(by_name.values()) != TOXIC:
        return
    contexts = {one.name: one for one in contexts_of(value)}
    within = _spread(contexts, by_name)
    for name, context in contexts.items():
        own = {tool: by_name.get(tool, Label.NONE) for tool in context.tools}
        seen = within[name]
        # The way out must be here; what it carries may have been handed over.
        if Label.OUT in _all(own.values()) and base | _all(seen.values()) == TOXIC:
            yield Flow(
                context=context,
                brings=tuple(
                    (
                        label,
                        tuple(
                            sorted(tool for tool, has in (own if label is Label.OUT else seen).items() if label in has)
                        ),
                    )
                    for label in _NAMES
                ),
            )


def _spread(contexts: Mapping[str, Context], by_name: Mapping[str, Label]) -> dict[str, dict[str, Label]]:
    """The tools whose data is in each context, by way of all that is handed over."""
    within = {
        name: {tool: by_name.get(tool, Label.NONE) for tool in context.tools} for name, context in contexts.items()
    }
    readers: dict[str, list[str]] = defaultdict(list)
    for context in contexts.values():
        for source in context.takes:
            readers[source].append(context.name)
    waiting = deque(contexts)
    while waiting:
        name = waiting.popleft()
        for reader in readers[name]:
            if reader in within and not within[name].keys() <= within[reader].keys():
                within[reader].update(within[name])
                waiting.append(reader)
    return within


def _all(labels: Iterable[Label]) -> Label:
    together = Label.NONE
    for label in labels:
        together |= label
    return together


def contexts_of(value: CanonicalDefinition) -> Iterator[Context]:
    """The contexts of an agent; code of its own is one, since nobody knows what it does with its tools."""
    behaviour, everything = value.agent.behaviour, tuple(tool.name for tool in value.agent.tools)
    if value.agent.source is not None and value.agent.source.entrypoint is not None:
        yield Context(name="code", field="specification.entrypoint", tools=everything)
    elif behaviour.crewai is not None:
        yield from _crew(behaviour.crewai, everything)
    elif behaviour.langgraph is not None:
        yield from _graph(behaviour.langgraph)
    elif behaviour.autogen is not None:
        named = {*behaviour.autogen.tools, *(tool for one in behaviour.autogen.participants for tool in one.tools)}
        yield Context(name="chat", field="behaviour.autogen", tools=tuple(sorted(named)) or everything)
    else:
        named = set(behaviour.function.tools if behaviour.function else ())
        yield Context(name="model", field="behaviour.function", tools=tuple(sorted(named)) or everything)


def _crew(crew: CrewAIBehaviour, everything: tuple[str, ...]) -> Iterator[Context]:
    """A context for each task; under a manager, who sees all, one for all of them."""
    tools = {member.name: member.tools for member in crew.members}
    if crew.process == "hierarchical":
        named = tuple(sorted({tool for some in tools.values() for tool in some}))
        yield Context(name="crew", field="behaviour.crewai", tools=named or everything)
        return
    before: str | None = None
    for index, task in enumerate(crew.tasks):
        # A task without a context of its own is given what was said before it.
        takes = task.context or ((before,) if before is not None else ())
        yield Context(
            name=task.name, field=f"behaviour.crewai.tasks[{index}]", tools=tools.get(task.member, ()), takes=takes
        )
        before = task.name


def _graph(graph: LangGraphBehaviour) -> Iterator[Context]:
    """A context for each node; it takes the outputs of the nodes that its texts name."""
    for index, node in enumerate(graph.nodes):
        tools: tuple[str, ...] = ()
        if isinstance(node, AgentNode):
            tools = node.tools
        elif isinstance(node, ToolNode):
            tools = (node.tool,)
        texts = msgspec.json.encode(
            {name: getattr(node, name) for name in node.__struct_fields__ if name not in ("next",)}
        )
        takes = tuple(sorted(set(_PLACEHOLDER.findall(texts.decode())) - {"input"}))
        yield Context(name=node.name, field=f"behaviour.langgraph.nodes[{index}]", tools=tools, takes=takes)


def untrusted_nodes(value: CanonicalDefinition, trusted: Iterable[str]) -> frozenset[str]:
    """Nodes of an agent's graph whose output holds what somebody outside has written."""
    graph = value.agent.behaviour.langgraph
    if graph is None:
        return frozenset()
    trusted = tuple(trusted)
    labels = {tool.name: reach_of(tool, index, trusted).labels for index, tool in enumerate(value.agent.tools)}
    within = _spread({one.name: one for one in _graph(graph)}, labels)
    return frozenset(name for name, tools in within.items() if Label.UNTRUSTED in _all(tools.values()))


def _finding(flow: Flow) -> Result:
    told = "; ".join(
        f"{_NAMES[label]} by {', '.join(tools) or 'what the agent is given'}" for label, tools in flow.brings
    )
    return found(
        "permissions",
        "toxic-flow",
        "high",
        f"private data, untrusted text and a way out meet in {flow.context.name!r}: {told}",
        next_step="take one of the three out of this context: give the tools to different members or nodes, narrow "
        "`egress`, or trust the host (`scanning.trusted_hosts`)",
        place=Place(field=flow.context.field),
        subject=told,
    )
