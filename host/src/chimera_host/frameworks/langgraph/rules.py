"""The pure parts of a declared graph: its shape, what a branch chooses, what the answer is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from chimera_host.contract.behaviour import BranchNode, Condition, GraphNode, LangGraphBehaviour
from chimera_host.substitute import fill


class GraphFault(ValueError):
    """The graph can't run as it is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Who comes before whom: `before` names every node's possible predecessors, through branches and errors too."""

    before: Mapping[str, tuple[str, ...]]
    start: frozenset[str]


def targets(node: GraphNode) -> tuple[str, ...]:
    """Where a node may lead, each once."""
    if isinstance(node, BranchNode):
        found = [case.to for case in node.cases] + [node.otherwise]
    else:
        found = [*node.next, *([node.on_error] if node.on_error else [])]
    return tuple(dict.fromkeys(found))


def shape(behaviour: LangGraphBehaviour) -> Shape:
    """The graph's shape; raises `GraphFault` for a name twice, a name unknown, or a cycle."""
    before: dict[str, list[str]] = {}
    for node in behaviour.nodes:
        if node.name in before:
            raise GraphFault(f"two nodes have the name {node.name!r}")
        before[node.name] = []
    for name in behaviour.start:
        if name not in before:
            raise GraphFault(f"`start` names {name!r}, which is no node")
    for node in behaviour.nodes:
        for target in targets(node):
            if target not in before:
                raise GraphFault(f"node {node.name!r} leads to {target!r}, which is no node")
            before[target].append(node.name)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        raise GraphFault(f"the nodes lead in a circle: {' -> '.join(error.args[1])}") from error
    return Shape(before={name: tuple(names) for name, names in before.items()}, start=frozenset(behaviour.start))


def holds(condition: Condition, value: str) -> bool:
    """Whether a branch's case holds. Words are compared without regard to case, since models vary it."""
    if condition.contains is not None:
        return condition.contains.casefold() in value.casefold()
    if condition.equals is not None:
        return condition.equals.strip().casefold() == value.strip().casefold()
    if condition.matches is not None:
        return re.search(condition.matches, value) is not None
    return condition.longer_than is not None and len(value) > condition.longer_than


def choose(node: BranchNode, value: str) -> str:
    """Where a branch leads."""
    return next((case.to for case in node.cases if holds(case, value)), node.otherwise)


def check_patterns(node: BranchNode) -> None:
    """Raise `GraphFault` for a `matches` that is no regular expression."""
    for case in node.cases:
        if case.matches is not None:
            try:
                re.compile(case.matches)
            except re.error as error:
                raise GraphFault(f"node {node.name!r}: {case.matches!r} is no regular expression: {error}") from error


def answer(behaviour: LangGraphBehaviour, values: Mapping[str, str], last: Iterable[str]) -> str:
    """The text of the answer: `output` filled in, else the outputs of the nodes that ended a path, in order."""
    if behaviour.output is not None:
        return fill(behaviour.output, values)
    ended = frozenset(last)
    return "\n\n".join(values[node.name] for node in behaviour.nodes if node.name in ended)
