"""The types and the schema accept the same definitions, and checking never ends in anything but an answer."""

import copy
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.errors import InvalidDefinition
from chimera.agents.schema import allows, violations
from chimera.agents.spec import Definition
from chimera.agents.validate import check_data
from chimera.testing.definitions import FULL


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*path, index))
    return found


PLACES = [place for place in places(FULL) if place]
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**7),
    st.sampled_from([0.5, -1.5, 1.5]),  # 1.0 is an integer to JSON Schema, and not to the types: YAML tells them apart
    st.text(max_size=8),
    st.sampled_from(
        ["250m", "5m", "1.0.0", "1.0.0-rc.1", "AutoGen", "prompt", "auditor\n", "250m\n", "\uff1250m", "a" * 600]
    ),
    st.just([]),
    st.just({}),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def changed(place: tuple[Any, ...], action: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(FULL)
    parent: Any = data
    for part in place[:-1]:
        parent = parent[part]
    if action == "set":
        parent[place[-1]] = value
    elif action == "drop":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent[f"{place[-1]}x"] = value
    else:
        parent.append(value)
    return data


changes = st.builds(changed, st.sampled_from(PLACES), st.sampled_from(["set", "drop", "add"]), WRONG)


def converts(data: Any) -> bool:
    try:
        msgspec.convert(data, Definition, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def ends_in_a_break(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(ends_in_a_break, value.values()))
    if isinstance(value, list):
        return any(map(ends_in_a_break, value))
    return isinstance(value, str) and value.endswith("\n")


@settings(max_examples=500)
@given(changes)
def test_types_and_schema_accept_the_same(data: dict[str, Any]) -> None:
    if ends_in_a_break(data):
        assert converts(data) or not allows(data)
    else:
        assert converts(data) == allows(data)
    assert allows(data) == (not list(violations(data)))


@settings(max_examples=300)
@given(changes)
def test_a_change_is_taken_or_told_with_its_path(data: dict[str, Any]) -> None:
    try:
        check_data(data)
    except InvalidDefinition as error:
        assert error.faults
        for fault in error.faults:
            assert fault.message
            assert len(str(fault)) < 5_000


def test_the_whole_definition_is_taken() -> None:
    assert check_data(FULL).warnings
