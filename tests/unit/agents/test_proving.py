"""An agent's own tests as a definition declares them: their rules, and what they mean where they don't say."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chimera.agents.cases import REAL_SECONDS, SCRIPTED_SECONDS, AgentTest
from chimera.agents.code import missing_code
from chimera.agents.compile import CompiledAgent
from chimera.agents.diff import compare
from chimera.agents.errors import Fault
from chimera.agents.validate import check_data

Find = Callable[..., list[Fault]]
TOOLS = [
    {"type": "agent", "name": "ask", "agent": "other"},
    {"type": "mcp", "name": "files", "allow": ["read.me"], "url": "https://x"},
]
USES = {"autogen": {"kind": "conversational", "system_message": "s", "tools": ["ask", "files"]}}


def case(**changes: Any) -> dict[str, Any]:
    return {"name": "t", "input": "i", "expect": {"contains": ["x"]}, **changes}


def told(found: list[Fault]) -> dict[str, str]:
    return {fault.path: fault.severity for fault in found}


@pytest.mark.parametrize(
    ("changes", "path", "severity"),
    [
        ({"model": "real", "answers": [{"text": "x"}]}, "tests[0].model", "error"),
        ({"answers": [{}]}, "tests[0].answers[0]", "error"),
        (
            {"then": [{"input": "i", "expect": {"contains": ["y"]}, "answers": [{}]}]},
            "tests[0].then[0].answers[0]",
            "error",
        ),
        ({"tools": [{"tool": "aks", "output": "x"}]}, "tests[0].tools[0].tool", "error"),
        ({"answers": [{"tools": [{"name": "files_read"}]}]}, "tests[0].answers[0].tools[0].name", "error"),
        ({"integration": True, "tools": [{"tool": "ask", "output": "x"}]}, "tests[0].tools", "error"),
        ({"expect": {"check": "checks:polite"}}, "tests[0].expect.check", "error"),
        ({"expect": {"json_schema": {"type": "nothing"}}}, "tests[0].expect.json_schema", "error"),
        (
            {"then": [{"input": "i", "expect": {"json_schema": {"type": 1}}}]},
            "tests[0].then[0].expect.json_schema",
            "error",
        ),
        ({"expect": {}}, "tests[0].expect", "warning"),
        ({"answers": [{"text": "x"}], "runs": 3}, "tests[0].runs", "warning"),
    ],
)
def test_what_a_test_may_not_say(faults: Find, changes: dict[str, Any], path: str, severity: str) -> None:
    found = faults(tools=TOOLS, behaviour=USES, tests=[case(**changes)])
    assert told(found) == {path: severity}


def test_a_test_that_answers_for_all_that_its_agent_has(faults: Find) -> None:
    answers = [{"tools": [{"name": "ask", "arguments": {"message": "m"}}, {"name": "files_read_me"}]}, {"text": "x"}]
    scripted = [{"tool": "ask", "output": "o"}, {"tool": "files_read_me", "error": "e"}]
    assert faults(tools=TOOLS, behaviour=USES, tests=[case(answers=answers, tools=scripted)]) == []


def test_the_nearest_tool_is_proposed(faults: Find) -> None:
    [found] = faults(tools=TOOLS, behaviour=USES, tests=[case(tools=[{"tool": "files_readme", "output": "x"}])])
    assert found.suggestion == "files_read_me"


def test_a_check_is_looked_for_in_the_source_folder_and_is_a_use_of_it(least: dict[str, Any]) -> None:
    least["specification"] = {"framework": "AutoGen", "source": "code"}
    least["tests"] = [case(expect={"check": "checks:polite"})]
    checked = check_data(least)
    assert checked.warnings == ()
    assert list(missing_code(checked.definition, ["checks.py"])) == []
    [fault] = missing_code(checked.definition, ["check.py"])
    assert (fault.path, fault.suggestion) == ("tests[0].expect.check", "check:polite")


@pytest.mark.parametrize(
    ("changes", "scripted", "seconds"),
    [
        ({}, False, REAL_SECONDS),
        ({"answers": [{"text": "x"}]}, True, SCRIPTED_SECONDS),
        ({"then": [{"input": "i", "expect": {}, "answers": [{"text": "x"}]}]}, True, SCRIPTED_SECONDS),
        ({"model": "scripted"}, True, SCRIPTED_SECONDS),
        ({"model": "real", "timeout_seconds": 5}, False, 5.0),
    ],
)
def test_which_model_and_how_long(changes: dict[str, Any], scripted: bool, seconds: float) -> None:
    test = msgspec.convert(case(**changes), AgentTest)
    assert (test.is_scripted, test.seconds) == (scripted, seconds)
    assert len(test.turns) == 1 + len(changes.get("then", ()))


def test_another_test_is_a_fix_and_says_so(compiled: Callable[..., CompiledAgent]) -> None:
    [change] = compare(compiled(tests=[case()]).value, compiled(tests=[case(runs=2)]).value).changes
    assert (change.path, change.kind, change.reason) == ("tests[t].runs", "fix", "what is tested differs")
