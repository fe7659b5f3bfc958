"""Rules of an agent's own tests: what a schema can't say about them.

What a test expects must be checkable, and what it answers for must be there: a tool that it scripts is one of the
agent's, a check is code of the agent's own, an answer of a model is given where the model is scripted.
"""

import difflib
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from chimera.agents.cases import AgentTest, Expectation
from chimera.agents.errors import Fault
from chimera.agents.spec import NODE_RUNTIME, PYTHON_RUNTIME, Definition
from chimera_host.contract.tools import McpTool, full_name


def test_faults(definition: Definition) -> Iterator[Fault]:
    """What is wrong with the tests of a definition."""
    names = [test.name for test in definition.tests]
    for index, test in enumerate(definition.tests):
        path = f"tests[{index}]"
        if test.name in names[:index]:
            yield Fault(path=f"{path}.name", message=f"the test {test.name!r} stands twice")
        yield from _model(test, path)
        yield from _tools(definition, test, path)
    for path, expected in expectations(definition):
        if expected == Expectation():
            yield Fault(path=path, severity="warning", message="it expects nothing, so any answer will do")
        if expected.json_schema is not None:
            yield from json_schema_faults(expected.json_schema, f"{path}.json_schema")
        if expected.check is not None:
            yield from _check(definition, f"{path}.check")


def expectations(definition: Definition) -> Iterator[tuple[str, Expectation]]:
    """All that the tests expect, with its path."""
    for index, test in enumerate(definition.tests):
        yield f"tests[{index}].expect", test.expect
        for number, turn in enumerate(test.then):
            yield f"tests[{index}].then[{number}].expect", turn.expect


def tools_seen(definition: Definition) -> list[str]:
    """The tools of an agent by the names under which a model sees them."""
    seen: list[str] = []
    for tool in definition.tools:
        if isinstance(tool, McpTool):
            seen += [full_name(tool.name, name) for name in tool.allow]
        else:
            seen.append(tool.name)
    return seen


def json_schema_faults(schema: dict[str, Any], path: str) -> Iterator[Fault]:
    """JSON data that is no JSON Schema would fail every call that it is to check."""
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.Draft202012Validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(getattr(error, "message", error)).partition("\n")[0][:200]
        yield Fault(path=path, message=f"not a JSON Schema: {reason}", allowed="JSON Schema, draft 2020-12")


def _model(test: AgentTest, path: str) -> Iterator[Fault]:
    answers = test.all_answers
    if test.model == "real" and answers:
        yield Fault(
            path=f"{path}.model", message="a real model takes no answers", allowed="scripted, or a test without answers"
        )
    for turn_path, turn in (
        (path if number == 0 else f"{path}.then[{number - 1}]", turn) for number, turn in enumerate(test.turns)
    ):
        for number, answer in enumerate(turn.answers):
            if answer.text is None and not answer.tools:
                yield Fault(
                    path=f"{turn_path}.answers[{number}]",
                    message="the model says nothing",
                    allowed="text, tools or both",
                )
    if test.is_scripted and test.runs > 1:
        yield Fault(
            path=f"{path}.runs",
            severity="warning",
            message="a scripted model says the same in each run",
            allowed="runs with a real model",
        )


def _tools(definition: Definition, test: AgentTest, path: str) -> Iterator[Fault]:
    if test.integration and test.tools:
        yield Fault(
            path=f"{path}.tools", message="an integration test runs the tools themselves", allowed="integration: false"
        )
    seen = tools_seen(definition)
    named = [(f"{path}.tools[{number}].tool", one.tool) for number, one in enumerate(test.tools)]
    named += [
        (f"{turn_path}.answers[{number}].tools[{place}].name", asked.name)
        for turn_path, answers in (
            (path, test.answers),
            *((f"{path}.then[{number}]", turn.answers) for number, turn in enumerate(test.then)),
        )
        for number, answer in enumerate(answers)
        for place, asked in enumerate(answer.tools)
    ]
    for where, name in named:
        if name not in seen:
            near = difflib.get_close_matches(name, seen, n=1)
            yield Fault(
                path=where,
                message=f"there is no tool {name!r}",
                allowed=", ".join(seen) or "a tool listed under `tools` of the definition",
                suggestion=near[0] if near else None,
            )


def _check(definition: Definition, path: str) -> Iterator[Fault]:
    if definition.specification.runtime == NODE_RUNTIME:
        yield Fault(path=path, message="the host for Node runs no checks", allowed=PYTHON_RUNTIME)
    if definition.specification.source is None:
        yield Fault(path=path, message="a check is code of the agent's own", allowed="specification.source")
