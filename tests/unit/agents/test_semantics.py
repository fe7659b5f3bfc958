"""Each rule between fields: what it refuses, at which path, and what it proposes."""

from collections.abc import Callable
from typing import Any

import pytest

from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.validate import check_data

Find = Callable[..., list[Fault]]

AUTOGEN = {"autogen": {"kind": "conversational", "system_message": "Hello."}}
CREW = {
    "crewai": {
        "members": [{"name": "one", "role": "r", "goal": "g", "backstory": "b"}],
        "tasks": [{"name": "first", "description": "d", "expected_output": "e", "member": "one"}],
    }
}


def graph(*nodes: dict[str, Any], start: list[str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "specification": {"framework": "LangGraph"},
        "behaviour": {"langgraph": {"nodes": list(nodes), "start": start or [nodes[0]["name"]], **more}},
    }


def prompt(name: str, *following: str, text: str = "x", **more: Any) -> dict[str, Any]:
    return {"type": "prompt", "name": name, "prompt": text, "next": list(following), **more}


def branch(name: str, to: str, otherwise: str, **test: Any) -> dict[str, Any]:
    return {
        "type": "branch",
        "name": name,
        "cases": [{"to": to, **(test or {"contains": "x"})}],
        "otherwise": otherwise,
    }


def at(found: list[Fault], path: str) -> Fault:
    matching = [fault for fault in found if fault.path == path]
    assert matching, f"nothing at {path}; found {[str(fault) for fault in found]}"
    return matching[0]


def test_the_shortest_definition_has_no_fault(faults: Find) -> None:
    assert faults() == []


ENDPOINT = {"url": "https://fn.example/answer"}


def function(*, runtime: str = "python:3.11-slim", **behaviour: Any) -> dict[str, Any]:
    """Changes that make a definition one of `framework: function` with this behaviour."""
    return {"specification": {"framework": "function", "runtime": runtime}, "behaviour": {"function": behaviour}}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"specification": {"resources": {"cpu": "99m"}}}, "specification.resources.cpu"),
        ({"specification": {"resources": {"cpu": "2.001"}}}, "specification.resources.cpu"),
        ({"specification": {"resources": {"memory": "127Mi"}}}, "specification.resources.memory"),
        ({"specification": {"resources": {"memory": "5Gi"}}}, "specification.resources.memory"),
        ({"specification": {"resources": {"storage": "1Mi"}}}, "specification.resources.storage"),
        ({"specification": {"resources": {"storage": "11Gi"}}}, "specification.resources.storage"),
        ({"scaling": {"min_instances": 3, "max_instances": 2}}, "scaling.min_instances"),
        ({"scaling": {"idle_timeout": "1ms"}}, "scaling.idle_timeout"),
        ({"scaling": {"idle_timeout": "2d"}}, "scaling.idle_timeout"),
        ({"service_level_objective": {"latency_p95": "2h"}}, "service_level_objective.latency_p95"),
        ({"behaviour": CREW}, "behaviour.crewai"),
        ({"specification": {"entrypoint": "agent:factory"}}, "specification.entrypoint"),
        ({"specification": {"entrypoint": "a:b", "source": "s"}, "behaviour": AUTOGEN}, "behaviour"),
        ({"specification": {"entrypoint": "a:b", "source": "../s"}}, "specification.source"),
        ({"specification": {"entrypoint": "a:b", "source": "/s"}}, "specification.source"),
        ({"specification": {"entrypoint": "a:b", "source": "s/../../t"}}, "specification.source"),
        ({"specification": {"entrypoint": "a:b", "source": "."}}, "specification.source"),
        (function(), "behaviour.function"),
        (function(endpoint=ENDPOINT, system_message="m"), "behaviour.function.system_message"),
        (function(endpoint=ENDPOINT, tools=["t"]), "behaviour.function.tools"),
        ({**function(endpoint=ENDPOINT), "tools": [{"type": "agent", "name": "t", "agent": "b"}]}, "tools"),
        (function(endpoint=ENDPOINT, runtime="node:18-alpine"), "specification.runtime"),
        (function(endpoint={"url": "http://fn#part"}), "behaviour.function.endpoint.url"),
        (function(endpoint={"url": "https://user:p@fn.example/"}), "behaviour.function.endpoint.url"),
        (function(endpoint={**ENDPOINT, "credential": "plain"}), "behaviour.function.endpoint.credential"),
        ({"tools": [{"type": "function", "name": "f", "function": "m:f"}]}, "tools[0].function"),
        ({"tools": [{"type": "mcp", "name": "m", "allow": ["x"]}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "name": "m", "allow": ["x"], "url": "http://x", "command": ["x"]}]}, "tools[0]"),
        (
            {"tools": [{"type": "agent", "name": "a", "agent": "b"}, {"type": "agent", "name": "a", "agent": "c"}]},
            "tools[1].name",
        ),
        ({"tools": [{"type": "agent", "name": "a", "agent": "auditor"}]}, "tools[0].agent"),
        (
            {
                "specification": {"source": "s"},
                "tools": [{"type": "function", "name": "f", "function": "m:f", "parameters": {"type": "strnig"}}],
            },
            "tools[0].parameters",
        ),
        (
            {"tests": [{"name": "t", "input": "i", "expect": {"json_schema": {"minimum": "x"}}}]},
            "tests[0].expect.json_schema",
        ),
        (
            {"tests": [{"name": "t", "input": "i", "expect": {}}, {"name": "t", "input": "j", "expect": {}}]},
            "tests[1].name",
        ),
        ({"retirement": {"after": "2027-02-30"}}, "retirement.after"),
        ({"retirement": {"after": "2027-02-03", "replaced_by": "auditor"}}, "retirement.replaced_by"),
        ({"behaviour": {"autogen": {"kind": "coordination", "system_message": "x"}}}, "behaviour.autogen.kind"),
        (
            {"behaviour": {"autogen": {**AUTOGEN["autogen"], "participants": [{"name": "p", "role": "r"}]}}},
            "behaviour.autogen.participants",
        ),
        (
            {
                "behaviour": {
                    "autogen": {
                        "kind": "coordination",
                        "system_message": "x",
                        "participants": [{"name": "p", "role": "r"}, {"name": "p", "role": "s"}],
                    }
                }
            },
            "behaviour.autogen.participants[1].name",
        ),
    ],
)
def test_a_rule_names_the_field_at_fault(faults: Find, changes: dict[str, Any], path: str) -> None:
    assert at(faults(**changes), path).severity == "error"


