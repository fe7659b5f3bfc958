"""Filters: what they let pass, what the index may leave out, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.events import filters
from chimera.events.errors import InvalidSubscription

TYPES = ("chimera.agent.created", "chimera.agent.deleted", "chimera.task.failed")
SUBJECTS = ("agents/anna", "agents/bert/tasks/1")
texts = st.sampled_from((*TYPES, *SUBJECTS, "chimera.", "chimera.agent.", "agents/", "created", "1", "x"))
leaves = st.builds(
    lambda dialect, names: {dialect: names},
    st.sampled_from(("exact", "prefix", "suffix")),
    st.dictionaries(st.sampled_from(("type", "subject", "traceparent")), texts, min_size=1, max_size=2),
)
one = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda items: {"all": items}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda items: {"any": items}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda item: {"not": item}, inner),
    ),
    max_leaves=6,
)
many = st.lists(one, max_size=3)
events = st.builds(
    lambda type_, subject: {"type": type_, "subject": subject}, st.sampled_from(TYPES), st.sampled_from(SUBJECTS)
)


@given(wanted=many, event=events)
def test_the_index_leaves_out_nothing_that_passes(wanted: list[Any], event: dict[str, str]) -> None:
    filters.check(wanted)

    if filters.passes(wanted, event):
        assert filters.may_pass(wanted, event["type"])


@given(item=one, event=events)
def test_not_turns_a_filter_round(item: Any, event: dict[str, str]) -> None:
    assert filters.passes([{"not": item}], event) is not filters.passes([item], event)


@given(items=st.lists(one, min_size=1, max_size=3), event=events)
def test_a_list_is_all_and_any_is_its_dual(items: list[Any], event: dict[str, str]) -> None:
    assert filters.passes(items, event) is filters.passes([{"all": items}], event)
    none = [{"not": item} for item in items]
    assert filters.passes([{"any": items}], event) is not filters.passes(none, event)


def test_the_index_is_sharp_where_the_type_decides() -> None:
    wanted = [{"prefix": {"type": "chimera.agent."}}, {"not": {"exact": {"type": "chimera.agent.deleted"}}}]

    assert [filters.may_pass(wanted, type_) for type_ in TYPES] == [True, False, False]


def test_without_filters_everything_passes() -> None:
    assert filters.passes([], {}) and filters.may_pass([], "any")


def test_an_attribute_that_is_not_there_agrees_with_nothing() -> None:
    assert not filters.passes([{"prefix": {"traceparent": "0"}}], {"type": "t"})


DEEP: Any = {"exact": {"type": "t"}}
for _ in range(filters.MOST_DEPTH):
    DEEP = {"not": DEEP}


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        {},
        {"exact": {"type": "a"}, "prefix": {"type": "b"}},
        {"sql": "type = 'a'"},
        {"exact": {}},
        {"exact": {"type": 1}},
        {"exact": {"type": ""}},
        {"exact": {"colour": "red"}},
        {"any": []},
        {"not": [{"exact": {"type": "a"}}]},
        {"all": [{"exact": {"type": "a"}}] * filters.MOST_PARTS},
        DEEP,
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(wrong: Any) -> None:
    with pytest.raises(InvalidSubscription, match=r"^filters\[0\]"):
        filters.check([wrong])
