"""Names that look alike are those that are one edit apart or have one skeleton, by a slow and plain rule."""

import string

from hypothesis import example, given
from hypothesis import strategies as st

from chimera.jaegis.creator.lookalikes import SHORTEST, Lookalikes, skeleton

NAME = st.text(alphabet="abim0-", min_size=1, max_size=9)
NAMES = st.lists(NAME, max_size=12)


def edits(name: str) -> set[str]:
    """All texts one edit away: a letter left out, put in, changed, or swapped with the next."""
    letters = string.ascii_lowercase + string.digits + "-"
    parts = [(name[:at], name[at:]) for at in range(len(name) + 1)]
    gone = {left + right[1:] for left, right in parts if right}
    put_in = {left + letter + right for left, right in parts for letter in letters}
    changed = {left + letter + right[1:] for left, right in parts if right for letter in letters}
    swapped = {left + right[1] + right[0] + right[2:] for left, right in parts if len(right) > 1}
    return gone | put_in | changed | swapped


def plain(name: str) -> str:
    return name.translate(str.maketrans("", "", string.digits))


def alike(one: str, other: str) -> bool:
    if one == other or plain(one) == plain(other) or min(len(one), len(other)) < SHORTEST:
        return False
    return other in edits(one) or skeleton(one) == skeleton(other)


@given(NAMES, NAME)
@example(["invoice-checker"], "invoice-chekcer")
@example(["invoice-checker"], "invoicechecker")
@example(["worker-1"], "worker-2")
@example(["worker-1"], "worker-12")
@example(["abcdef"], "abcdef")
@example(["abcdefabcdef"], "abcdefabcde")
def test_it_finds_what_the_plain_rule_finds(names: list[str], name: str) -> None:
    expected = {one for one in names if alike(one, name)}
    found = Lookalikes(names).other(name)
    assert (found in expected) if expected else (found is None)
    assert Lookalikes(names).of(name) == (None if name in names else found)
