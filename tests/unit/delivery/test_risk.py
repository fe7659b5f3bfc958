"""What raises the risk of a change, agent by agent, and what doesn't."""

from typing import Any

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.agents.diff import Change
from chimera.delivery.model import ChangeItem, Risk
from chimera.delivery.ports import Revision
from chimera.delivery.risk import MANY, assess, of_field
from chimera.testing.definitions import compiled

SEARCH = {"type": "agent", "name": "search", "agent": "searcher"}
FILES = {"type": "mcp", "name": "files", "allow": ["read"], "url": "https://files.example"}
HELD = {"tools": [SEARCH | {"limits": {"egress": ["a.example"]}}]}
LESS = {"limits": {"egress": ["a.example"]}}
SERVER = {"type": "mcp", "name": "files", "allow": ["read"], "command": ["python", "-m", "good"]}
SERVER |= {"limits": {"egress": ["a.example", "b.example"]}}
ENDPOINT = {"url": "https://good.example/answer", "credential": "secret:a"}


def elsewhere(**fields: Any) -> dict[str, Any]:
    return {
        "specification": {"framework": "function"},
        "behaviour": {"function": {"endpoint": ENDPOINT | fields}},
        "budget": {"tokens_per_day": 1, "usd_per_day": 1.0},
    }


HERE = elsewhere() | {"behaviour": {"function": {"system_message": "Answer."}}}


def changed(old: dict[str, Any] | None, new: dict[str, Any] | None, name: str = "one") -> Revision:
    before: CompiledAgent | None = None if old is None else compiled(name, **old)
    after: CompiledAgent | None = None if new is None else compiled(name, **new)
    item = ChangeItem(
        agent=name,
        revision=None if after is None else after.digest,
        before=None if before is None else before.digest,
    )
    return Revision(item=item, compiled=after, before=None if before is None else before.value)


