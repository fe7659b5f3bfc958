"""Latency buckets: no call is lost, and a quantile is never better than the truth, nor much worse."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.sides.rules import BOUNDS, BUCKETS, LEAST, MOST, PER_OCTAVE, bucket_of, quantile

times = st.floats(min_value=0.0, max_value=5_000.0, allow_nan=False)


def test_the_bounds_grow_by_one_factor_from_the_least_to_the_most() -> None:
    assert (BOUNDS[0], BOUNDS[-1]) == (LEAST, MOST) and list(BOUNDS) == sorted(set(BOUNDS))
    factors = [after / before for before, after in pairwise(BOUNDS[:-1])]
    assert all(math.isclose(factor, 2 ** (1 / PER_OCTAVE)) for factor in factors)


@given(times)
def test_a_call_lies_within_its_bucket(seconds: float) -> None:
    place = bucket_of(seconds)
    assert 0 <= place < BUCKETS
    assert place == len(BOUNDS) or seconds <= BOUNDS[place]
    assert place == 0 or seconds > BOUNDS[place - 1]


@given(st.lists(times, min_size=1, max_size=200), st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_is_the_truth_rounded_up_to_a_bound(calls: list[float], share: float) -> None:
    buckets = [0] * BUCKETS
    for seconds in calls:
        buckets[bucket_of(seconds)] += 1
    found = quantile(buckets, share)
    truth = sorted(calls)[math.ceil(share * len(calls)) - 1]
    assert found == BOUNDS[min(bucket_of(truth), len(BOUNDS) - 1)]


def test_nothing_has_no_quantile() -> None:
    assert quantile([0] * BUCKETS, 0.5) is None
