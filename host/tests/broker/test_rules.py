"""The rules that need only values."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.broker.rules import MAX_TOOL_NAME, bounded, choose, deadline, did_you_mean
from chimera_host.contract.tools import ToolLimits, full_name
from chimera_host.errors import AgentLoadError, ToolFailed, ToolRefused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=30), st.dictionaries(st.text(min_size=1, max_size=10), st.integers(), max_size=5))
def test_only_what_is_listed_is_chosen(name, tools):
    if name in tools:
        assert choose(name, tools) == tools[name]
    else:
        with pytest.raises(ToolRefused):
            choose(name, tools)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("get_weather", "getWeather"), ("Search", "search"), ("web-search", "web_search"), ("serch", "search")],
)
def test_a_misspelt_name_gets_a_suggestion(said, meant):
    with pytest.raises(ToolRefused, match=f"did you mean '{meant}'"):
        choose(said, {meant: 1, "other_thing": 2})


def test_nothing_near_gets_no_suggestion():
    assert did_you_mean("zzz", ["search", "fetch"]) == ""


@given(st.floats(0.001, 540), st.floats(0.001, 600))
def test_a_deadline_is_the_shorter_of_two(own, left):
    allowed = deadline(ToolLimits(deadline_seconds=own), left)
    assert allowed.seconds == min(own, left) and allowed.own == (own <= left)


@given(st.text(max_size=200), st.integers(1, 300))
def test_an_output_is_refused_by_its_bytes(text, most):
    size = len(text.encode("utf-8", "replace"))
    limits = ToolLimits(max_output_bytes=most)
    if size <= most:
        assert bounded("t", text, limits) == size
    else:
        with pytest.raises(ToolFailed, match=f"{size} bytes, more than the {most}"):
            bounded("t", text, limits)


@given(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_-]{0,20}\Z"), st.text(min_size=1, max_size=30))
def test_a_full_name_is_one_that_models_take(server, tool):
    name = full_name(server, tool)
    assert name.startswith(f"{server}_") and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)


def test_models_take_64_characters():
    assert MAX_TOOL_NAME == 64


SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "integer", "minimum": 3}, "unit": {"enum": ["m", "km"]}},
    "required": ["amount"],
    "additionalProperties": False,
}


def test_arguments_that_fit_pass_unchanged():
    assert ArgumentCheck("t", SCHEMA).check({"amount": 3, "unit": "m"}) == {"amount": 3, "unit": "m"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"amuont": 3}, ["no parameter is called 'amuont'; did you mean 'amount'", "'amount' is missing"]),
        ({"amount": "a-secret-text"}, ['amount: the value is not of type "integer"']),
        ({"amount": 1, "unit": "cm"}, ["amount: the value is less than the minimum of 3", 'not one of "m" or "km"']),
    ],
)
def test_every_fault_is_named_without_its_value(arguments, words):
    with pytest.raises(ToolRefused) as refused:
        ArgumentCheck("t", SCHEMA).check(arguments)
    assert all(word in refused.value.detail for word in words) and "secret" not in refused.value.detail


@given(st.dictionaries(st.sampled_from(["amount", "unit", "other"]), JSON, max_size=3))
@example({"amount": math.inf})
@example({"amount": 3.0})
def test_arguments_pass_exactly_when_they_fit(arguments):
    amount, unit = arguments.get("amount"), arguments.get("unit", "m")
    number = isinstance(amount, int | float) and not isinstance(amount, bool) and math.isfinite(amount)
    whole = number and amount == int(amount)
    fits = whole and amount >= 3 and unit in ("m", "km") and isinstance(unit, str) and "other" not in arguments
    if fits:
        assert ArgumentCheck("t", SCHEMA).check(arguments) == arguments
    else:
        with pytest.raises(ToolRefused):
            ArgumentCheck("t", SCHEMA).check(arguments)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "object", "properties": {"a": {"type": "strnig"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
    ],
)
def test_a_schema_that_cant_be_used_is_refused_when_it_is_read(schema):
    with pytest.raises(AgentLoadError, match=r"tool 't'"):
        ArgumentCheck("t", schema)


def test_a_pattern_that_backtracks_without_end_is_stopped():
    check = ArgumentCheck("t", {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^(?=(a+)+$)b"}}})
    with pytest.raises(ToolRefused):
        check.check({"a": "a" * 40 + "!"})


def test_what_is_no_json_is_refused():
    loop: dict[str, object] = {}
    loop["amount"] = loop
    for arguments in (loop, {"amount": object()}, {"amount": {1, 2}}):
        with pytest.raises(ToolRefused):
            ArgumentCheck("t", SCHEMA).check(arguments)
