"""Running a call on a compiled graph: a declared one, or one of an agent's own code."""

import asyncio
import warnings
from collections.abc import Mapping
from contextvars import copy_context
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.warnings import LangGraphDeprecatedSinceV10
from langsmith.run_trees import configure

from chimera_host.contract.agent import AgentDocument, AgentResources
from chimera_host.contract.behaviour import Behaviour, LangGraphBehaviour, PromptNode
from chimera_host.contract.call import InvokeRequest, SessionState
from chimera_host.errors import AgentFailed, AgentLoadError
from chimera_host.frameworks.langgraph import rules
from chimera_host.frameworks.langgraph.checkpointer import Checkpointer
from chimera_host.frameworks.langgraph.graph import compiled, values_of
from chimera_host.frameworks.langgraph.keeping import KeptGraph, values_after
from chimera_host.frameworks.langgraph.nodes import last_text
from chimera_host.ports import AgentBuild, CallContext, RunResult, current_call


class GraphAgent:
    """A declared graph. LangGraph keeps a run's state apart from the graph, so calls share nothing."""

    __slots__ = ("_behaviour", "_graph", "_limit")

    def __init__(self, graph: Any, behaviour: LangGraphBehaviour, saver: Checkpointer | None = None) -> None:
        """Run `graph`, which was compiled from `behaviour`; its work is kept by `saver`."""
        self._graph = KeptGraph(graph, saver)
        self._behaviour = behaviour
        self._limit = len(behaviour.nodes) + 2

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""

        def given(_: bool) -> dict[str, Any]:
            return {"input": call.prompt, "outputs": {}, "taken": {}, "errors": {}, "ended": {}}

        ended = await self._graph.run(call, given, self._limit)
        output = rules.answer(self._behaviour, values_of(ended.state), ended.state["ended"])
        return RunResult(output=output, threads=ended.threads)

    def close(self) -> None:
        """Nothing to let go of."""


class CodeGraphAgent:
    """A graph of the agent's own code, whose state takes `messages` or `input` and gives `output` or `messages`.

    Its state is kept by the platform. One that was compiled with LangGraph's `InMemorySaver` remembers its state from
    call to call of a session; one with `checkpointer=False` is kept nowhere.
    """

    __slots__ = ("_graph", "_keys")

    def __init__(self, graph: KeptGraph, keys: frozenset[str]) -> None:
        """Run `graph`, whose state takes `keys`."""
        self._graph = graph
        self._keys = keys

    @classmethod
    def of(cls, made: object, name: str, saver: Checkpointer | None = None) -> "CodeGraphAgent":
        """What a factory returned, compiled if it isn't; its work is kept by `saver`."""
        graph = made.compile() if isinstance(made, StateGraph) else made
        keys = frozenset(getattr(graph, "channels", ())) & {"messages", "input"}
        if not isinstance(graph, Pregel) or not keys:
            raise AgentLoadError(
                f"the entrypoint returned {type(made).__name__}, not a graph whose state has `messages` or `input`",
                next_step="return a StateGraph or what its compile() gives, with `messages` or `input` in its state",
                agent=name,
            )
        _check(graph, name)
        own = graph.checkpointer
        kept = KeptGraph(graph, None if own is False else saver, remembers=isinstance(own, InMemorySaver))
        return cls(kept, keys)

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""

        def given(remembered: bool) -> dict[str, Any]:
            said = call.request.messages if remembered else (*call.session.messages, *call.request.messages)
            messages = [{"role": message.role, "content": message.content} for message in said]
            return {key: messages if key == "messages" else call.prompt for key in self._keys}

        ended = await self._graph.run(call, given)
        if ended.question is not None:
            call.emit(ended.question)
        return RunResult(
            output=_output(ended.state) if ended.question is None else ended.question,
            values=values_after(call.session.values, ended.left),
            threads=ended.threads,
        )

    def close(self) -> None:
        """Nothing to let go of."""


def _check(graph: Pregel, name: str) -> None:
    """Refuse what can't be kept as the graph says."""
    saver = graph.checkpointer
    if saver is True or (isinstance(saver, BaseCheckpointSaver) and not isinstance(saver, InMemorySaver)):
        raise AgentLoadError(
            f"the graph was compiled with a checkpointer of its own ({saver!r:.80}), and hosts open no database",
            next_step="compile it without one, and the platform keeps its state; with `InMemorySaver()` its state "
            "goes on from call to call of a session",
            agent=name,
        )
    if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
        raise AgentLoadError(
            "the graph was compiled with `interrupt_before` or `interrupt_after`, which ask a caller nothing",
            next_step="call `interrupt(question)` in a node; the session's next call answers it",
            agent=name,
        )


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

    checkpoints = None
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
