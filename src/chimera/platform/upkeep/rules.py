"""The rules of upkeep, pure: what of an agent's past may go, which months are over, how fast to go on.

The one rule that everything here keeps: what something points to stays. A revision is pointed to by its agent, live or
deleted, and by batches on their way in; the newest few stay besides, so that there is something to go back to. The age
of a revision counts from when it was last live, not from when it was made: a call that began under it may still run.
"""

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass

DAY = 86_400.0
LEAST_KEPT = 3_600.0
"""Seconds that a revision or bundle stays in any case: longer than the longest call, and than a batch takes."""
LEAST_ROWS, MOST_ROWS = 10, 5_000
FIRST_ROWS = 100
LEAST_PAUSE = 0.002
RETRY, MOST_RETRY = 30.0, 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A change of an agent's live revision (None: it was taken out of service) at a time."""

    sequence: int
    revision: str | None
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What is kept of an agent's past: changes in order, revisions that are there, and those that are pointed to."""

    changes: Sequence[Change]
    there: Collection[str]
    held: Collection[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """What of an agent's past may go: revisions by digest, changes by sequence."""

    revisions: tuple[str, ...]
    changes: tuple[int, ...]


def past_to_go(past: Past, *, now: float, keep_revisions: float | None, keep_changes: float | None, last: int) -> Gone:
    """What of `past` may go at `now`; None keeps for ever.

    A revision goes `keep_revisions` seconds after it was last live, if nothing points to it and `last` others were live
    after it. A change goes `keep_changes` seconds after it was made, once its revision is gone and it isn't one of the
    newest `last`: while a revision is there, something says that it was live.
    """
    ended = _ended(past.changes)
    newest = set(list(reversed(ended))[:last])
    revisions: list[str] = []
    if keep_revisions is not None:
        before = now - max(keep_revisions, LEAST_KEPT)
        revisions = [
            digest
            for digest, at in ended.items()
            if digest in past.there and digest not in past.held and digest not in newest and at is not None
            if at <= before
        ]
    changes: list[int] = []
    if keep_changes is not None:
        before = now - keep_changes
        changes = [one.sequence for one in past.changes[:-last] if one.revision not in past.there and one.at <= before]
    return Gone(revisions=tuple(revisions), changes=tuple(changes))


def _ended(changes: Sequence[Change]) -> dict[str, float | None]:
    """When each revision was last replaced (None: it is live), in the order in which they were last made live."""
    ended: dict[str, float | None] = {}
    for number, change in enumerate(changes):
        if change.revision is None:
            continue
        following = changes[number + 1] if number + 1 < len(changes) else None
        ended.pop(change.revision, None)
        ended[change.revision] = None if following is None else following.at
    return ended


def day_before(now: float, keep: float) -> str:
    """The first day (UTC, as 2026-01-31) that is still kept; those that sort before it are older."""
    return _date(now - keep).isoformat()


def month_before(now: float, months: int) -> str:
    """The first month (as 2026-01) that is still kept of `months` whole ones before this one."""
    today = _date(now)
    count = today.year * 12 + today.month - 1 - months
    return f"{count // 12:04d}-{count % 12 + 1:02d}"


def month_of(day: str) -> str:
    """The month of a day."""
    return day[:7]


def next_rows(rows: int, took: float, target: float) -> int:
    """How many rows the next transaction removes, if `rows` took `took` seconds and it may take `target`."""
    factor = 2.0 if took <= 0 else min(2.0, max(0.5, target / took))
    return max(LEAST_ROWS, min(MOST_ROWS, round(rows * factor)))


def pause(took: float, share: float) -> float:
    """Seconds to wait after a transaction of `took` seconds, so that all of them take `share` of the time."""
    return max(LEAST_PAUSE, took * (1 - share) / share)


def retry_after(failures: int, asked: float | None = None) -> float:
    """Seconds until what failed is tried again: longer each time, and not sooner than was `asked`."""
    return max(asked or 0.0, min(MOST_RETRY, RETRY * 2.0 ** min(failures - 1, 16)))


def _date(at: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).date()
