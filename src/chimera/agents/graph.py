"""Whether a declared LangGraph graph is sound: names exist, no cycle, all nodes reachable, texts name earlier nodes.

A node with several predecessors runs once, after those of them that run (the host follows dead paths to their end), so
every join is sane as long as no cycle exists; the one that isn't is a start node that something also leads to.
"""

import difflib
import re
from collections.abc import Iterator, Mapping

from chimera.agents.errors import Fault
from chimera_host.contract.behaviour import BranchNode, GraphNode, LangGraphBehaviour, ToolNode

RESERVED = frozenset({"input", "error", "outputs", "taken", "errors", "ended"})
"""Names that texts use for something else, or that the graph's state has."""

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]{0,62})\}")
_TEXTS = ("prompt", "system_message", "value")


def targets(node: GraphNode) -> tuple[tuple[str, str], ...]:
    """Where a node may lead to: (field, node name) pairs."""
    if isinstance(node, BranchNode):
        cases = tuple((f"cases[{number}].to", case.to) for number, case in enumerate(node.cases))
        return (*cases, ("otherwise", node.otherwise))
    following = tuple((f"next[{number}]", name) for number, name in enumerate(node.next))
    return (*following, ("on_error", node.on_error)) if node.on_error else following


def check_graph(graph: LangGraphBehaviour, path: str) -> Iterator[Fault]:
    """Every fault of `graph`; `path` is where it stands in the definition."""
    names = [node.name for node in graph.nodes]
    known = set(names)
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(path=f"{path}.nodes[{index}].name", message=f"the node {name!r} stands twice")
        if name in RESERVED or name.startswith("__"):
            yield Fault(path=f"{path}.nodes[{index}].name", message=f"the name {name!r} is taken", allowed="another")
    broken = False
    edges = [(f"start[{number}]", name) for number, name in enumerate(graph.start)]
    for index, node in enumerate(graph.nodes):
        edges.extend((f"nodes[{index}].{field}", name) for field, name in targets(node))
    for field, name in edges:
        if name not in known:
            broken = True
            near = difflib.get_close_matches(name, names, n=1)
            yield Fault(
                path=f"{path}.{field}",
                message=f"there is no node {name!r}",
                allowed=", ".join(names),
                suggestion=near[0] if near else None,
            )
    if not broken:
        yield from _check_shape(graph, path)


def _check_shape(graph: LangGraphBehaviour, path: str) -> Iterator[Fault]:
    following = {node.name: [name for _, name in targets(node)] for node in graph.nodes}
    if cycle := find_cycle(following):
        yield Fault(
            path=f"{path}.nodes",
            message=f"the graph runs in a circle: {' → '.join(cycle)}",
            allowed="an acyclic graph; `entrypoint` for loops",
        )
    else:
        yield from _check_texts(graph, following, path)
    reached = _reached(graph.start, following)
    for index, node in enumerate(graph.nodes):
        if node.name not in reached:
            yield Fault(path=f"{path}.nodes[{index}]", message=f"nothing leads to the node {node.name!r}")
    led_to = {name for names in following.values() for name in names}
    for number, name in enumerate(graph.start):
        if name in led_to:
            yield Fault(
                path=f"{path}.start[{number}]",
                message=f"the node {name!r} starts the graph, and another leads to it",
                allowed="start nodes that nothing leads to",
            )
        if name in graph.start[:number]:
            yield Fault(path=f"{path}.start[{number}]", message=f"the node {name!r} stands twice")


def _reached(start: tuple[str, ...] | list[str], following: Mapping[str, list[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(following[name])
    return reached


def _check_texts(graph: LangGraphBehaviour, following: Mapping[str, list[str]], path: str) -> Iterator[Fault]:
    """Places in texts that stand for a node which doesn't run before; other words in braces are left as they are."""
    after = {node.name: _reached(following[node.name], following) for node in graph.nodes}
    for index, node in enumerate(graph.nodes):
        texts = [(field, text) for field in _TEXTS if isinstance(text := getattr(node, field, None), str)]
        if isinstance(node, ToolNode):
            texts += [(f"arguments.{key}", text) for key, text in node.arguments.items() if isinstance(text, str)]
        for field, text in texts:
            for name in dict.fromkeys(_PLACE.findall(text)):
                if name in after and node.name not in after[name]:
                    earlier = [one for one in after if node.name in after[one]]
                    yield Fault(
                        path=f"{path}.nodes[{index}].{field}",
                        message=f"{{{name}}} stands for the output of a node that doesn't run before {node.name!r}",
                        allowed=", ".join(["{input}", *(f"{{{one}}}" for one in earlier)]),
                    )


def find_cycle(following: dict[str, list[str]]) -> list[str] | None:
    """One cycle as a list of names that ends where it starts, or None (depth first, without recursion)."""
    done: set[str] = set()
    for root in following:
        if root in done:
            continue
        trail: list[str] = []
        on_trail: set[str] = set()
        stack: list[tuple[str, bool]] = [(root, True)]
        while stack:
            name, entering = stack.pop()
            if not entering:
                done.add(name)
                on_trail.discard(trail.pop())
                continue
            if name in on_trail:
                return [*trail[trail.index(name) :], name]
            if name in done:
                continue
            trail.append(name)
            on_trail.add(name)
            stack.append((name, False))
            stack.extend((after, True) for after in following[name])
    return None
