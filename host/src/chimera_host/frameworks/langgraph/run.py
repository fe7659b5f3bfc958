"""Running a call on a compiled graph."""

import asyncio
import warnings
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.warnings import LangGraphDeprecatedSinceV10
from langsmith.run_trees import configure

from chimera_host.contract.agent import AgentDocument, AgentResources
from chimera_host.contract.behaviour import Behaviour, LangGraphBehaviour, PromptNode
from chimera_host.contract.call import InvokeRequest, SessionState
from chimera_host.errors import AgentFailed, AgentLoadError
from chimera_host.frameworks.langgraph import rules
from chimera_host.frameworks.langgraph.graph import compiled, values_of
from chimera_host.frameworks.langgraph.nodes import last_text
from chimera_host.ports import AgentBuild, CallContext, RunResult, current_call


class GraphAgent:
    """A declared graph. LangGraph keeps a run's state apart from the graph, so calls share nothing."""

    __slots__ = ("_behaviour", "_config", "_graph")

    def __init__(self, graph: Any, behaviour: LangGraphBehaviour) -> None:
        """Run `graph`, which was compiled from `behaviour`."""
        self._graph = graph
        self._behaviour = behaviour
        self._config = {"recursion_limit": len(behaviour.nodes) + 2}

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        begin = {"input": call.prompt, "outputs": {}, "taken": {}, "errors": {}, "ended": {}}
        state = await self._graph.ainvoke(begin, self._config)
        return RunResult(output=rules.answer(self._behaviour, values_of(state), state["ended"]))

    def close(self) -> None:
        """Nothing to let go of."""


class CodeGraphAgent:
    """A graph of the agent's own code, whose state takes `messages` or `input` and gives `output` or `messages`."""

    __slots__ = ("_graph", "_keys")

    def __init__(self, graph: Any, keys: frozenset[str]) -> None:
        """Run `graph`, whose state takes `keys`."""
        self._graph = graph
        self._keys = keys

    @classmethod
    def of(cls, made: object, name: str) -> "CodeGraphAgent":
        """What a factory returned, compiled if it isn't."""
        graph = made.compile() if isinstance(made, StateGraph) else made
        keys = frozenset(getattr(graph, "channels", ())) & {"messages", "input"}
        if not isinstance(graph, Pregel) or not keys:
            raise AgentLoadError(
                f"the entrypoint returned {type(made).__name__}, not a graph whose state has `messages` or `input`",
                next_step="return a StateGraph or what its compile() gives, with `messages` or `input` in its state",
                agent=name,
            )
        return cls(graph, keys)

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""
        messages = [{"role": m.role, "content": m.content} for m in (*call.session.messages, *call.request.messages)]
        given = {"messages": messages, "input": call.prompt}
        state = await self._graph.ainvoke({key: given[key] for key in self._keys})
        return RunResult(output=_output(state))

    def close(self) -> None:
        """Nothing to let go of."""


def _output(state: Any) -> str:
    if isinstance(state, Mapping):
        if isinstance(state.get("output"), str):
            return str(state["output"])
        if state.get("messages"):
            return last_text(state["messages"])
    raise AgentFailed(
        "the graph ended with neither `output` nor `messages` in its state",
        next_step="have a node set `output` to a text, or add the model's answer to `messages`",
    )


def prepare() -> None:
    """Turn LangSmith off whatever the environment says, and a notice of LangGraph's about its bare react agent."""
    configure(enabled=False)
    warnings.filterwarnings("ignore", category=LangGraphDeprecatedSinceV10)


class _Rehearsal:
    """A call without a caller."""

    prompt = "?"
    session = SessionState()
    request = InvokeRequest(call="", tenant="", agent="", revision="", messages=(), deadline=1.0)

    async def chat_streamed(self, _: Mapping[str, Any], source: str | None = None) -> dict[str, Any]:
        return {"choices": [{"message": {"role": "assistant", "content": "ready"}}]}


def rehearse() -> None:
    """Run one graph once, on a loop of its own that is closed again."""
    behaviour = LangGraphBehaviour(nodes=(PromptNode(name="ask", prompt="{input}"),), start=("ask",))
    document = AgentDocument(
        tenant="",
        name="rehearsal",
        version="1.0.0",
        description="",
        framework="langgraph",
        resources=AgentResources(cpu_millicores=100, memory_bytes=0, storage_bytes=0),
        behaviour=Behaviour(langgraph=behaviour),
    )

    def once() -> None:
        call: Any = _Rehearsal()
        current_call.set(call)
        agent = GraphAgent(compiled(behaviour, AgentBuild(document=document, tools={})), behaviour)
        asyncio.run(agent.run(call))

    copy_context().run(once)
