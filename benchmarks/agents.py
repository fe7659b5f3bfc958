"""The agents that are measured: the roster from ESCO, built as a user builds it, and dedicated ones for wake-ups."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.platform import Broken

ROOT = Path(__file__).parents[1]
_FRAMEWORK = re.compile(r"^  framework: (\w+)$", re.MULTILINE)
_KIND = re.compile(r"^    kind: (\w+)$", re.MULTILINE)
SKILLS, ALL = 13_939, 17_597


@dataclass(frozen=True, slots=True)
class Agent:
    """One definition on disk: its name, framework and shape."""

    name: str
    framework: str
    shape: str
    file: Path


@dataclass(frozen=True, slots=True)
class Roster:
    """All agents in a fixed order that mixes frameworks, and how many of them are skills."""

    agents: tuple[Agent, ...]

    def of(self, *frameworks: str) -> list[Agent]:
        """Those of some frameworks."""
        return [agent for agent in self.agents if agent.framework in frameworks]

    def shaped(self, framework: str, shape: str) -> list[Agent]:
        """Those of one shape."""
        return [agent for agent in self.agents if (agent.framework, agent.shape) == (framework, shape)]


def build(folder: Path, *, every: bool, limit: int | None) -> Roster:
    """Build the roster in `folder` and read what it holds."""
    uv = shutil.which("uv")
    if uv is None:
        raise Broken("uv is not on the path; it installs the package that carries ESCO")
    project = ROOT / "examples" / "esco"
    command = [uv, "run", "--project", str(project), "python", str(project / "build.py"), "--out", str(folder)]
    command += ["--all"] if every else []
    command += ["--limit", str(limit)] if limit is not None else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Broken(f"the roster could not be built: {done.stderr.strip()[-2000:]}")
    return Roster(tuple(read(file) for file in sorted(folder.glob("*/*.yaml"))))


def read(file: Path) -> Agent:
    """What a measurement needs to know of a definition, without parsing all of it."""
    text = file.read_text(encoding="utf-8")
    found = _FRAMEWORK.search(text)
    if found is None:
        raise Broken(f"{file} names no framework")
    shape = ""
    if found[1] == "AutoGen" and (kind := _KIND.search(text)):
        shape = kind[1]
    elif found[1] == "LangGraph":
        first = text.partition("    start:\n      - ")[2].partition("\n")[0]
        shape = {"prepare": "sequential", "facts": "parallel", "triage": "conditional"}.get(first, first)
    return Agent(file.stem, found[1], shape, file)


def dedicated(folder: Path, framework: str, count: int) -> list[Agent]:
    """Agents that each have a cell of their own, so that the first call of each wakes a sleeping one."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        name = f"sleeper-{framework.lower()}-{number}"
        file = folder / f"{name}.yaml"
        file.write_text(
            f'schema_version: "ADaC v2.0"\nmetadata:\n  name: {name}\n  version: "1.0.0"\n'
            f"  description: Answers from sleep.\nspecification:\n  framework: {framework}\n"
            "capabilities:\n  primary_functions: [answer]\nisolation: dedicated\n",
            encoding="utf-8",
        )
        made.append(Agent(name, framework, "", file))
    return made


def compared(roster: Roster, folder: Path) -> dict[str, Agent]:
    """By row, the agent that is called with and without Chimera: with one model call, and a workflow of several."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "one-step.yaml"
    file.write_text(
        'schema_version: "ADaC v2.0"\nmetadata:\n  name: one-step\n  version: "1.0.0"\n'
        "  description: Asks the model once.\nspecification:\n  framework: LangGraph\n"
        "capabilities:\n  primary_functions: [answer]\nbehaviour:\n  langgraph:\n    start:\n      - answer\n"
        '    nodes:\n      - {type: prompt, name: answer, prompt: "{input}", system_message: You answer.}\n',
        encoding="utf-8",
    )
    return {
        "share_autogen": roster.shaped("AutoGen", "conversational")[0],
        "share_langgraph": read(file),
        "share_workflow": roster.shaped("LangGraph", "sequential")[0],
    }
