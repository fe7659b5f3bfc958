"""Agents' own tests on a real platform, by the command line: every framework, and every way to go wrong."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

CODE = """\
import os, signal, sys, time


def look_up(order: int) -> str:
    '''Look an order up.'''
    from pathlib import Path
    Path({mark!r}).write_text("a tool ran")
    return f"order {{order}} was shipped"


def thanks(answer, case):
    if "Thank you" not in answer:
        return f"it doesn't thank for {{case.input!r}}"


def dies(answer, case):
    os.kill(os.getpid(), signal.SIGKILL)


def never_ends(answer, case):
    while True:
        time.sleep(0.01)


def chatters(answer, case):
    for _ in range(4):
        sys.stdout.write("x" * 1_000_000)
"""
HEAD = """\
schema_version: "ADaC v2.0"
metadata: {{name: tried-{name}, version: "1.0.0", description: Looks orders up.}}
specification: {{framework: {framework}, source: ./src}}
capabilities: {{primary_functions: [look orders up]}}
owner: {{team: tried}}
tools: [{{type: function, name: look_up, function: "orders:look_up"}}]
behaviour: {behaviour}
tests:
"""
FRAMEWORKS = {
    "function": ("function", "{function: {system_message: Look it up., tools: [look_up]}}"),
    "autogen": ("AutoGen", "{autogen: {kind: task_execution, system_message: Look., tools: [look_up]}}"),
    "crewai": (
        "CrewAI",
        "{crewai: {members: [{name: one, role: Clerk, goal: Look, backstory: You look., tools: [look_up]}], "
        'tasks: [{name: first, member: one, description: "{input}", expected_output: The state}]}}',
    ),
    "langgraph": (
        "LangGraph",
        "{langgraph: {start: [loop], nodes: [{type: agent, name: loop, system_message: Look., tools: [look_up]}]}}",
    ),
}
SCRIPTED = """\
  - name: looks an order up
    input: "Where is order 7?"
    answers:
      - tools: [{name: look_up, arguments: {order: 7}}]
      - {text: "It was shipped. Thank you! TERMINATE"}
    tools: [{tool: look_up, arguments: {order: 7}, output: "order 7 was shipped"}]
    expect: {contains: [shipped], excludes: [lost], check: "orders:thanks"}
"""
WRONG = """\
  - {name: never ends, input: hi, answers: [{text: hi}], timeout_seconds: 1, expect: {check: "orders:never_ends"}}
  - {name: kills its host, input: hi, answers: [{text: hi}], expect: {check: "orders:dies"}}
  - {name: chatters, input: hi, answers: [{text: hi}], expect: {check: "orders:chatters"}}
  - name: asks too much
    input: hi
    answers: [{tools: [{name: look_up, arguments: {order: 1}}]}]
    tools: [{tool: look_up, output: "order 1 was lost"}]
    expect: {contains: [x]}
  - name: uses a tool that nobody answers for
    input: hi
    answers: [{tools: [{name: look_up, arguments: {order: 1}}]}, {text: done}]
    expect: {contains: [done]}
  - {name: says too much, input: hi, answers: [{text: TOO_LONG}], expect: {excludes: [y]}}
  - name: speaks of what was said
    input: first
    answers: [{text: one}]
    expect: {contains: [one]}
    then: [{input: second, answers: [{text: two}], expect: {json_schema: {type: object}}}]
"""
REAL = """\
  - {name: the real model, input: "good day", runs: 3, pass_share: 0.6, expect: {contains: [good day]}}
  - {name: a rubric, input: hello, expect: {rubric: "It greets."}}
  - {name: a rubric that is not met, input: hello, expect: {rubric: "It does the impossible."}}
"""
INTEGRATION = """\
  - name: with the tool itself
    integration: true
    input: "Where is order 7?"
    answers: [{tools: [{name: look_up, arguments: {order: 7}}]}, {text: "seen"}]
    expect: {contains: [seen]}
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]) -> Iterator[Any]:
    """A platform with a judge, whose tests read short answers alone."""
    home = tmp_path_factory.mktemp("tried") / "home"
    settings = {"CHIMERA_TRIALS__JUDGE_MODEL": "default", "CHIMERA_TRIALS__ANSWER_BYTES": "2000"}
    settings["CHIMERA_SCANNING__SCANNERS"] = "secrets"
    platform = new_platform(home, **settings)
    yield platform
    assert platform.stop() == 0