def test_a_tool_that_is_not_there_is_named_with_its_nearest(faults: Find) -> None:
    fault = at(
        faults(
            tools=[{"type": "agent", "name": "search", "agent": "searcher"}],
            behaviour={"autogen": {**AUTOGEN["autogen"], "tools": ["serach"]}},
        ),
        "behaviour.autogen.tools[0]",
    )
    assert fault.suggestion == "search"


def test_a_tool_that_nothing_uses_is_a_warning(faults: Find) -> None:
    tools = [{"type": "agent", "name": "search", "agent": "searcher"}]
    assert at(faults(tools=tools, behaviour=AUTOGEN), "tools[0]").severity == "warning"
    assert faults(tools=tools) == []  # a derived behaviour uses them all


def test_a_crews_references_are_checked(faults: Find) -> None:
    crew = {
        "members": [{"name": "writer", "role": "r", "goal": "g", "backstory": "b"}] * 2,
        "tasks": [
            {"name": "t", "description": "d", "expected_output": "e", "member": "writre", "context": ["u"]},
            {"name": "u", "description": "d", "expected_output": "e", "member": "writer", "context": ["t", "u"]},
        ],
    }
    found = faults(specification={"framework": "CrewAI"}, behaviour={"crewai": crew})
    assert at(found, "behaviour.crewai.tasks[0].member").suggestion == "writer"
    assert at(found, "behaviour.crewai.tasks[0].context[0]").allowed == "none: this is the first task"
    assert at(found, "behaviour.crewai.tasks[1].context[1]").allowed == "t"
    assert at(found, "behaviour.crewai.members[1].name")
    assert len(found) == 4


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        (graph(prompt("a", "b")), "behaviour.langgraph.nodes[0].next[0]", "no node 'b'"),
        (graph(prompt("a"), start=["z"]), "behaviour.langgraph.start[0]", "no node 'z'"),
        (graph(prompt("a", "b"), prompt("b", "a"), start=["a"]), "behaviour.langgraph.nodes", "a → b → a"),
        (graph(prompt("a", "a")), "behaviour.langgraph.nodes", "a → a"),
        (graph(prompt("a", on_error="a")), "behaviour.langgraph.nodes", "circle"),
        (graph(prompt("a"), prompt("b")), "behaviour.langgraph.nodes[1]", "nothing leads"),
        (graph(prompt("a"), prompt("a")), "behaviour.langgraph.nodes[1].name", "twice"),
        (graph(prompt("a", "b"), prompt("b"), start=["a", "b"]), "behaviour.langgraph.start[1]", "another leads to it"),
        (graph(prompt("a"), start=["a", "a"]), "behaviour.langgraph.start[1]", "twice"),
        (graph(prompt("input")), "behaviour.langgraph.nodes[0].name", "taken"),
        (graph(prompt("__start__")), "behaviour.langgraph.nodes[0].name", "taken"),
        (graph(prompt("a", "b", text="{b}"), prompt("b")), "behaviour.langgraph.nodes[0].prompt", "doesn't run before"),
        (graph(prompt("a", text="{a}")), "behaviour.langgraph.nodes[0].prompt", "doesn't run before"),
        (graph(branch("a", "b", "c"), prompt("b")), "behaviour.langgraph.nodes[0].otherwise", "no node 'c'"),
        (
            graph(branch("a", "b", "b", contains="x", equals="y"), prompt("b")),
            "behaviour.langgraph.nodes[0].cases[0]",
            "exactly one",
        ),
        (
            graph(branch("a", "b", "b", matches="("), prompt("b")),
            "behaviour.langgraph.nodes[0].cases[0].matches",
            "not a regular expression",
        ),
        (
            graph(branch("a", "b", "b", matches="(a+)+"), prompt("b")),
            "behaviour.langgraph.nodes[0].cases[0].matches",
            "for ever",
        ),
        (
            graph({"type": "tool", "name": "a", "tool": "t", "arguments": {"q": "{b}"}, "next": ["b"]}, prompt("b")),
            "behaviour.langgraph.nodes[0].arguments.q",
            "doesn't run before",
        ),
    ],
)
def test_a_graph_that_cannot_run_is_refused(faults: Find, changes: dict[str, Any], path: str, words: str) -> None:
    assert words in at(faults(**changes), path).message


