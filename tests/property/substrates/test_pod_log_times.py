"""Times of a pod's log: whatever zone a node's clock shows, they say when a line came, and sort as the lines came."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.podlogs import in_utc

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
NANOSECONDS = st.integers(0, 10**9 - 1)
WHOLE = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=0)
)


def written(whole: datetime, nanoseconds: int, zone: timezone) -> str:
    """As a kubelet writes it: RFC 3339 with nine digits."""
    shown = whole.astimezone(zone).isoformat()
    return f"{shown[:19]}.{nanoseconds:09}{'Z' if shown.endswith('+00:00') else shown[19:]}"


@given(WHOLE, NANOSECONDS, ZONES)
def test_a_time_of_any_zone_is_the_same_in_utc_to_the_nanosecond(
    whole: datetime, nanoseconds: int, zone: timezone
) -> None:
    assert in_utc(written(whole, nanoseconds, zone)) == written(whole, nanoseconds, UTC)


@given(st.tuples(WHOLE, NANOSECONDS, ZONES), st.tuples(WHOLE, NANOSECONDS, ZONES), st.booleans())
def test_of_two_lines_the_later_one_sorts_later(
    one: tuple[datetime, int, timezone], other: tuple[datetime, int, timezone], close: bool
) -> None:
    if close:
        other = (one[0], other[1], other[2])
    left, right = in_utc(written(*one)), in_utc(written(*other))
    assert left is not None and right is not None
    assert (left < right, left == right) == (one[:2] < other[:2], one[:2] == other[:2])


@given(st.text(max_size=40))
def test_what_is_no_time_is_none_or_a_time_in_utc(text: str) -> None:
    found = in_utc(text)
    assert found is None or in_utc(found) == found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456789Z"),
        ("2026-01-02T01:04:05.123456789+02:00", "2026-01-01T23:04:05.123456789Z"),
        ("2026-01-02T20:04:05.000000001-05:00", "2026-01-03T01:04:05.000000001Z"),
        ("2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.100000000Z"),
        ("2026-01-02T03:04:05+05:45", "2026-01-01T21:19:05.000000000Z"),
        ("0001-01-01T00:00:00.000000000+02:00", None),
        ("2026-02-30T03:04:05.000000000Z", None),
        ("2026-01-02T03:04:05.123456789", None),
        ("unable", None),
    ],
)
def test_times_as_nodes_write_them(text: str, shown: str | None) -> None:
    assert in_utc(text) == shown
