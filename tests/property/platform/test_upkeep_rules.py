"""What something points to never goes, what is left is enough to go back to, and a second look finds nothing more."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from chimera.platform.upkeep import rules
from chimera.platform.upkeep.rules import Change, Gone, Past, past_to_go

DIGESTS = st.sampled_from("abcdefgh")
KEEP = st.none() | st.floats(0, 1_000_000)
NOW = 1_000_000.0


@st.composite
def pasts(draw: Callable[..., object]) -> Past:
    times = sorted(draw(st.lists(st.floats(0, NOW), max_size=20)))  # type: ignore[call-overload]
    changes = [
        Change(sequence=number, revision=draw(st.none() | DIGESTS), at=at)  # type: ignore[arg-type]
        for number, at in enumerate(times, start=1)
    ]
    there = draw(st.sets(DIGESTS)) | {one.revision for one in changes[-1:] if one.revision}  # type: ignore[operator]
    held = draw(st.sets(DIGESTS))
    return Past(changes=changes, there=there, held=held)  # type: ignore[arg-type]


def after(past: Past, gone: Gone) -> Past:
    return Past(
        changes=[one for one in past.changes if one.sequence not in gone.changes],
        there=set(past.there) - set(gone.revisions),
        held=past.held,
    )


@given(past=pasts(), keep=KEEP, changes=KEEP, last=st.integers(1, 4), now=st.floats(0, 2 * NOW))
def test_what_is_pointed_to_live_or_new_never_goes(
    past: Past, keep: float | None, changes: float | None, last: int, now: float
) -> None:
    gone = past_to_go(past, now=now, keep_revisions=keep, keep_changes=changes, last=last)
    assert not set(gone.revisions) & set(past.held)
    assert set(gone.revisions) <= set(past.there)
    in_order = [one.revision for one in past.changes if one.revision is not None]
    newest = list(dict.fromkeys(reversed(in_order)))[:last]
    assert not set(gone.revisions) & set(newest), "there is something to go back to"
    for digest in gone.revisions:
        replaced = [
            following.at
            for one, following in zip(past.changes, past.changes[1:], strict=False)
            if one.revision == digest
        ]
        assert keep is not None and max(replaced) <= now - max(keep, rules.LEAST_KEPT), "its age is since it was live"
        assert past.changes[-1].revision != digest
    newest_changes = {one.sequence for one in past.changes[-last:]}
    assert not set(gone.changes) & newest_changes
    for one in past.changes:
        if one.sequence in gone.changes:
            assert changes is not None and one.at <= now - changes
            assert one.revision not in past.there, "while a revision is there, something says that it was live"


@given(past=pasts(), keep=st.floats(0, NOW), last=st.integers(1, 4))
def test_a_second_look_finds_no_more_and_changes_follow_their_revisions(past: Past, keep: float, last: int) -> None:
    def look(past: Past) -> Gone:
        return past_to_go(past, now=2 * NOW, keep_revisions=keep, keep_changes=keep, last=last)

    once = after(past, look(past))
    assert not look(once).revisions, "what the first look left, the second leaves"
    twice = after(once, look(once))
    assert look(twice) == Gone(revisions=(), changes=())
    old = [one for one in twice.changes[:-last] if one.at <= 2 * NOW - keep]
    assert all(one.revision in twice.there for one in old), "what is old and names nothing goes"


@given(past=pasts(), first=st.floats(0, NOW), last=st.integers(1, 4), more=st.floats(0, NOW))
def test_keeping_longer_removes_less(past: Past, first: float, last: int, more: float) -> None:
    def look(keep: float) -> set[str]:
        gone = past_to_go(past, now=2 * NOW, keep_revisions=keep, keep_changes=None, last=last)
        return set(gone.revisions)

    assert look(first + more) <= look(first)


@given(past=pasts(), now=st.floats(0, 2 * NOW))
def test_none_keeps_all_for_ever(past: Past, now: float) -> None:
    gone = past_to_go(past, now=now, keep_revisions=None, keep_changes=None, last=1)
    assert gone == Gone(revisions=(), changes=())


@given(rows=st.integers(rules.LEAST_ROWS, rules.MOST_ROWS), took=st.floats(0, 100), target=st.floats(0.001, 1))
def test_batches_grow_while_there_is_time_and_shrink_when_there_is_not(rows: int, took: float, target: float) -> None:
    following = rules.next_rows(rows, took, target)
    assert rules.LEAST_ROWS <= following <= rules.MOST_ROWS
    if took > target:
        assert following <= rows
    if took < target:
        assert following >= rows


@given(took=st.floats(0, 100), share=st.floats(0.01, 1))
def test_others_have_their_share_of_the_time(took: float, share: float) -> None:
    waited = rules.pause(took, share)
    assert waited > 0 and took / (took + waited) <= share + 1e-9


@given(failures=st.integers(1, 100), asked=st.none() | st.floats(0, 1_000))
def test_what_fails_is_tried_later_and_later(failures: int, asked: float | None) -> None:
    first, second = rules.retry_after(failures, asked), rules.retry_after(failures + 1, asked)
    assert rules.RETRY <= first <= second <= max(rules.MOST_RETRY, asked or 0)
    assert first >= (asked or 0)


@given(now=st.floats(0, 4_000_000_000), months=st.integers(0, 240))
def test_months_are_whole(now: float, months: int) -> None:
    today = rules.day_before(now, 0)
    first = rules.month_before(now, months)
    assert first <= rules.month_of(today)
    year, month = map(int, first.split("-"))
    this_year, this_month = map(int, rules.month_of(today).split("-"))
    assert 12 * (this_year - year) + this_month - month == months
    assert first < f"{first}-01", "a month sorts before its days"
