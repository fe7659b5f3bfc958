"""From a declared graph to LangGraph's `StateGraph`, compiled once when an agent is loaded.

A node waits for all its possible predecessors: `add_edge([a, b], c)`. With branches that alone would wait for ever for
a path not taken, and LangGraph's `defer` runs two joins in a row at the same time. So every node runs exactly once, and
is told by the state which of the edges into it are taken; a node that none is taken into does nothing, and takes
none of its own. This is dead-path elimination as workflow engines do it; it ends on every acyclic graph.
"""

import asyncio
from typing import Annotated, Any, TypedDict

import msgspec
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import START, StateGraph

from chimera_host.checkpoints import NotKept
from chimera_host.contract.behaviour import BranchNode, LangGraphBehaviour
from chimera_host.contract.problem import ProblemError, RemoteProblem
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
        graph.add_node(node.name, Step(node, worker(node, build), before, starts=node.name in shape.start))
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


class Step(Runnable[State, dict[str, Any]]):  # type: ignore[misc]  # the environment of types has no langchain
    """One node of a declared graph as LangGraph runs it.

    A `Runnable`, and not a function: for each function LangGraph disassembles its code in search of subgraphs, which
    is half the time of a compilation.
    """

    def __init__(self, node: Any, work: Work, before: tuple[str, ...], *, starts: bool) -> None:
        """Run `work` for `node`, into which the edges from `before` lead."""
        self.name = node.name
        self._node = node
        self._work = work
        self._before = before
        self._starts = starts
        self._following = () if isinstance(node, BranchNode) else tuple(node.next)

    def invoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:
        """Run outside an event loop, as LangGraph's synchronous methods do."""
        return asyncio.run(self.ainvoke(input, config))

    async def ainvoke(self, input: State, config: RunnableConfig | None = None, **_: Any) -> dict[str, Any]:
        """The state's update: this node's output and the edges that it takes."""
        name = self.name
        if not self._starts and not any((earlier, name) in input["taken"] for earlier in self._before):
            return {"outputs": {name: ""}}
        try:
            output = await self._work(values_of(input))
        except (CallCancelled, NotKept):
            raise
        except Exception as error:
            return self._failed(error)
        chosen = (rules.choose(self._node, output),) if isinstance(self._node, BranchNode) else self._following
        update: dict[str, Any] = {"outputs": {name: output}, "taken": {(name, target): True for target in chosen}}
        if not chosen:
            update["ended"] = {name: True}
        return update

    def _failed(self, error: Exception) -> dict[str, Any]:
        name = self.name
        reason = error.detail if isinstance(error, ProblemError) else f"{type(error).__name__}: {error}"
        on_error = getattr(self._node, "on_error", None)
        if on_error is None:
            whole, mend = f"node {name} failed: {reason}", f"mend it, or give node {name} an `on_error`"
            if isinstance(error, ProblemError):  # whose code says what failed: not always the agent
                problem = error.problem()
                next_step = problem.next_step or mend
                raise RemoteProblem(msgspec.structs.replace(problem, detail=whole, next_step=next_step)) from error
            raise AgentFailed(whole, next_step=mend) from error
        return {"outputs": {name: ""}, "errors": {name: reason}, "taken": {(name, on_error): True}}
