"""How long calls took, in buckets whose bounds grow by the same factor: pure.

A quarter of an octave is a step, so that a quantile read from the buckets is off by a tenth at most, from a millisecond
to ten minutes, by 79 numbers for a side however many calls it had.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

PER_OCTAVE = 4
LEAST, MOST = 0.001, 600.0
BOUNDS: tuple[float, ...] = (*(LEAST * 2 ** (step / PER_OCTAVE) for step in range(77)), MOST)
"""Seconds up to which a call is counted in each bucket; one more bucket holds those that took longer."""
BUCKETS = len(BOUNDS) + 1


def bucket_of(seconds: float) -> int:
    """The bucket of a call that took so long."""
    return bisect_left(BOUNDS, seconds)


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Within how many seconds the `share` of the calls ended that is asked for; None where there are none.

    It is the upper bound of the bucket that the call lies in, so it says no less than the truth; calls beyond the last
    bound count as that.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted = share * total
    for place, count in enumerate(accumulate(buckets)):
        if count >= wanted and count:
            return BOUNDS[min(place, len(BOUNDS) - 1)]
    return BOUNDS[-1]
