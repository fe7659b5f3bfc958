"""A change's content is what its items do, and nothing else: what is approved is exactly what becomes live."""

from typing import get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.model import ENDED, IN_FLIGHT, MOVING, RESTING, ChangeItem, State, content_of

NAMES = st.text("abc-", min_size=1, max_size=4)
DIGESTS = st.none() | st.text("0123", min_size=1, max_size=3)


@st.composite
def items(draw: st.DrawFn) -> list[ChangeItem]:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    return [ChangeItem(agent=name, revision=draw(DIGESTS), before=draw(DIGESTS)) for name in names]


@given(items())
def test_neither_the_order_nor_the_file_changes_the_content(given_items: list[ChangeItem]) -> None:
    moved = [msgspec.structs.replace(item, file="elsewhere.yaml", source="abc") for item in reversed(given_items)]
    assert content_of(moved) == content_of(given_items)


@given(items(), items())
def test_what_does_something_else_has_another_content(one: list[ChangeItem], other: list[ChangeItem]) -> None:
    def key(found: list[ChangeItem]) -> set[tuple[str, str | None, str | None]]:
        return {(item.agent, item.revision, item.before) for item in found}

    assert (content_of(one) == content_of(other)) == (key(one) == key(other))


def test_every_state_is_of_one_kind() -> None:
    kinds = [IN_FLIGHT, RESTING, ENDED]
    states = set(get_args(State))
    assert sorted(state for kind in kinds for state in kind) == sorted(states)
    assert MOVING < IN_FLIGHT
