"""The section `subscriptions`: what is allowed, what is a fault, and its one way of writing."""

from typing import Any

import pytest

from chimera.agents.compile import compile_definition
from chimera.agents.diff import compare
from chimera.agents.subscriptions import full_type, type_fault
from chimera.agents.validate import Checked, check_data


def definition(*subscriptions: dict[str, Any], protocols: tuple[str, ...] = ("http", "events")) -> dict[str, Any]:
    return {
        "schema_version": "ADaC v2.0",
        "metadata": {"name": "reader", "version": "1.0.0", "description": "Reads events."},
        "specification": {"framework": "function"},
        "capabilities": {"primary_functions": ["read"], "communication_protocols": list(protocols)},
        "subscriptions": list(subscriptions),
    }


def one(**fields: Any) -> dict[str, Any]:
    return {"name": "failed", "types": ["task.failed"], **fields}


def checked(data: dict[str, Any]) -> Checked:
    return check_data(data)


def canonical(data: dict[str, Any]) -> Any:
    return compile_definition(checked(data), tenant="default").value


def faults(data: dict[str, Any]) -> list[tuple[str, str | None]]:
    from chimera.agents.errors import InvalidDefinition

    with pytest.raises(InvalidDefinition) as error:
        checked(data)
    return [(fault.path, fault.suggestion) for fault in error.value.faults]


def test_types_are_written_in_full_and_what_is_not_said_is_left_out() -> None:
    (taken,) = canonical(definition(one(types=["task.failed", "com.example.*", "task.failed"]))).subscriptions
    assert taken.types == ("chimera.task.failed", "com.example.*") and taken.expires == 86_400
    assert canonical(definition()).subscriptions == ()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (definition(one(), protocols=("http",)), ("subscriptions", None)),
        (definition(one(), one()), ("subscriptions[1].name", None)),
        (definition(one(types=["task.faild"])), ("subscriptions[0].types[0]", "task.failed")),
        (definition(one(types=["chimera.nothing.*"])), ("subscriptions[0].types[0]", None)),
        (definition(one(types=["*"])), ("subscriptions[0].types[0]", None)),
        (definition(one(expires="8d")), ("subscriptions[0].expires", None)),
        (definition(one(input="{nothing}")), ("subscriptions[0].input", None)),
        (definition(one(filters=[{"exact": {"Bad": "x"}}])), ("subscriptions[0].filters", None)),
        (definition(one(filters=[{"sql": "x"}])), ("subscriptions[0].filters", None)),
    ],
)
def test_what_can_not_be_meant_is_a_fault(data: dict[str, Any], fault: tuple[str, str | None]) -> None:
    assert fault in faults(data)


def test_filters_may_name_attributes_that_events_of_others_have() -> None:
    (taken,) = canonical(definition(one(filters=[{"exact": {"partition": "7"}}]))).subscriptions
    assert taken.filters == ({"exact": {"partition": "7"}},)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("task.failed", "chimera.task.failed"),
        ("chimera.task.failed", "chimera.task.failed"),
        ("task.*", "chimera.task.*"),
        ("com.example.order.*", "com.example.order.*"),
        ("com.example", "com.example"),
    ],
)
def test_a_type_is_the_platforms_or_somebody_elses(text: str, full: str) -> None:
    assert full_type(text) == full and type_fault(text) is None


def test_an_event_more_is_a_feature_and_one_less_breaks() -> None:
    old, new = canonical(definition(one())), canonical(definition(one(), one(name="other")))
    assert compare(old, new).kind == "feature" and compare(new, old).kind == "breaking"
    assert compare(old, canonical(definition(one(types=["task.expired"])))).kind == "breaking"
