"""Finished steps on a real platform: a tool kills its host with SIGKILL, and the work goes on on another host."""

import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

TOOL = """\
import os
import signal
from pathlib import Path

from chimera_host.broker.context import ToolContext


def act(what: str, context: ToolContext) -> str:
    '''Act.'''
    log = Path({log!r})
    line = f"{{what}} {{context.idempotency_key}}"
    first = not log.exists() or line not in log.read_text()
    with log.open("a") as file:
        file.write(line + "\\n")
    if what == "second" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{{what}} done"
"""
DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: steps-{name}, version: "1.0.0", description: Acts twice.}}
specification: {{framework: {framework}, source: ./src}}
capabilities: {{primary_functions: [act]}}
tools: [{{type: function, name: act, function: "tools:act"}}]
behaviour: {behaviour}
"""
AUTOGEN = "{autogen: {kind: task_execution, system_message: Act., tools: [act]}}"
CREWAI = """
  crewai:
    members: [{name: one, role: Worker, goal: Work, backstory: You work., tools: [act]}]
    tasks:
      - {name: first, member: one, description: "Do: {input}", expected_output: Something}
      - {name: second, member: one, description: "{input}, the rest", expected_output: Something}
"""
LANGGRAPH = """
  langgraph:
    start: [open]
    nodes:
      - {type: prompt, name: open, prompt: "open", next: [loop]}
      - {type: agent, name: loop, system_message: Act., tools: [act], next: [close]}
      - {type: prompt, name: close, prompt: "{loop}"}
"""


class Acting:
    """An agent of one framework that acts twice, and what it did."""

    def __init__(self, platform: Any, folder: Path, framework: str, behaviour: str) -> None:
        self.platform = platform
        self.name = f"steps-{framework.lower()}"
        self.log = folder / "log"
        (folder / "src").mkdir()
        (folder / "src" / "tools.py").write_text(TOOL.format(log=str(self.log)))
        definition = DEFINITION.format(name=framework.lower(), framework=framework, behaviour=behaviour)
        (folder / "agent.yaml").write_text(definition)
        platform.ok("apply", str(folder / "agent.yaml"))
        installed = platform.run("invoke", self.name, "hello", "--no-stream")
        if "not installed" in installed.stderr:
            pytest.skip(installed.stderr)
        self.before = self.metered()

    def metered(self) -> tuple[int, int]:
        """Model calls paid so far, and stored answers given again."""
        headers = {"Authorization": f"Bearer {self.platform.key}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.platform.url}/metrics", headers=headers)) as answer:
            text = answer.read().decode()
        paid = re.search(r'^chimera_gateway_model_calls_total{model="default",outcome="ok"} (\S+)', text, re.MULTILINE)
        again = re.search(r"^chimera_gateway_model_replays_total (\S+)", text, re.MULTILINE)
        return int(float(paid[1])) if paid else 0, int(float(again[1])) if again else 0

    def spent(self) -> tuple[int, int]:
        """The same since the beginning."""
        paid, again = self.metered()
        return paid - self.before[0], again - self.before[1]

    def check_tools(self) -> None:
        """The first was called once, the second twice with one key."""
        (first, one), (second, two), (third, three) = (line.split() for line in self.log.read_text().splitlines())
        assert (first, second, third) == ("first", "second", "second")
        assert one != two == three != "None"


def test_an_autogen_chat_goes_on_when_its_session_is_resumed(platform: Any, tmp_path: Path) -> None:
    """Nobody said that a tool may run twice, so the caller decides; what is finished by then is not asked again."""
    acting = Acting(platform, tmp_path, "AutoGen", AUTOGEN)
    lost = platform.run("invoke", acting.name, "begin", "--session", "work", "--no-stream")
    assert lost.returncode == 69 and "goes on from its last finished step" in lost.stderr
    assert acting.spent() == (2, 0)
    answer = platform.data("invoke", acting.name, "--session", "work", "--resume")
    assert answer["output"] == "all done"
    acting.check_tools()
    assert acting.spent() == (3, 0)
    kept = platform.data("sessions", "show", acting.name, "work")["state"]["messages"]
    assert [message["content"] for message in kept] == ["begin", "all done"]


def test_a_crew_goes_on_by_itself_where_its_caller_gave_a_key(platform: Any, tmp_path: Path) -> None:
    """Killed in its second task: the first is not done again, and the second pays nothing of its model again."""
    acting = Acting(platform, tmp_path, "CrewAI", CREWAI)
    answer = platform.data("invoke", acting.name, "begin", "--key", "crew-1")
    assert answer["output"] == "all done"
    acting.check_tools()
    assert acting.spent() == (4, 1)
    again = platform.data("invoke", acting.name, "begin", "--key", "crew-1")
    assert (again["output"], again["run"]) == (answer["output"], answer["run"]) and acting.spent() == (4, 1)


def test_a_graph_goes_on_inside_the_loop_of_one_of_its_nodes(platform: Any, tmp_path: Path) -> None:
    """Killed in a tool of an agent's loop, which is the second of three nodes: only that tool runs again."""
    acting = Acting(platform, tmp_path, "LangGraph", LANGGRAPH)
    lost = platform.run("invoke", acting.name, "begin", "--session", "work", "--subject", "annabelle", "--no-stream")
    assert lost.returncode == 69 and "goes on from its last finished step" in lost.stderr
    assert acting.spent() == (3, 0)
    exported = platform.ok("sessions", "export", "--subject", "annabelle")
    assert exported.count('"record":"checkpoint"') > 3
    answer = platform.data("invoke", acting.name, "--session", "work", "--subject", "annabelle", "--resume")
    assert answer["output"] == "You said: all done"
    acting.check_tools()
    assert acting.spent() == (5, 0)
    assert '"record":"checkpoint"' not in platform.ok("sessions", "export", "--subject", "annabelle")
    assert "sessions\t1" in platform.ok("sessions", "erase", "annabelle", "--yes")


def test_a_graph_with_a_key_goes_on_by_itself(platform: Any, tmp_path: Path) -> None:
    acting = Acting(platform, tmp_path, "LangGraph", LANGGRAPH)
    answer = platform.data("invoke", acting.name, "begin", "--key", "graph-1")
    assert answer["output"] == "You said: all done"
    acting.check_tools()
    assert acting.spent() == (5, 0)
