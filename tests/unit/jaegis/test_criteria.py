"""Each criterion can be met and missed, says why, and says what would meet it."""

from typing import Any

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.quality.criteria import CRITERIA, Subject
from chimera.jaegis.quality.model import SCALE, Twin, grade_of
from chimera.jaegis.quality.scoring import assess
from chimera.jaegis.quality.settings import QualitySettings
from chimera.testing.definitions import compiled
from tests.unit.jaegis.conftest import GOOD

TOOL = {"type": "message", "name": "tell", "agent": "teller", "reply": False}
LESS: list[tuple[str, dict[str, Any], float]] = [
    ("purpose", {"metadata": {"description": "Invoice auditor."}}, 0.0),
    ("purpose", {"metadata": {"description": "TODO describe when this is to be called"}}, 0.0),
    ("purpose", {"metadata": {"description": "Compares supplier invoices when asked"}}, 0.5),
    ("occasion", {"metadata": {"description": "Compares supplier invoices with orders and names differences"}}, 0.0),
    ("functions", {"capabilities": {"primary_functions": ["Audit", "Compare an invoice with an order"]}}, 0.5),
    ("functions", {"capabilities": {"primary_functions": ["Audit an invoice", "Audits the invoices"]}}, 0.5),
    ("tests", {"tests": []}, 0.0),
    ("tests", {"tests": [{"name": "a", "input": "x", "expect": {}}]}, 0.0),
    ("tests", {"tests": [{"name": n, "input": "x", "expect": {"contains": ["y"]}} for n in "abc"]}, 0.5),
    ("limits", {"budget": {"tokens_per_day": None}}, 0.3),
    ("limits", {"scaling": {"calls_per_minute": None}}, 0.7),
    ("owner", {"owner": None}, 0.0),
    ("owner", {"owner": {"contact": None}}, 0.6),
    ("tools", {"tools": [TOOL]}, 0.0),
    ("reach", {"tools": [{**TOOL, "limits": {"egress": ["*.com"]}}]}, 0.5),
    ("reach", {"tools": [TOOL], "capabilities": {"integration_points": []}}, 0.7),
    ("reach", {"capabilities": {"integration_points": ["service:agents"]}}, 0.7),
    ("objective", {"service_level_objective": {"availability": 0.99, "latency_p95": "30s"}}, 0.0),
    ("findable", {"metadata": {"tags": ["domain:finance"]}}, 0.5),
]


@pytest.mark.parametrize(("criterion", "changes", "score"), LESS)
def test_what_is_missing_costs_the_criterion_that_asks_for_it(
    criterion: str, changes: dict[str, Any], score: float
) -> None:
    if "tools" in changes and "capabilities" not in changes:
        changes = {**changes, "capabilities": {"integration_points": ["service:models", "tool:tell"]}}
    changed = _merge(GOOD, changes)
    found = CRITERIA[criterion](Subject(compiled("invoice-auditor", **changed).value))
    assert found.score == pytest.approx(score)
    assert found.reason and found.next_step


def test_a_definition_that_has_all_meets_every_criterion(good: CompiledAgent) -> None:
    found = {name: criterion(Subject(good.value)) for name, criterion in CRITERIA.items()}
    assert {name: one.score for name, one in found.items()} == dict.fromkeys(CRITERIA, 1.0)
    assert all(one.reason and not one.next_step for one in found.values())
    assessed = assess(good, (), QualitySettings())
    assert (assessed.score, assessed.grade, assessed.passed) == (100.0, "excellent", True)


def test_a_twin_costs_uniqueness_and_is_named_with_what_sets_both_apart(good: CompiledAgent) -> None:
    twin = Twin(agent="bill-checker", similarity=0.91, containment=0.8, differs=("bill",))
    assessed = assess(good, (twin,), QualitySettings())
    unique = next(one for one in assessed.findings if one.criterion == "unique")
    assert unique.score == 0.0
    assert "bill-checker" in unique.reason and "91%" in unique.reason and "bill" in unique.reason
    assert assessed.lacking == ("unique",)
    assert not assessed.passed and assessed.score > QualitySettings().passing, "a required criterion decides alone"


def test_weights_decide_the_score_and_none_is_no_fault(good: CompiledAgent) -> None:
    bare = compiled("helper", metadata={"description": "Helps."})
    assert assess(bare, (), QualitySettings()).grade == "poor"
    only_owner = QualitySettings(**dict.fromkeys(CRITERIA, 0.0) | {"owner": 2.0})
    assert assess(bare, (), only_owner).score == 0.0
    assert assess(good, (), only_owner).score == 100.0
    nothing = QualitySettings(**dict.fromkeys(CRITERIA, 0.0), required=())
    assert assess(bare, (), nothing).passed


def test_an_agent_that_only_stands_for_a_function_needs_no_budget_of_a_model() -> None:
    changes = _merge(GOOD, {"specification": {"framework": "function"}, "budget": {"tokens_per_day": None}})
    changes["behaviour"] = {"function": {"endpoint": {"url": "https://f.example.org/run"}}}
    assert CRITERIA["limits"](Subject(compiled("invoice-auditor", **changes).value)).score == 1.0


def test_the_scale_has_a_grade_for_every_score() -> None:
    assert [grade_of(score) for score in (100.0, 90.0, 89.9, 75.0, 74.9, 50.0, 49.9, 0.0)] == [
        *("excellent", "excellent", "good", "good", "fair", "fair", "poor", "poor"),
    ]
    assert [least for least, _, _ in SCALE] == sorted((least for least, _, _ in SCALE), reverse=True)


def test_every_criterion_has_a_weight_of_its_own() -> None:
    assert {name for name in CRITERIA if getattr(QualitySettings(), name) > 0} == set(CRITERIA)
    assert set(QualitySettings().required) <= set(CRITERIA)


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {key: _merge(old.get(key), new[key]) if key in new else old[key] for key in {**old, **new}}