def definition(folder: Path, name: str, framework: str, *tests: str) -> Path:
    """A definition with its source folder."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "orders.py").write_text(CODE.format(mark=str(folder / "ran")))
    kind, behaviour = FRAMEWORKS[framework]
    file = folder / f"{name}.yaml"
    file.write_text(HEAD.format(name=name, framework=kind, behaviour=behaviour) + "".join(tests))
    return file


def outcomes(told: dict[str, Any]) -> dict[str, str]:
    return {one["case"]: one["outcome"] for one in told["results"]}


def test_every_framework_runs_its_agents_tests_and_none_of_their_tools(tried: Any, tmp_path: Path) -> None:
    for framework in FRAMEWORKS:
        definition(tmp_path, framework, framework, SCRIPTED)
    told = tried.data("test", str(tmp_path / "*.yaml"))
    assert {(one["agent"], one["outcome"]) for one in told["results"]} == {
        (f"tried-{framework}", "passed") for framework in FRAMEWORKS
    }, told
    assert not (tmp_path / "ran").exists(), "no tool ran"
    assert tried.data("get", "agents") == [] or all("tried" not in one["name"] for one in tried.data("get", "agents"))
    # Nothing of it is left where agents live.
    assert tried.data("test", "--list")[0]["state"] == "done"


def test_what_goes_wrong_is_told_and_harms_nobody_else(tried: Any, tmp_path: Path) -> None:
    definition(tmp_path, "wrong", "function", SCRIPTED, WRONG.replace("TOO_LONG", "x" * 3_000))
    report = tmp_path / "report.xml"
    done = tried.run("test", str(tmp_path / "wrong.yaml"), "--junit", str(report), "--output", "json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    details = {one["case"]: one["detail"] for one in told["results"]}
    assert outcomes(told) == {
        "looks an order up": "passed",
        "never ends": "failed",
        "kills its host": "failed",
        "chatters": "passed",
        "asks too much": "failed",
        "uses a tool that nobody answers for": "failed",
        "says too much": "failed",
        "speaks of what was said": "failed",
    }, details
    assert "did not end within 1 s" in details["never ends"]
    assert "its host ended under it" in details["kills its host"]
    assert "script-over" in details["asks too much"]
    assert "trial-misfit" in details["uses a tool that nobody answers for"]
    assert "trials.answer_bytes" in details["says too much"]
    assert details["speaks of what was said"].startswith("turn 2: the answer is no JSON")
    root = ElementTree.parse(report).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("8", "6", "0")


def test_a_live_agent_is_tested_with_the_real_model_a_judge_and_its_own_tools(tried: Any, tmp_path: Path) -> None:
    tried.ok("apply", str(definition(tmp_path, "live", "function", REAL, INTEGRATION)))
    done = tried.run("test", "tried-live", "--output", "json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and outcomes(told) == {
        "the real model": "passed",
        "a rubric": "passed",
        "a rubric that is not met": "failed",
        "with the tool itself": "passed",
    }, told
    judged = {one["case"]: one["tries"][0].get("judged") for one in told["results"]}
    assert judged["a rubric"] == ["it greets"] and judged["a rubric that is not met"] == ["nobody can"]
    assert (tmp_path / "ran").read_text() == "a tool ran", "an integration test runs its tools"
    # Production's agent was neither called nor spent from.
    assert tried.data("sessions", "list") == []
    again = tried.run("test", "--run", told["run"]["run"])
    assert again.returncode == 1 and "a rubric that is not met" in again.stdout


def test_faulty_definitions_and_unknown_agents_are_refused(tried: Any, tmp_path: Path) -> None:
    file = definition(tmp_path, "bad", "function", SCRIPTED.replace("orders:thanks", "orders_:thanks"))
    done = tried.run("test", str(file))
    assert done.returncode == 65 and "orders_" in done.stderr
    assert tried.run("test", "nobody").returncode == 65
    assert tried.run("test").returncode == 64
    assert tried.run("test", "--run", "tests_nothing").returncode == 65


def until_out_of(tried: Any, change: str, *states: str) -> dict[str, Any]:
    """The change once it is in none of these states."""
    for _ in range(100):
        shown: dict[str, Any] = tried.data("--tenant", "staged", "change", "show", change)
        if shown["state"] not in states:
            break
        time.sleep(0.3)
    return shown


def test_a_change_is_tested_and_evaluated_in_staging_before_it_is_live(tried: Any, tmp_path: Path) -> None:
    tried.ok("tenants", "create", "staged")
    file = definition(tmp_path, "staged", "function", SCRIPTED + REAL.partition("  - {name: a rubric that")[0])
    change = tried.data("--tenant", "staged", "change", "open", str(file))["id"]
    shown = until_out_of(tried, change, "open", "building")
    assert [one["outcome"] for one in shown["verdicts"] if one["check"] == "own-tests"] == ["passed"], shown
    assert shown["state"] == "awaiting-approval", "an agent with code of its own is of high risk"
    for name in ("one", "two"):
        key = tried.data("--tenant", "staged", "keys", "create", name, "--role", "approver")["token"]
        tried.ok("--tenant", "staged", "--key", key, "change", "approve", change)
    shown = until_out_of(tried, change, "awaiting-approval", "staging")
    [staged] = [one for one in shown["verdicts"] if one["stage"] == "staging" and one.get("agent")]
    assert (staged["outcome"], staged["evidence"]["calls"], staged["evidence"]["errors"]) == ("passed", 20, 0), shown
    assert shown["state"] in ("rolling-out", "done")
    assert not (tmp_path / "ran").exists()


DESK = """\
schema_version: "ADaC v2.0"
metadata: {{name: replayed, version: "{version}", description: Says where orders are.}}
specification: {{framework: LangGraph}}
capabilities: {{primary_functions: [say where orders are]}}
owner: {{team: tried}}
service_level_objective: {{latency_p95: 60s}}
behaviour: {{langgraph: {{start: [say], nodes: [{{type: prompt, name: say, prompt: "{prompt}"}}]}}}}
tests: [{{name: thanks, input: "Where is order 7?", expect: {{contains: ["Thank you"]}}}}]
"""


def through(tried: Any, change: str) -> dict[str, Any]:
    """The change once it has left staging, approved by two people where it wants them."""
    tenant = ("--tenant", "replayed")
    for _ in range(400):
        shown: dict[str, Any] = tried.data(*tenant, "change", "show", change)
        if shown["state"] == "awaiting-approval" and not shown.get("approvals"):
            for number in range(2):
                key = tried.data(*tenant, "keys", "create", f"p{number}-{change[-6:].lower()}", "--role", "approver")
                tried.run(*tenant, "--key", key["token"], "change", "approve", change)
        if shown["state"] not in ("open", "building", "awaiting-approval", "staging"):
            break
        time.sleep(0.3)
    return shown


def revision_of(tried: Any) -> str:
    """The agent's live revision."""
    [row] = tried.data("--tenant", "replayed", "get", "agents", "-q", "replayed")
    revision: str = row["revision"]
    return revision