def test_words_in_braces_that_are_no_node_stay_as_they_are(faults: Find) -> None:
    assert faults(**graph(prompt("a", "b", text='{"json": 1} {whatever} {input}'), prompt("b", text="{a}"))) == []


def test_a_case_needs_a_test(faults: Find) -> None:
    changes = graph({"type": "branch", "name": "a", "cases": [{"to": "b"}], "otherwise": "b"}, prompt("b"))
    assert at(faults(**changes), "behaviour.langgraph.nodes[0].cases[0]")


def test_a_tool_node_may_name_one_tool_of_a_server(faults: Find) -> None:
    changes = graph({"type": "tool", "name": "a", "tool": "files_read"})
    changes["tools"] = [{"type": "mcp", "name": "files", "allow": ["read"], "command": ["files"]}]
    assert faults(**changes) == []
    changes["behaviour"]["langgraph"]["nodes"][0]["tool"] = "file_read"
    assert at(faults(**changes), "behaviour.langgraph.nodes[0].tool")
    changes["behaviour"]["langgraph"]["nodes"][0]["tool"] = "files_write"
    assert at(faults(**changes), "behaviour.langgraph.nodes[0].tool").suggestion == "files_read"


@pytest.mark.parametrize(
    ("runtime", "framework", "entrypoint", "path", "severity"),
    [
        ("registry.example/team/agent:1", "AutoGen", None, "specification.runtime", "warning"),
        ("node:18-alpine", "function", "agent:factory", "specification.runtime", "warning"),
        ("node:18-alpine", "AutoGen", None, "specification.runtime", "error"),
        ("node:18-alpine", "LangGraph", None, "specification.entrypoint", "error"),
    ],
)
def test_runtimes(faults: Find, runtime: str, framework: str, entrypoint: str | None, path: str, severity: str) -> None:
    specification = {"runtime": runtime, "framework": framework}
    if entrypoint:
        specification |= {"entrypoint": entrypoint, "source": "s"}
    assert severity in {fault.severity for fault in faults(specification=specification) if fault.path == path}


