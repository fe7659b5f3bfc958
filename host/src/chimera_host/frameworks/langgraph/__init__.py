"""Agents on LangGraph: graphs that LangGraph itself compiles and runs, on the host's event loop.

The package has the framework's name, but imports are absolute: `import langgraph` in here is the framework. `rules` are
the pure parts, `nodes` what a node does, `graph` how a definition becomes a `StateGraph`, `model` the chat model that
reaches the platform, `run` how a call runs, `keeping` how its work outlives the host, `checkpointer` and `serializer`
how LangGraph's state gets to the platform.
"""

import os

from chimera_host.agent_context import AgentContext
from chimera_host.contract.agent import FrameworkName
from chimera_host.errors import AgentLoadError

for _name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
    os.environ[_name] = "false"  # before LangChain is imported, which reads them then
os.environ.pop("LANGCHAIN_HANDLER", None)  # LangChain refuses to run with it
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # see `serializer`; LangGraph reads it when it is imported

from chimera_host.frameworks.langgraph import graph as graphs  # noqa: E402 - after the calls home are off
from chimera_host.frameworks.langgraph.checkpointer import Checkpointer  # noqa: E402 - as above
from chimera_host.frameworks.langgraph.model import ChimeraChatModel, native_tool  # noqa: E402 - as above
from chimera_host.frameworks.langgraph.run import CodeGraphAgent, GraphAgent, prepare, rehearse  # noqa: E402 - as above
from chimera_host.ports import AgentBuild, LoadedAgent  # noqa: E402 - as above


class Adapter:
    """The `langgraph` framework."""

    name: FrameworkName = "langgraph"

    def __init__(self) -> None:
        """One checkpointer for all agents."""
        self._saver = Checkpointer()

    def preload(self) -> None:
        """Turn LangSmith off, and run one graph once: a fork then shares what that imports."""
        prepare()
        rehearse()

    def load(self, build: AgentBuild) -> LoadedAgent:
        """The declared graph, compiled; or the one that the agent's factory returns."""
        prepare()
        document = build.document
        if build.factory is not None:
            specs = [spec for several in build.tools.values() for spec in several]
            context = AgentContext(
                document=document,
                work_dir=build.work_dir,
                tool_specs=build.tools,
                model=ChimeraChatModel(),
                tools=[native_tool(spec) for spec in specs],
            )
            return CodeGraphAgent.of(build.factory(context), document.name, self._saver)
        behaviour = document.behaviour.langgraph
        if behaviour is None:
            raise AgentLoadError(
                f"agent {document.name} has neither a `langgraph` behaviour nor an entrypoint",
                next_step="give the definition a `behaviour: langgraph:` section or a `source` with an entrypoint",
                agent=document.name,
            )
        return GraphAgent(graphs.compiled(behaviour, build), behaviour, self._saver)