def ask(tried: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A request as callers make it."""
    headers = {"Authorization": f"Bearer {tried.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{tried.url}/v1/tenants/replayed/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def test_a_change_that_answers_earlier_callers_worse_is_stopped_though_its_own_cases_pass(
    tried: Any, tmp_path: Path
) -> None:
    tried.ok("tenants", "create", "replayed")
    file = tmp_path / "replayed.yaml"
    file.write_text(DESK.format(version="1.0.0", prompt="{input}"))
    tried.ok("--tenant", "replayed", "apply", str(file))
    live = revision_of(tried)
    for number in range(10, 18):
        said = {"input": f"Where is order {number}?", "session": f"talk-{number}"}
        assert ask(tried, "agents/replayed/invoke", said)["output"] == "It was shipped. Thank you!"
    tasks = [{"agent": "replayed", "key": f"k{number}", "input": f"And order {number}?"} for number in range(20, 28)]
    ask(tried, "tasks", {"tasks": tasks})
    for _ in range(200):
        if len(tried.data("--tenant", "replayed", "tasks", "list", "--state", "succeeded")) == 8:
            break
        time.sleep(0.2)

    file.write_text(DESK.format(version="1.1.0", prompt="Briefly: {input}"))
    change = tried.data("--tenant", "replayed", "change", "open", str(file))["id"]
    shown = through(tried, change)
    found = {one["check"]: one for one in shown["verdicts"] if one["stage"] == "staging" and one.get("agent")}
    assert (shown["state"], found["staging"]["outcome"]) == ("failed", "passed"), found["staging"]
    evidence = found["replay"]["evidence"]
    assert (found["replay"]["outcome"], evidence["inputs"], evidence["worse_answers"]) == ("failed", 16, 16), found
    assert (evidence["sessions"], evidence["tasks"], evidence["better_answers"]) == (8, 8, 0)
    assert evidence["missed"] == {"contains 'Thank you'": 16} and not evidence["low_evidence"]
    assert "order 1" not in json.dumps(shown["verdicts"]), "what callers said is told to nobody"
    # Production saw nothing of it.
    assert revision_of(tried) == live
    assert len(tried.data("--tenant", "replayed", "sessions", "list")) == 8

    file.write_text(DESK.format(version="1.1.0", prompt="Kindly: {input}"))
    shown = through(tried, tried.data("--tenant", "replayed", "change", "open", str(file))["id"])
    found = {one["check"]: one for one in shown["verdicts"] if one["stage"] == "staging" and one.get("agent")}
    assert "replay" in found, shown
    assert (found["replay"]["outcome"], found["replay"]["evidence"]["inputs"]) == ("passed", 16), shown
    assert shown["state"] in ("rolling-out", "done")