@pytest.mark.parametrize(
    ("point", "suggestion"),
    [("service:modles", "service:models"), ("Agent Creater", "jaegis:agent-creator"), ("tool:x", None)],
)
def test_an_unknown_integration_point_is_refused(faults: Find, point: str, suggestion: str | None) -> None:
    fault = at(faults(capabilities={"integration_points": [point]}), "capabilities.integration_points[0]")
    assert fault.suggestion == suggestion


@pytest.mark.parametrize(
    "point", ["E.JAEGIS. System", "Agent Creator", "jaegis:research", "models", "event:host.failed"]
)
def test_the_missions_names_are_known(faults: Find, point: str) -> None:
    assert faults(capabilities={"integration_points": [point]}) == []


def test_a_declared_tool_may_be_named_as_a_point(faults: Find) -> None:
    tools = [{"type": "agent", "name": "search", "agent": "searcher"}]
    assert faults(tools=tools, capabilities={"integration_points": ["search", "tool:search"]}) == []


@pytest.mark.parametrize(
    ("points", "at_fault"),
    [
        ([], []),
        (["service:models"], ["tools[0].name", "tools[1].name"]),
        (["tool:search"], ["tools[1].name"]),
        (["service:agents"], ["tools[1].name"]),
        (["service:agents", "tool:files"], []),
    ],
)
def test_integration_points_name_every_tool(faults: Find, points: list[str], at_fault: list[str]) -> None:
    tools = [
        {"type": "agent", "name": "search", "agent": "searcher"},
        {"type": "mcp", "name": "files", "allow": ["read"], "command": ["files"]},
    ]
    found = faults(tools=tools, capabilities={"integration_points": points})
    assert [fault.path for fault in found if fault.severity == "error"] == at_fault


@pytest.mark.parametrize(
    ("protocol", "words"), [("a2a", "this release"), ("mcp", "this release"), ("htpp", "not a protocol")]
)
def test_a_protocol_that_nothing_serves_is_refused(faults: Find, protocol: str, words: str) -> None:
    fault = at(faults(capabilities={"communication_protocols": [protocol]}), "capabilities.communication_protocols[0]")
    assert words in fault.message


def test_all_problems_are_told_at_once(faults: Find) -> None:
    found = faults(
        metadata={"name": "Not A Name", "verison": "1"},
        specification={"framework": "Autogen", "resources": {"cpu": "9m"}},
        capabilities={"integration_points": ["nothing"]},
        colour="red",
    )
    paths = {fault.path for fault in found}
    assert paths == {
        *("metadata.name", "metadata.verison", "specification.framework", "specification.resources.cpu", "colour"),
        "capabilities.integration_points[0]",
    }


def test_what_a_schema_fault_hides_is_not_held_against_the_rest(faults: Find) -> None:
    tools = [{"type": "agent", "name": "search", "agent": "NOT A NAME"}]
    behaviour = {"autogen": {**AUTOGEN["autogen"], "tools": ["search"]}}
    found = faults(tools=tools, behaviour=behaviour, capabilities={"integration_points": ["tool:search"]})
    assert [fault.path for fault in found] == ["tools[0].agent"]


def test_a_missing_field_hides_nothing_else(least: dict[str, Any]) -> None:
    least["specification"] = {"framwork": "AutoGen", "resources": {"cpu": "5000m"}}
    with pytest.raises(InvalidDefinition) as refused:
        check_data(least)
    assert {fault.path for fault in refused.value.faults} == {
        *("specification", "specification.framwork", "specification.resources.cpu"),
    }


def test_a_number_where_text_was_meant_is_shown_in_quotes(faults: Find) -> None:
    fault = at(faults(metadata={"name": "a", "version": 1.0, "description": "x"}), "metadata.version")
    assert fault.allowed == 'string, such as "1.0"'
