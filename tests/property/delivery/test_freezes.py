"""Freeze windows: on the clocks of their zone, over midnight and over the days when clocks are put back or forward."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.errors import InvalidDeliveryPolicy
from chimera.delivery.freezes import check_freeze, frozen
from chimera.delivery.policy import DAYS, Freeze

ZONES = ["UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
clocks = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from([0, 30]))
weekly = st.builds(
    Freeze,
    name=st.just("weekly"),
    starts=clocks,
    ends=clocks,
    zone=st.sampled_from(ZONES),
    days=st.lists(st.sampled_from(DAYS), unique=True, min_size=1).map(tuple),
    least_risk=st.sampled_from(["low", "medium", "high"]),
)
moments = st.integers(1_700_000_000, 1_900_000_000).map(float)


def at(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


@given(st.lists(weekly, max_size=3), moments)
def test_when_it_ends_it_has_ended_and_not_before(freezes: list[Freeze], now: float) -> None:
    found = frozen(freezes, "high", now)
    if found is None:
        return
    assert found.until > now
    always = found.until > now + 990 * 1_800
    assert always or frozen(freezes, "high", found.until) is None
    assert always or frozen(freezes, "high", found.until - 1) is not None


@given(st.lists(weekly, max_size=3), moments)
def test_what_stops_a_low_change_stops_a_high_one(freezes: list[Freeze], now: float) -> None:
    if frozen(freezes, "low", now) is not None:
        assert frozen(freezes, "high", now) is not None


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-27T15:59:00+01:00", None),
        ("2026-11-27T16:00:00+01:00", "2026-11-28T08:00:00+01:00"),
        ("2026-11-28T07:59:00+01:00", "2026-11-28T08:00:00+01:00"),
        ("2026-11-28T08:00:00+01:00", None),
        ("2026-07-03T15:00:00+02:00", None),
        ("2026-07-03T16:00:00+02:00", "2026-07-04T08:00:00+02:00"),
    ],
)
def test_friday_evening_in_winter_and_summer(now: str, until: str | None) -> None:
    friday = Freeze(name="friday", days=("fri",), starts="16:00", ends="08:00", zone="Europe/Zurich")
    found = frozen([friday], "low", at(now))
    assert (None if found is None else found.until) == (None if until is None else at(until))


def test_windows_that_follow_on_each_other_are_one() -> None:
    days = Freeze(name="weekend", days=("sat", "sun"), starts="00:00", ends="00:00")
    once = Freeze(name="launch", starts="2026-11-30T00:00", ends="2026-11-30T12:00")
    found = frozen([days, once], "low", at("2026-11-28T10:00:00+00:00"))
    assert found is not None
    assert (found.freeze.name, found.until) == ("weekend", at("2026-11-30T12:00:00+00:00"))


def test_an_hour_that_comes_twice_is_frozen_both_times_and_one_that_is_skipped_never() -> None:
    twice = Freeze(name="back", starts="2026-10-25T02:30", ends="2026-10-25T03:00", zone="Europe/Zurich")
    for now, holds in [
        ("2026-10-25T02:29:00+02:00", False),
        ("2026-10-25T02:45:00+02:00", True),
        ("2026-10-25T02:15:00+01:00", True),
        ("2026-10-25T02:45:00+01:00", True),
        ("2026-10-25T03:00:00+01:00", False),
    ]:
        assert (frozen([twice], "low", at(now)) is not None) == holds
    skipped = Freeze(name="forward", starts="2026-03-29T02:10", ends="2026-03-29T02:40", zone="Europe/Zurich")
    check_freeze(skipped)
    assert frozen([skipped], "low", at("2026-03-29T01:59:00+01:00")) is None
    found = frozen([skipped], "low", at("2026-03-29T03:20:00+02:00"))
    assert found is not None, "as if the clock had been put forward later"


@pytest.mark.parametrize(
    ("zone", "day", "starts", "ends", "begun", "ended"),
    [
        ("Europe/Zurich", "2026-03-29", "02:30", "03:15", "2026-03-29T03:00:00+02:00", "2026-03-29T03:15:00+02:00"),
        ("Europe/Zurich", "2026-03-29", "02:00", "02:30", "2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"),
        ("Europe/Zurich", "2026-03-29", "01:30", "02:30", "2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"),
        ("America/Havana", "2026-03-08", "00:30", "01:10", "2026-03-08T01:00:00-04:00", "2026-03-08T01:10:00-04:00"),
        (
            *("Australia/Lord_Howe", "2026-10-04", "02:20", "02:40"),
            *("2026-10-04T02:30:00+11:00", "2026-10-04T02:40:00+11:00"),
        ),
    ],
)
def test_a_window_over_the_skipped_hour_holds_what_there_is_of_it(
    zone: str, day: str, starts: str, ends: str, begun: str, ended: str
) -> None:
    weekday = DAYS[datetime.fromisoformat(day).weekday()]
    weekly = Freeze(name="weekly", days=(weekday,), starts=starts, ends=ends, zone=zone)
    once = Freeze(name="once", starts=f"{day}T{starts}", ends=f"{day}T{ends}", zone=zone)
    check_freeze(once)
    for freeze in (weekly, once):
        assert frozen([freeze], "low", at(begun) - 1) is None
        found = frozen([freeze], "low", at(begun))
        assert found is not None and found.until == at(ended)
        assert frozen([freeze], "low", at(ended)) is None


SKIPPED = {"Europe/Zurich": "2026-03-29", "America/New_York": "2026-03-08", "Australia/Lord_Howe": "2026-10-04"}


@given(
    st.sampled_from(sorted(SKIPPED.items())),
    st.tuples(st.integers(0, 1439), st.integers(0, 1439)),
    st.integers(0, 1439),
    st.booleans(),
)
def test_whatever_the_clock_shows_between_start_and_end_is_frozen(
    place: tuple[str, str], edges: tuple[int, int], after: int, weekly: bool
) -> None:
    zone, day = place
    starts, ends = (f"{minute // 60:02d}:{minute % 60:02d}" for minute in sorted(edges))
    midnight = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp()
    shown = datetime.fromtimestamp(midnight + after * 60, ZoneInfo(zone))
    freeze = Freeze(name="x", starts=f"{day}T{starts}", ends=f"{day}T{ends}", zone=zone)
    if weekly:
        freeze = Freeze(name="x", days=(DAYS[shown.weekday()],), starts=starts, ends=ends, zone=zone)
    if f"{shown:%Y-%m-%d}" == day and starts <= f"{shown:%H:%M}" < ends:
        assert frozen([freeze], "low", shown.timestamp()) is not None


@pytest.mark.parametrize(
    ("starts", "ends", "zone"),
    [
        ("0001-01-01T00:00", "2026-12-24T00:00", "Europe/Zurich"),
        ("2026-12-24T00:00", "9999-12-31T23:59", "America/New_York"),
        ("2026-12-24T00:00", "9999-12-31T23:59", "UTC"),
    ],
)
def test_the_ends_of_the_calendar_are_refused(starts: str, ends: str, zone: str) -> None:
    with pytest.raises(InvalidDeliveryPolicy, match="end of the calendar") as refused:
        check_freeze(Freeze(name="x", starts=starts, ends=ends, zone=zone))
    assert "9900" in str(refused.value.next_step)


@pytest.mark.parametrize("zone", ZONES)
def test_what_is_allowed_at_the_ends_can_be_judged_with_all_that_follows_on_it(zone: str) -> None:
    once = Freeze(name="once", starts="1900-01-01T00:00", ends="9900-12-31T23:59", zone=zone)
    check_freeze(once)
    always = [Freeze(name=other, days=DAYS, starts="00:00", ends="00:00", zone=other) for other in ZONES]
    found = frozen([once, *always], "low", at("2026-11-28T10:00:00+00:00"))
    assert found is not None and found.until >= at("9900-12-30T00:00:00+00:00")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"starts": "16:00", "ends": "18:00"}, "date with a time"),
        ({"starts": "2026-12-24T00:00", "ends": "2026-12-24T00:00"}, "ends before it starts"),
        ({"starts": "2026-02-30T00:00", "ends": "2026-12-24T00:00"}, "freeze x"),
        ({"starts": "2026-12-24T00:00", "ends": "2026-12-25T00:00", "days": ("mon",)}, "time of day"),
        ({"starts": "16:00", "ends": "18:00", "days": ("mon",), "zone": "Europe/Nowhere"}, "no time zone"),
        ({"starts": "16:00", "ends": "18:00", "days": ("mon",), "zone": "../../etc/passwd"}, "no time zone"),
    ],
)
def test_a_window_that_cant_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidDeliveryPolicy, match=said):
        check_freeze(Freeze(name="x", **fields))  # type: ignore[arg-type]
