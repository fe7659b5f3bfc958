"""Agents on AutoGen's classic API: conversable agents and group chats, which AutoGen's own classes run.

The package has the framework's name, but imports are absolute: `import autogen` in here is the framework. `model` joins
AutoGen to the platform's model, `build` makes agents from a definition, `isolate` gives each call a state of its own,
`run` runs the three kinds and an entrypoint's objects, `transcript` lets a call go on from the messages it has.
"""

from autogen import ConversableAgent

from chimera_host.agent_context import AgentContext
from chimera_host.contract.agent import FrameworkName
from chimera_host.errors import AgentLoadError
from chimera_host.frameworks.autogen import build as builder
from chimera_host.frameworks.autogen.model import llm_config, prepare, rehearse
from chimera_host.frameworks.autogen.run import ConversingAgent, CoordinatingAgent, WorkingAgent
from chimera_host.ports import AgentBuild, LoadedAgent


class Adapter:
    """The `autogen` framework."""

    name: FrameworkName = "autogen"

    def preload(self) -> None:
        """Silence AutoGen, and run one call on a model that answers in place: a fork then shares what that imports."""
        prepare()
        rehearse()

    def load(self, build: AgentBuild) -> LoadedAgent:
        """The declared kind, or whatever the agent's factory returns."""
        prepare()
        if build.factory is not None:
            return self._from_factory(build)
        behaviour = build.document.behaviour.autogen
        if behaviour is None:
            raise AgentLoadError(
                f"agent {build.document.name} has neither an `autogen` behaviour nor an entrypoint",
                next_step="give the definition a `behaviour: autogen:` section or a `source` with an entrypoint",
                agent=build.document.name,
            )
        if behaviour.kind == "task_execution":
            assistant, executor = builder.pair(behaviour, build)
            return WorkingAgent(assistant, executor, turns=behaviour.max_rounds, termination=behaviour.termination)
        if behaviour.kind == "coordination" and behaviour.participants:
            manager = builder.group(behaviour, build)
            return CoordinatingAgent(manager, termination=behaviour.termination)
        agent = builder.leader(behaviour, build)
        return ConversingAgent(agent, rounds=behaviour.max_rounds, termination=behaviour.termination)

    def _from_factory(self, build: AgentBuild) -> LoadedAgent:
        assert build.factory is not None
        specs = [spec for several in build.tools.values() for spec in several]
        context = AgentContext(
            document=build.document,
            work_dir=build.work_dir,
            tool_specs=build.tools,
            model=llm_config(build.document.model.name),
            tools=[builder.native_tool(spec) for spec in specs],
        )
        return _wrap(build.factory(context), build.document.name)


def _wrap(made: object, name: str) -> LoadedAgent:
    from autogen import GroupChatManager

    match made:
        case GroupChatManager():
            builder.connect(made)
            return CoordinatingAgent(made)
        case ConversableAgent():
            builder.connect(made)
            return ConversingAgent(made)
        case (ConversableAgent() as first, GroupChatManager() as manager):
            builder.connect(first, manager)
            return CoordinatingAgent(manager, starter=first)
        case (ConversableAgent() as first, ConversableAgent() as second):
            builder.connect(first, second)
            return WorkingAgent(second, first)
        case _:
            raise AgentLoadError(
                f"the entrypoint returned {type(made).__name__}, which is not an AutoGen agent",
                next_step="return a ConversableAgent, a GroupChatManager, or a pair (who starts, who answers)",
                agent=name,
            )
