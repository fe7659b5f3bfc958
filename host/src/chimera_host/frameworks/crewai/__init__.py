"""Agents on CrewAI: crews of members and tasks, sequential or led by a manager, which CrewAI's own classes run.

The package has the framework's name, but imports are absolute: `import crewai` in here is the framework. `model` joins
CrewAI to the platform's model, `tools` its tools to the broker, `executor` takes waste out of a task's run, `build`
makes a crew from a definition, `run` answers calls with it, `steps` lets a call go on from what it has finished,
`quiet` switches off what calls home, prints or keeps books.
"""

import os
import tempfile
from pathlib import Path

from chimera_host.contract.agent import FrameworkName
from chimera_host.errors import AgentLoadError
from chimera_host.ports import AgentBuild, LoadedAgent

# CrewAI reads these when it is imported: no telemetry, no traces sent, no question about traces, no look for versions.
os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_TRACKING="true",
    CREWAI_DISABLE_VERSION_CHECK="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)
os.environ.setdefault("CREWAI_STORAGE_DIR", str(Path(tempfile.gettempdir(), f"chimera-crewai-{os.getuid()}")))

from chimera_host.agent_context import AgentContext
from chimera_host.frameworks.crewai import quiet
from chimera_host.frameworks.crewai.build import CrewPlan
from chimera_host.frameworks.crewai.model import shared_model
from chimera_host.frameworks.crewai.run import CodeAgent, CrewAgent, rehearse, runnable
from chimera_host.frameworks.crewai.tools import PlatformTool


class Adapter:
    """The `crewai` framework."""

    name: FrameworkName = "crewai"

    def preload(self) -> None:
        """Quieten CrewAI, then run one crew on a model that answers in place: a fork shares what that imports.

        With its event bus at work, CrewAI would leave threads behind, and a process forked then hangs at its first
        crew.
        """
        quiet.prepare()
        rehearse()

    def load(self, build: AgentBuild) -> LoadedAgent:
        """The declared crew, or whatever the agent's factory returns."""
        quiet.prepare()
        document = build.document
        if build.work_dir is not None:
            os.environ["CREWAI_STORAGE_DIR"] = str(Path(build.work_dir).parent / ".crewai")
        if build.factory is not None:
            specs = [spec for several in build.tools.values() for spec in several]
            context = AgentContext(
                document=document,
                work_dir=build.work_dir,
                tool_specs=build.tools,
                model=shared_model(),
                tools=[PlatformTool.of(spec) for spec in specs],
            )
            return CodeAgent(runnable(build.factory(context), document.name), document.name)
        behaviour = document.behaviour.crewai
        if behaviour is None:
            raise AgentLoadError(
                f"agent {document.name} has neither a `crewai` behaviour nor an entrypoint",
                next_step="give the definition a `behaviour: crewai:` section or a `source` with an entrypoint",
                agent=document.name,
            )
        return CrewAgent(CrewPlan.of(behaviour, build))
