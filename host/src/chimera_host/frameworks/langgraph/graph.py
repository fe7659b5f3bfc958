"""From a declared graph to LangGraph's `StateGraph`, compiled once when an agent is loaded.

A node waits for all its possible predecessors: `add_edge([a, b], c)`. With branches that alone would wait for ever for
a path not taken, and LangGraph's `defer` runs two joins in a row at the same time. So every node runs exactly once, and
is told by the state which of the edges into it are taken; a node that none is taken into does nothing, and takes
none of its own. This is dead-path elimination as workflow engines do it; it ends on every acyclic graph.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from chimera_host.contract.behaviour import BranchNode, LangGraphBehaviour
from chimera_host.contract.problem import ProblemError
from chimera_host.errors import AgentFailed, AgentLoadError, CallCancelled
from chimera_host.frameworks.langgraph import rules
from chimera_host.frameworks.langgraph.nodes import Work, worker
from chimera_host.ports import AgentBuild

Edge = tuple[str, str]


def merged(old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    """LangGraph's reducer: nodes that run in parallel add to one dictionary."""
    return {**old, **new}


class State(TypedDict, total=False):
    """What nodes read and add to: outputs by node, edges taken, errors by node, the nodes that ended a path."""

    input: str
    outputs: Annotated[dict[str, str], merged]
    taken: Annotated[dict[Edge, bool], merged]
    errors: Annotated[dict[str, str], merged]
    ended: Annotated[dict[str, bool], merged]


def compiled(behaviour: LangGraphBehaviour, build: AgentBuild) -> Any:
    """The graph, ready to run."""
    try:
        shape = rules.shape(behaviour)
        for node in behaviour.nodes:
            if isinstance(node, BranchNode):
                rules.check_patterns(node)
    except rules.GraphFault as fault:
        raise AgentLoadError(str(fault), next_step="mend the graph", agent=build.document.name) from fault
    graph = StateGraph(State)
    for node in behaviour.nodes:
        before = shape.before[node.name]
        if not before and node.name not in shape.start:
            continue  # nothing leads there
        graph.add_node(node.name, _step(node, worker(node, build), before, node.name in shape.start))
    for name, before in shape.before.items():
        reachable = [earlier for earlier in before if earlier in graph.nodes]
        if name not in graph.nodes:
            continue
        if len(reachable) == 1:
            graph.add_edge(reachable[0], name)
        elif reachable:
            graph.add_edge(reachable, name)
        else:
            graph.add_edge(START, name)
    return graph.compile()


def values_of(state: State) -> dict[str, str]:
    """What `{name}` in a text stands for: the input, every node's output, and the error where there was one."""
    values = {**state["outputs"], "input": state["input"]}
    if state["errors"]:
        values["error"] = "; ".join(state["errors"].values())
    return values


def _step(node: Any, work: Work, before: tuple[str, ...], starts: bool) -> Callable[[State], Coroutine[Any, Any, Any]]:
    name = node.name
    following = () if isinstance(node, BranchNode) else tuple(node.next)

    async def step(state: State) -> dict[str, Any]:
        if not starts and not any((earlier, name) in state["taken"] for earlier in before):
            return {"outputs": {name: ""}}
        values = values_of(state)
        try:
            output = await work(values)
        except CallCancelled:
            raise
        except Exception as error:
            reason = error.detail if isinstance(error, ProblemError) else f"{type(error).__name__}: {error}"
            on_error = getattr(node, "on_error", None)
            if on_error is None:
                raise AgentFailed(
                    f"node {name} failed: {reason}", next_step=f"mend it, or give node {name} an `on_error`"
                ) from error
            return {"outputs": {name: ""}, "errors": {name: reason}, "taken": {(name, on_error): True}}
        chosen = (rules.choose(node, output),) if isinstance(node, BranchNode) else following
        update: dict[str, Any] = {"outputs": {name: output}, "taken": {(name, target): True for target in chosen}}
        if not chosen:
            update["ended"] = {name: True}
        return update

    return step
