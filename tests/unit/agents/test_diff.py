"""What a change is, and whether the version number says so."""

from collections.abc import Callable
from typing import Any

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.agents.diff import compare, least_version

Make = Callable[..., CompiledAgent]

SEARCH = {"type": "agent", "name": "search", "agent": "searcher"}
READ = {"type": "agent", "name": "read", "agent": "reader"}
CREW: dict[str, Any] = {
    "members": [{"name": name, "role": "r", "goal": "g", "backstory": "b"} for name in ("one", "two")],
    "tasks": [{"name": "first", "description": "d", "expected_output": "e", "member": "one"}],
}


def kinds(old: CompiledAgent, new: CompiledAgent) -> dict[str, str]:
    return {change.path: change.kind for change in compare(old.value, new.value).changes}


@pytest.mark.parametrize(
    ("changes", "path", "kind"),
    [
        ({"specification": {"framework": "function"}}, "agent.framework", "breaking"),
        ({"specification": {"runtime": "node-image:1"}}, "runtime", "breaking"),
        ({"capabilities": {"communication_protocols": ["http"]}}, "protocols", "breaking"),
        ({"capabilities": {"communication_protocols": ["http", "sse", "openai", "events"]}}, "protocols", "feature"),
        ({"capabilities": {"primary_functions": ["Audit an invoice", "More"]}}, "agent.primary_functions", "feature"),
        ({"capabilities": {"primary_functions": ["More"]}}, "agent.primary_functions", "breaking"),
        ({"capabilities": {"integration_points": ["models"]}}, "agent.reach", "feature"),
        ({"scaling": {"max_instances": 5}}, "max_instances", "breaking"),
        ({"scaling": {"max_instances": 50}}, "max_instances", "feature"),
        ({"budget": {"tokens_per_day": 5}}, "tokens_per_day", "breaking"),
        ({"metadata": {"description": "Better."}}, "agent.description", "fix"),
        ({"metadata": {"tags": ["x"]}}, "tags", "fix"),
        ({"specification": {"resources": {"cpu": "500m"}}}, "agent.resources.cpu_millicores", "fix"),
        ({"model": {"name": "large"}}, "agent.model.name", "breaking"),
        ({"model": {"temperature": 0.1}}, "agent.model.temperature", "fix"),
        ({"tools": [SEARCH]}, "agent.tools[search]", "feature"),
        ({"tests": [{"name": "t", "input": "i", "expect": {}}]}, "tests[t]", "fix"),
        ({"owner": {"team": "x"}}, "owner", "fix"),
        ({"retirement": {"after": "2030-01-01"}}, "retirement", "breaking"),
    ],
)
def test_one_change(compiled: Make, changes: dict[str, Any], path: str, kind: str) -> None:
    assert kinds(compiled(), compiled(**changes))[path] == kind


def test_tools_are_compared_by_name(compiled: Make) -> None:
    old, new = compiled(tools=[SEARCH, READ]), compiled(tools=[READ | {"description": "Reads."}, SEARCH])
    found = {path: kind for path, kind in kinds(old, new).items() if path.startswith("agent.tools")}
    assert found == {"agent.tools[read].description": "fix", "agent.tools": "fix"}
    assert kinds(old, compiled(tools=[READ]))["agent.tools[search]"] == "breaking"


def test_a_crew_is_compared_by_member_and_task(compiled: Make) -> None:
    def crew(**more: Any) -> CompiledAgent:
        return compiled(specification={"framework": "CrewAI"}, behaviour={"crewai": CREW | more})

    members = [*CREW["members"], {"name": "three", "role": "r", "goal": "g", "backstory": "b"}]
    tasks = [CREW["tasks"][0] | {"description": "other"}]
    assert kinds(crew(), crew(members=members, tasks=tasks, process="hierarchical")) == {
        "agent.behaviour.crewai.members[three]": "feature",
        "agent.behaviour.crewai.tasks[first].description": "fix",
        "agent.behaviour.crewai.process": "fix",
    }


def test_nothing_changed(compiled: Make) -> None:
    found = compare(compiled().value, compiled(metadata={"version": "2.0.0"}).value)
    assert (found.changes, found.kind, found.version_fits) == ((), None, True)


@pytest.mark.parametrize(
    ("old", "kind", "least"),
    [
        ("1.2.3", "fix", "1.2.4"),
        ("1.2.3", "feature", "1.3.0"),
        ("1.2.3", "breaking", "2.0.0"),
        ("0.2.3", "fix", "0.2.4"),
        ("0.2.3", "feature", "0.2.4"),
        ("0.2.3", "breaking", "0.3.0"),
        ("1.2.3", None, "1.2.3"),
    ],
)
def test_the_version_that_says_so(old: str, kind: Any, least: str) -> None:
    assert least_version(old, kind) == least


@pytest.mark.parametrize(("version", "fits"), [("1.0.1", False), ("1.1.0", True), ("2.0.0", True), ("0.9.0", False)])
def test_advice(compiled: Make, version: str, fits: bool) -> None:
    new = compiled(metadata={"version": version}, tools=[SEARCH])
    found = compare(compiled().value, new.value)
    assert found.kind == "feature"
    assert found.version_fits is fits
    assert version in found.advice


def test_a_later_prerelease_will_do(compiled: Make) -> None:
    old = compiled(metadata={"version": "2.0.0-rc.1"})
    for version, fits in (("2.0.0-rc.2", True), ("2.0.0-rc.1", False), ("2.0.0", True)):
        new = compiled(metadata={"version": version}, tools=[SEARCH])
        assert compare(old.value, new.value).version_fits is fits
