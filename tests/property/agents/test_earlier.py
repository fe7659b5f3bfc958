"""Which revision an agent goes back to."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chimera.agents.catalogue import DIGEST, FEWEST_DIGITS, HistoryEntry, NoEarlierRevision, earlier

digests = st.sampled_from([DIGEST + digit * 64 for digit in "0123"] + [DIGEST + "0" * 63 + "1"])
histories = st.lists(st.none() | digests, min_size=1, max_size=8)


def entries(revisions: list[Any]) -> list[HistoryEntry]:
    return [
        HistoryEntry(sequence=len(revisions) - number, revision=one, version="1.0.0", at=0.0, by=None)
        for number, one in enumerate(revisions)
    ]


@given(histories)
def test_by_default_it_is_the_newest_that_is_not_live(revisions: list[Any]) -> None:
    others = [one for one in revisions if one is not None and one != revisions[0]]
    if others:
        assert earlier("anna", entries(revisions), None) == others[0]
    else:
        with pytest.raises(NoEarlierRevision):
            earlier("anna", entries(revisions), None)


@given(histories, digests, st.integers(0, 64))
def test_a_beginning_names_one_revision_that_was_live_or_none(revisions: list[Any], digest: str, digits: int) -> None:
    wanted = digest.removeprefix(DIGEST)[:digits]
    fitting = {one for one in revisions if one is not None and one.removeprefix(DIGEST).startswith(wanted)}
    if digits >= FEWEST_DIGITS and len(fitting) == 1:
        assert earlier("anna", entries(revisions), wanted) == fitting.pop()
    else:
        with pytest.raises(NoEarlierRevision, match="revision"):
            earlier("anna", entries(revisions), wanted)


@given(histories, digests)
def test_a_digest_in_full_names_itself(revisions: list[Any], digest: str) -> None:
    assume(digest in revisions)
    assert earlier("anna", entries(revisions), digest) == digest
