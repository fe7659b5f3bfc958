"""Whatever is put into an entry, it can be kept, is bounded, and is read back as it was kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.model import LARGEST_DETAIL, LONGEST_NAME, LONGEST_TEXT, AuditRecord, canonical, decode

texts = st.text(alphabet=st.characters(codec=None), max_size=700)  # lone surrogates and NUL too
details = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)


@given(st.floats(0, 1e11), texts, texts, texts, texts, texts, details)
def test_every_record_can_be_kept(
    at: float, tenant: str, actor: str, action: str, resource: str, outcome: str, detail: dict[str, Any]
) -> None:
    given_one = AuditRecord(
        at=at, tenant=tenant, actor=actor, action=action, resource=resource, outcome=outcome, detail=detail
    )
    kept, entry = canonical(given_one)
    assert decode(entry) == kept
    assert canonical(kept) == (kept, entry), "what is kept is kept as it is"
    for name, limit in (("tenant", 63), ("actor", LONGEST_TEXT), ("action", LONGEST_NAME), ("outcome", LONGEST_NAME)):
        value = getattr(kept, name)
        assert len(value) <= limit
        assert "\0" not in value
        value.encode()
    assert len(entry) < LARGEST_DETAIL + 16_384
    assert b"\\u0000" not in entry


def test_a_record_that_fits_is_kept_unchanged() -> None:
    record = AuditRecord(at=1.5, tenant="default", actor="key:k", action="a:b", resource="agents/ä", decision="allow")
    kept, entry = canonical(record)
    assert kept is record
    assert entry.startswith(b'{"v":1,"at":1.5,')


@pytest.mark.parametrize(
    "detail", [{"x": object()}, {"x": {1, "a", frozenset()}}, {1: 2}, {"x": 2**80}, {"x": "\ud800"}]
)
def test_a_detail_that_json_cant_hold_is_kept_as_far_as_it_goes(detail: Any) -> None:
    record = AuditRecord(at=1.0, tenant="t", actor="a", action="b", resource="c", detail=detail)
    kept = decode(canonical(record)[1])
    assert (kept.actor, kept.resource) == ("a", "c")
    assert kept.detail


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(1, 2**40), st.integers(1, 2**40))
def test_links_of_different_entries_differ(one: bytes, other: bytes, first: int, second: int) -> None:
    if (one, first) != (other, second):
        assert link(GENESIS, first, one) != link(GENESIS, second, other)
    assert link(GENESIS, first, one) != link(link(GENESIS, first, one), first, one)
