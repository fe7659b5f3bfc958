"""Whether a change may go to production now, by the freeze windows of its tenant.

Times of a window are on the clocks of its zone. Where a clock is put forward, a start that it skips is the moment at
which it is put forward, and an end that it skips counts as if it had been put forward later; where it is put back, a
time that comes twice is the first one. So no window is lost of which the day has anything, and what a window holds is
the same on every machine with the same time zone data.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from chimera.delivery.errors import InvalidDeliveryPolicy
from chimera.delivery.model import RISKS, Risk
from chimera.delivery.policy import DATE_TIME, DAYS, TIME_OF_DAY, Freeze

_MOST_CHAINED = 1_000
_YEARS = range(1900, 9901)
"""Years of windows: far enough from the ends of the calendar for every zone, and for all that follows on a window."""


class Frozen(Struct, frozen=True, kw_only=True):
    """The window that holds, and when the last of those that follow on each other ends (seconds since the epoch)."""

    freeze: Freeze
    until: float


def frozen(freezes: Sequence[Freeze], risk: Risk, now: float) -> Frozen | None:
    """The window that stops a change of `risk` at `now`, the one that ends last; None where none does.

    `until` looks through windows that begin before the one at hand ends, as far as a thousand of them.
    """
    those = [one for one in freezes if RISKS.index(one.least_risk) <= RISKS.index(risk)]
    found: Freeze | None = None
    until = now
    for _ in range(_MOST_CHAINED):
        ends = [(end, one) for one in those for start, end in _windows(one, until) if start <= until < end]
        if not ends:
            break
        until, holding = max(ends, key=lambda pair: pair[0])
        found = found or holding
    return None if found is None else Frozen(freeze=found, until=until)


def in_words(at: float) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


def check_freeze(freeze: Freeze) -> None:
    """Raise `InvalidDeliveryPolicy` for a window that can't be read, or that is never."""
    try:
        ZoneInfo(freeze.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise _invalid(freeze, f"there is no time zone {freeze.zone!r}", "name one as `Europe/Zurich`") from None
    form = TIME_OF_DAY if freeze.days else DATE_TIME
    wanted = "a time of day such as 16:00" if freeze.days else "a date with a time such as 2026-12-23T18:00"
    for text in (freeze.starts, freeze.ends):
        if not re.fullmatch(form, text, re.ASCII):
            raise _invalid(
                freeze, f"{text!r} is not {wanted}", "with `days` it is a time of day, else a date with a time"
            )
    if freeze.days:
        return
    for text in (freeze.starts, freeze.ends):
        try:
            year = datetime.fromisoformat(text).year
        except ValueError as error:
            raise _invalid(freeze, str(error), "give a date that is in the calendar") from None
        if year not in _YEARS:
            step = f"give a year from {_YEARS[0]} to {_YEARS[-1]}"
            raise _invalid(freeze, f"{text} is too close to an end of the calendar", step)
    starts, ends = _once(freeze)
    if ends <= starts:
        raise _invalid(freeze, "it ends before it starts", "give an end after the start")


def _windows(freeze: Freeze, now: float) -> Iterator[tuple[float, float]]:
    """The windows of `freeze` that may hold `now`, as seconds since the epoch."""
    if not freeze.days:
        yield _once(freeze)
        return
    zone = ZoneInfo(freeze.zone)
    today = datetime.fromtimestamp(now, zone).date()
    starts, ends = time.fromisoformat(freeze.starts), time.fromisoformat(freeze.ends)
    for back in (1, 0):  # one of yesterday may go on today
        day = today - timedelta(days=back)
        if DAYS[day.weekday()] not in freeze.days:
            continue
        last = day if ends > starts else day + timedelta(days=1)
        yield _start(datetime.combine(day, starts, zone)), datetime.combine(last, ends, zone).timestamp()


def _once(freeze: Freeze) -> tuple[float, float]:
    zone = ZoneInfo(freeze.zone)
    starts, ends = (datetime.fromisoformat(text).replace(tzinfo=zone) for text in (freeze.starts, freeze.ends))
    return _start(starts), ends.timestamp()


def _start(clock: datetime) -> float:
    """When a window starts: where the clock skips that time, when it is put forward.

    Such a time has the offset of before, and with `fold` the one of after, by which it is earlier (PEP 495).
    """
    later, earlier = clock.timestamp(), clock.replace(fold=1).timestamp()
    if later <= earlier:
        return later
    before, seconds = clock.utcoffset(), range(int(earlier), int(later))
    put_forward = bisect_left(
        seconds, True, key=lambda at: datetime.fromtimestamp(at, clock.tzinfo).utcoffset() != before
    )
    return float(earlier + put_forward)


def _invalid(freeze: Freeze, what: str, next_step: str) -> InvalidDeliveryPolicy:
    return InvalidDeliveryPolicy(f"freeze {freeze.name}: {what}", next_step=next_step)
