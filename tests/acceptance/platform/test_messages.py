"""Agents of three frameworks write to each other and hear the replies, in all six directions, on a real platform."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FRAMEWORKS = {"autogen": "AutoGen", "crewai": "CrewAI", "langgraph": "LangGraph"}
BEHAVIOUR = {
    "autogen": "{autogen: {kind: task_execution, system_message: Write., tools: [%s]}}",
    "crewai": """
  crewai:
    members: [{name: one, role: Writer, goal: Write, backstory: You write., tools: [%s]}]
    tasks: [{name: only, member: one, description: "Do: {input}", expected_output: Something}]""",
    "langgraph": """
  langgraph:
    start: [loop]
    nodes: [{type: agent, name: loop, system_message: Write., tools: [%s]}]""",
}
DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: talk-{name}, version: "1.0.0", description: Writes to others.}}
specification: {{framework: {framework}}}
capabilities: {{primary_functions: [write], communication_protocols: [http, events]}}
tools:
{tools}
behaviour: {behaviour}
"""
PATIENCE = 120.0


def eventually(holds: Callable[[], Any]) -> Any:
    """What `holds` gives once it gives something."""
    ends = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.3)
    return found


@pytest.fixture
def talkers(platform: Any, tmp_path: Path) -> Any:
    """An agent of each framework that may write to the other two."""
    for name, framework in FRAMEWORKS.items():
        others = [other for other in FRAMEWORKS if other != name]
        tools = "\n".join(f"  - {{type: message, name: tell_{one}, agent: talk-{one}}}" for one in others)
        behaviour = BEHAVIOUR[name] % ", ".join(f"tell_{one}" for one in others)
        text = DEFINITION.format(name=name, framework=framework, tools=tools, behaviour=behaviour)
        (tmp_path / f"{name}.yaml").write_text(text)
    platform.ok("apply", str(tmp_path))
    for name in FRAMEWORKS:
        installed = platform.run("invoke", f"talk-{name}", "hello", "--no-stream")
        if "not installed" in installed.stderr:
            pytest.skip(installed.stderr)
    return platform


def test_each_framework_writes_to_each_other_and_hears_the_reply_in_its_session(talkers: Any) -> None:
    pairs = list(itertools.permutations(FRAMEWORKS, 2))
    for asker, other in pairs:
        answer = talkers.data("invoke", f"talk-{asker}", f"tell {other}", "--session", f"with-{other}")
        assert answer["output"] == "told", (asker, other)

    def heard(asker: str, other: str) -> list[str] | None:
        kept = talkers.data("sessions", "show", f"talk-{asker}", f"with-{other}")["state"]["messages"]
        said = [message["content"] for message in kept]
        return said if len(said) >= 4 else None

    for asker, other in pairs:
        said = eventually(lambda asker=asker, other=other: heard(asker, other))  # type: ignore[misc]
        assert said[0] == f"tell {other}" and said[1] == "told" and said[3] == "understood", (asker, other, said)
        assert said[2] == f"Agent talk-{other} answers your message 'hear':\n{other} listens", (asker, other)
    sent = talkers.ok("events", "tail", "--last", "100", "--type", "message.", "--output", "json").splitlines()
    assert len(sent) == 12 and not any("listens" in line for line in sent)
    assert talkers.data("events", "dead-letters", "list") == []