@pytest.mark.parametrize(
    ("old", "new", "risk", "rule"),
    [
        ({}, {"metadata": {"description": "Better."}}, "low", "texts"),
        ({}, {"metadata": {"tags": ["domain:tax"]}}, "low", "texts"),
        ({}, {"tests": [{"name": "t", "input": "i", "expect": {"contains": ["x"]}}]}, "low", "texts"),
        ({}, {"specification": {"framework": "function"}}, "high", "framework"),
        ({}, {"isolation": "dedicated"}, "high", "framework"),
        ({}, {"tools": [SEARCH]}, "medium", "tools"),
        ({}, {"tools": [FILES]}, "high", "tools"),
        ({"tools": [FILES]}, {}, "medium", "tools"),
        ({"tools": [FILES]}, {"tools": [FILES | {"credentials": {"K": "secret:A"}}]}, "high", "tools"),
        ({"tools": [SEARCH]}, {"tools": [SEARCH | {"agent": "other"}]}, "medium", "tools"),
        ({"tools": [SEARCH]}, {"tools": [SEARCH | {"description": "Finds."}]}, "low", "texts"),
        ({"tools": [SEARCH]}, HELD, "high", "reach"),
        (HELD, {"tools": [SEARCH]}, "low", "reach"),
        ({"tools": [SERVER]}, {"tools": [SERVER | LESS]}, "low", "reach"),
        ({"tools": [SERVER]}, {"tools": [SERVER | LESS | {"allow": ["read", "delete_all"]}]}, "high", "tools"),
        ({"tools": [SERVER]}, {"tools": [SERVER | LESS | {"command": ["bash", "-c", "evil"]}]}, "high", "tools"),
        (HELD, {"tools": [SEARCH | {"agent": "other"}]}, "medium", "tools"),
        ({"tools": [SEARCH]}, {"tools": [SEARCH | {"limits": {"deadline_seconds": 9.0}}]}, "low", "texts"),
        (
            {"tools": [SEARCH]},
            {"tools": [SEARCH | {"limits": {"deadline_seconds": 9.0, "egress": ["a.example"]}}]},
            "high",
            "reach",
        ),
        ({}, {"data_class": "personal"}, "high", "data"),
        ({"data_class": "public"}, {}, "medium", "data"),
        ({}, {"data_class": "public"}, "high", "data"),
        ({"budget": {"tokens_per_day": 100}}, {"budget": {"tokens_per_day": 150}}, "medium", "budget"),
        ({"budget": {"tokens_per_day": 100}}, {"budget": {"tokens_per_day": 250}}, "high", "budget"),
        ({"budget": {"tokens_per_day": 100}}, {}, "high", "budget"),
        ({"budget": {"tokens_per_day": 100}}, {"budget": {"tokens_per_day": 50}}, "medium", "breaking"),
        ({}, {"scaling": {"max_instances": 1000}}, "high", "size"),
        ({}, {"capabilities": {"integration_points": ["models"]}}, "medium", "reach"),
        ({}, {"capabilities": {"integration_points": ["jaegis:research"]}}, "high", "reach"),
        ({}, {"capabilities": {"communication_protocols": ["http", "sse"]}}, "medium", "reach"),
        ({}, {"model": {"name": "large"}}, "medium", "model"),
        ({}, {"model": {"temperature": 0.1}}, "low", "instructions"),
        ({"tools": [SEARCH]}, {"tools": [SEARCH], "model": {"temperature": 0.1}}, "medium", "instructions"),
        (HERE, elsewhere(), "high", "reach"),
        (elsewhere(), HERE, "medium", "reach"),
        (elsewhere(), elsewhere(url="https://evil.example/answer"), "high", "reach"),
        (elsewhere(), elsewhere(credential="secret:b"), "high", "reach"),
        (elsewhere(), elsewhere(format="cloudevents"), "medium", "reach"),
        (elsewhere(), elsewhere(timeout_seconds=30.0), "low", "texts"),
        (None, elsewhere(), "high", "reach"),
        ({"owner": {"team": "a"}}, {"owner": {"team": "b"}}, "high", "owner"),
        ({"owner": {"team": "a"}}, {"owner": {"team": "a", "contact": "a@example.org"}}, "low", "owner"),
        ({}, {"retirement": {"after": "2030-01-01"}}, "medium", "removed"),
        ({}, {"service_level_objective": {"availability": 0.9}}, "medium", "objective"),
        ({}, None, "medium", "removed"),
        (None, {"budget": {"tokens_per_day": 1, "usd_per_day": 1.0}}, "low", "new"),
        (None, {}, "medium", "budget"),
        (None, {"tools": [FILES]}, "high", "tools"),
        (None, {"data_class": "confidential"}, "high", "data"),
    ],
)
def test_one_agent(old: dict[str, Any] | None, new: dict[str, Any] | None, risk: Risk, rule: str) -> None:
    found, reasons = assess([changed(old, new)])
    assert found == risk
    assert rule in {reason.rule for reason in reasons if reason.risk == risk}


def test_nothing_changed_but_the_version() -> None:
    assert assess([changed({}, {"metadata": {"version": "2.0.0"}})]) == ("low", ())


def test_the_same_reason_is_given_once_with_the_number_of_agents() -> None:
    better = {"metadata": {"tags": ["domain:tax"]}}
    found, reasons = assess([changed({}, better, f"agent-{number}") for number in range(MANY)])
    assert found == "medium"
    assert [(reason.rule, reason.agents, reason.agent) for reason in reasons] == [
        ("many", MANY, "agent-0"),
        ("texts", MANY, "agent-0"),
    ]


def test_a_field_that_no_rule_knows_is_not_low() -> None:
    old, new = compiled("one"), compiled("one", metadata={"description": "Better."})
    later = Change(path="agent.later[x]", kind="fix", reason="", old=1, new=2)
    said = list(of_field(later, old.value, new.value))
    assert said == [("other", "medium", "agent.later differs")]
