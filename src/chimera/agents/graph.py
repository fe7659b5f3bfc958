"""Whether a declared LangGraph graph is sound: names exist, no cycle, all nodes reachable. Cost grows with edges."""

import difflib
from collections.abc import Iterator

from chimera.agents.errors import Fault
from chimera_host.contract.behaviour import BranchNode, GraphNode, LangGraphBehaviour


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
    reached: set[str] = set()
    waiting = list(graph.start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(following[name])
    for index, node in enumerate(graph.nodes):
        if node.name not in reached:
            yield Fault(path=f"{path}.nodes[{index}]", message=f"nothing leads to the node {node.name!r}")


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
