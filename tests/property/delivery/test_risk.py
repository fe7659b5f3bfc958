"""The risk of a change: never less for touching more, and never without a reason that says so."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.compile import CompiledAgent
from chimera.agents.diff import compare
from chimera.delivery.model import RISKS, ChangeItem
from chimera.delivery.ports import Revision
from chimera.delivery.risk import assess, of_field
from chimera.testing.definitions import compiled

SEARCH = {"type": "agent", "name": "search", "agent": "searcher"}
PARTS: dict[str, list[Any]] = {
    "metadata": [{}, {"description": "Other."}, {"tags": ["x"]}],
    "specification": [{}, {"framework": "function"}],
    "tools": [[], [SEARCH], [SEARCH | {"agent": "other"}]],
    "data_class": ["internal", "public", "personal"],
    "budget": [{}, {"tokens_per_day": 10}, {"tokens_per_day": 15, "usd_per_day": 2.0}],
    "scaling": [{}, {"max_instances": 3}],
    "model": [{}, {"name": "large"}, {"temperature": 0.5}],
    "owner": [{"team": "a"}, {"team": "b"}],
}
definitions = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in PARTS.items()})
LIMITS = {"egress": [[], ["a.example"], ["a.example", "b.example"]], "deadline_seconds": [30.0, 9.0]}
TOOLS: dict[str, dict[str, list[Any]]] = {
    "mcp": {
        "allow": [["read"], ["read", "delete_all"]],
        "command": [["python", "-m", "good"], ["bash", "-c", "evil"]],
        "credentials": [{}, {"KEY": "secret:a"}],
    },
    "agent": {"agent": ["searcher", "other"], "description": ["Finds.", "Finds more."]},
    "message": {"agent": ["searcher", "other"], "reply": [True, False]},
}
"""Kinds of tools, and what each of their fields may be."""


@st.composite
def edited_tools(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A kind of tool, and the values of its fields before and after."""
    kind = draw(st.sampled_from(sorted(TOOLS)))
    fields = st.fixed_dictionaries({name: st.sampled_from(each) for name, each in (TOOLS[kind] | LIMITS).items()})
    return kind, draw(fields), draw(fields)


def with_tool(kind: str, fields: dict[str, Any]) -> CompiledAgent:
    tool = {"type": kind, "name": "t", **{name: fields[name] for name in TOOLS[kind]}}
    tool["limits"] = {name: fields[name] for name in LIMITS}
    return compiled("a", tools=[tool], capabilities={"communication_protocols": ["http", "events"]})


def weights(before: CompiledAgent, after: CompiledAgent) -> dict[str, int]:
    """How grave each field that differs is."""
    return {
        change.path: max(RISKS.index(risk) for _, risk, _ in of_field(change, before.value, after.value))
        for change in compare(before.value, after.value).changes
    }


@st.composite
def revisions(draw: st.DrawFn) -> list[Revision]:
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=4))
    found = []
    for name in names:
        old, new = (draw(st.none() | definitions) for _ in range(2))
        before, after = (None if one is None else compiled(name, **one) for one in (old, new))
        digests = [None if one is None else one.digest for one in (before, after)]
        item = ChangeItem(agent=name, before=digests[0], revision=digests[1])
        found.append(Revision(item=item, compiled=after, before=None if before is None else before.value))
    return found


@settings(max_examples=60)
@given(revisions(), revisions())
def test_more_is_never_less_risky(one: list[Revision], other: list[Revision]) -> None:
    alone, both = assess(one)[0], assess([*one, *other])[0]
    assert RISKS.index(both) == max(RISKS.index(alone), RISKS.index(assess(other)[0]))


@settings(max_examples=60)
@given(revisions())
def test_the_risk_is_its_gravest_reason(given_revisions: list[Revision]) -> None:
    risk, reasons = assess(given_revisions)
    assert risk == (max((one.risk for one in reasons), key=RISKS.index) if reasons else "low")
    assert reasons == assess(list(reversed(given_revisions)))[1] or len(given_revisions) > 1


@settings(max_examples=60)
@given(definitions, definitions)
def test_what_differs_has_a_reason(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = compiled("a", **old), compiled("a", **new)
    item = ChangeItem(agent="a", revision=after.digest, before=before.digest)
    _, reasons = assess([Revision(item=item, compiled=after, before=before.value)])
    assert bool(reasons) == bool(compare(before.value, after.value).changes)


@settings(max_examples=60)
@given(definitions, definitions)
def test_what_breaks_callers_is_never_low(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = compiled("a", **old), compiled("a", **new)
    item = ChangeItem(agent="a", revision=after.digest, before=before.digest)
    risk, _ = assess([Revision(item=item, compiled=after, before=before.value)])
    if compare(before.value, after.value).kind == "breaking":
        assert risk != "low"


@settings(max_examples=100)
@given(edited_tools())
def test_no_edit_of_a_tool_weighs_less_beside_another(edited: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    kind, old, new = edited
    before = with_tool(kind, old)
    beside = weights(before, with_tool(kind, new))
    for field in new:
        for path, weight in weights(before, with_tool(kind, old | {field: new[field]})).items():
            # Where the other edit leaves limits that are set on both sides, they are told apart.
            assert weight <= beside.get(path, max(beside.values())), path


@settings(max_examples=60)
@given(definitions, definitions)
def test_no_edit_of_an_agent_weighs_less_beside_another(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = compiled("a", **old)
    beside = max(weights(before, compiled("a", **new)).values(), default=0)
    for part in new:
        assert max(weights(before, compiled("a", **(old | {part: new[part]}))).values(), default=0) <= beside, part
