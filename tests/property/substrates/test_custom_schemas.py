"""The schema of the resource `Agent` takes whatever `chimera validate` takes; what it refuses is wrong."""

import copy
from functools import cache
from typing import Any

import jsonschema_rs
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.resources.crds import definitions
from chimera.agents.errors import InvalidDefinition
from chimera.agents.template_library import template_names
from chimera.agents.validate import check_data
from chimera.testing.definitions import FULL, definition


@cache
def taker(kind: str = "Agent") -> jsonschema_rs.Draft4Validator:
    """OpenAPI 3.0's schemas are those of draft 4, as far as bounds go."""
    (crd,) = [one for one in definitions() if one["spec"]["names"]["kind"] == kind]
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return jsonschema_rs.Draft4Validator(root["properties"]["spec"])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


PLACES = places(FULL)
VALUES = st.one_of(
    st.integers(-5, 2_000),
    st.floats(-1, 100, allow_nan=False),
    st.booleans(),
    st.text(max_size=8),
    st.sampled_from(["250m", "1.5", "5m", "AutoGen", "shared", "prompt", "secret:A", "x.y:zé", "a" * 600, [], {}]),
    st.lists(st.text(max_size=3), max_size=3),
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), max_size=2), st.lists(st.sampled_from(PLACES), max_size=1))
def test_what_validates_is_taken(changes: list[tuple[tuple[Any, ...], Any]], left_out: list[tuple[Any, ...]]) -> None:
    data = copy.deepcopy(FULL)
    for (*before, last), value in [*changes, *((place, None) for place in left_out)]:
        parent: Any = data
        try:
            for part in before:
                parent = parent[part]
            if value is None:
                del parent[last]
            else:
                parent[last] = value
        except (KeyError, IndexError, TypeError):
            continue
    try:
        check_data(data)
    except InvalidDefinition:
        return
    assert taker().is_valid(data), list(taker().iter_errors(data))


def test_a_definition_that_extends_a_template_may_leave_out_what_the_template_gives() -> None:
    for name in template_names():
        data = definition("one", specification=None, extends=name)
        check_data(data)
        assert taker().is_valid(data), name


def test_what_is_wrong_by_itself_is_refused() -> None:
    for path, value in (
        (("metadata", "version"), "one"),
        (("metadata", "description"), 7),
        (("specification", "framework"), "Nonsense"),
        (("scaling", "min_instances"), -1),
        (("budget", "usd_per_day"), 0),
        (("tools", 0, "type"), "other"),
        (("behaviour", "langgraph", "nodes", 0, "type"), "other"),
        (("tools", 1, "credentials"), {"KEY": "the secret itself"}),
    ):
        data: Any = copy.deepcopy(FULL)
        parent = data
        for part in path[:-1]:
            parent = parent[part]
        parent[path[-1]] = value
        assert not taker().is_valid(data), path
    assert not taker().is_valid({**FULL, "tools": [{"type": "mcp", "name": "x"}]}), "an alternative's own field"


def test_a_template_may_be_any_part_but_not_say_who_the_agent_is() -> None:
    assert taker("AgentTemplate").is_valid({})
    assert taker("AgentTemplate").is_valid({name: FULL[name] for name in ("behaviour", "tools", "specification")})
    names = {
        name
        for one in definitions()
        if one["spec"]["names"]["kind"] == "AgentTemplate"
        for name in one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    }
    assert names == set(FULL) - {"schema_version"}
