"""What an agent is told of an event."""

import pytest

from chimera.events.inputs import DEFAULT, at, filled, unknown_fields

ATTRIBUTES = {"type": "com.example.paid", "subject": "orders/1", "source": "shop", "secret": "x"}
DATA = {"order": {"lines": [{"name": "tea"}], "paid": True}, "note": "{type}"}


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{type} of {subject}", "com.example.paid of orders/1"),
        ("{time}|", "|"),
        ("{data.order.lines.0.name} {data.order.paid}", "tea true"),
        ("{data.order.lines.1.name}{data.order.paid.more}{data.order.lines.x}", ""),
        ('{"keep": "{data.note}"}', '{"keep": "{type}"}'),
        ("{secret} {type.x} {}", "{secret} {type.x} {}"),
        ("{data.order.lines}", '[{"name":"tea"}]'),
    ],
)
def test_a_template_is_filled_once_and_nothing_else_is_touched(template: str, told: str) -> None:
    assert filled(template, ATTRIBUTES, DATA) == told


def test_data_that_is_no_json_is_told_as_it_is() -> None:
    assert filled(DEFAULT, ATTRIBUTES, "a text").endswith("data: a text")
    assert filled("{data}", ATTRIBUTES, None) == "" == filled("{data.x}", ATTRIBUTES, "a text")


def test_fields_that_no_event_has_are_named() -> None:
    assert unknown_fields("{type} {data} {data.a.b} {nothing} {type.x} {A}") == ["nothing", "type.x"]


def test_a_path_that_leads_nowhere_is_nothing() -> None:
    assert at({"a": [1]}, "a.0") == 1 and at({"a": [1]}, "a.9999999999") is None and at(3, "a") is None
