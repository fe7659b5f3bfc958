"""What few calls say of many: intervals against published figures, and when an agent may leave staging."""

import math
import random
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.staging.again import measurements, slower_again
from chimera.delivery.staging.rules import ERROR, SLOWER, Judged, Objective, Seen, error_of, judge
from chimera.delivery.staging.statistics import at_least, longer, newcombe, wilson, z_of

Z = 1.959963984540054
PROMISE = Objective(availability=0.9, latency_p95=2.0)
counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_the_intervals_are_those_that_were_published() -> None:
    # Newcombe 1998, tables I and II: 81 of 263 by Wilson, and 56/70 less 48/80 by method 10.
    assert wilson(81, 263, Z) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, Z) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert newcombe((56, 70), (48, 80), Z) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe((0, 10), (0, 10), Z) == pytest.approx((-0.2775, 0.2775), abs=5e-5)


def test_the_test_of_times_is_that_of_mann_and_whitney() -> None:
    # Two-sided by the approximation 0.11134688653 (SciPy's example of mannwhitneyu, method "asymptotic").
    males, females = [19.0, 22.0, 16.0, 29.0, 24.0], [20.0, 11.0, 17.0, 12.0]
    assert 2 * longer(males, females) == pytest.approx(0.11134688653, abs=1e-9)
    assert longer([1.0] * 9, [1.0] * 9) == 1.0
    assert longer([], [1.0]) == 1.0


def test_the_tail_of_the_binomial_is_exact() -> None:
    assert at_least(1, 1, 0.1) == pytest.approx(0.1)
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(12, 40, 0.1) == pytest.approx(
        sum(math.comb(40, k) * 0.1**k * 0.9 ** (40 - k) for k in range(12, 41))
    )
    assert (at_least(0, 0, 0.1), at_least(1, 5, 0.0), at_least(3, 5, 1.0)) == (1.0, 0.0, 1.0)


@given(counts, st.floats(0.5, 4.0))
def test_an_interval_holds_the_rate_that_was_seen_and_no_impossible_one(seen: tuple[int, int], z: float) -> None:
    low, high = wilson(*seen, z)
    assert 0.0 <= low <= seen[0] / seen[1] + 1e-12 and seen[0] / seen[1] - 1e-12 <= high <= 1.0


@given(counts, counts)
def test_a_difference_turned_round_is_the_interval_turned_round(one: tuple[int, int], two: tuple[int, int]) -> None:
    low, high = newcombe(one, two, Z)
    back = newcombe(two, one, Z)
    assert (low, high) == pytest.approx((-back[1], -back[0]))
    assert low - 1e-12 <= one[0] / one[1] - two[0] / two[1] <= high + 1e-12


def seen(calls: int, errors: int = 0, seconds: float = 1.0) -> Seen:
    return Seen(calls=calls, errors=errors, seconds=(seconds,) * (calls - errors))


@pytest.mark.parametrize(
    ("new", "live", "fault"),
    [
        (seen(40), None, ""),
        (seen(40), seen(40), ""),
        (seen(40, 4), None, ""),
        (seen(40, 12), None, "12 of 40 calls failed"),
        (seen(40, seconds=3.0), None, "longer than 2 s"),
        (seen(20, 8), seen(20, 8), "8 of 20 calls failed, and"),
        (Seen(calls=20, errors=20), seen(20), "of the live revision 0 of 20"),
        (seen(3, 3), None, "3 of 3 calls failed"),
        (seen(1, 1), None, ""),
        (Seen(calls=0, errors=0), seen(5), ""),
    ],
)
def test_what_is_shown_fails_and_what_could_be_does_not(new: Seen, live: Seen | None, fault: str) -> None:
    found = judge(new, live, PROMISE, agents=1)
    assert bool(found.faults) == bool(fault) and fault in "; ".join(found.faults), found


def times(middle: float, draw: random.Random, calls: int = 20) -> Seen:
    return Seen(calls=calls, errors=0, seconds=tuple(middle * math.exp(draw.gauss(0, 0.3)) for _ in range(calls)))


def test_longer_times_fail_where_they_are_shown_and_matter() -> None:
    draw = random.Random(7)
    roomy = Objective(availability=0.9, latency_p95=60.0)

    def slower(factor: float) -> Judged:
        return judge(times(factor, draw), times(1.0, draw), roomy, agents=1)

    assert "in the middle" in slower(3.0).slower and slower(3.0).faults == ()
    wrong = sum(bool(slower(1.0).slower) for _ in range(400))
    assert wrong <= 400 * ERROR, "an unchanged agent is rarely held up"
    many = [judge(times(1.1, draw, 400), times(1.0, draw, 400), roomy, agents=1) for _ in range(5)]
    assert all(not one.slower and not one.faults and one.figures["p_longer"] < 0.05 for one in many), (
        f"shown, but below {SLOWER} times"
    )


def test_longer_times_that_nobody_notices_are_no_fault() -> None:
    new, live = (Seen(calls=20, errors=0, seconds=(seconds,) * 20) for seconds in (0.03, 0.01))
    assert longer(new.seconds, live.seconds) < 0.01 and judge(new, live, PROMISE, agents=1).slower == ""


def held_up(draw: random.Random) -> Seen:
    """Twenty calls of a side of which eight run at once: what holds up one of them holds up all eight."""
    bursts = [0.1 * math.exp(draw.gauss(0, 0.5)) for _ in range(3)]
    return Seen(calls=20, errors=0, seconds=tuple(bursts[number // 8] for number in range(20)))


async def test_an_unchanged_agent_whose_calls_share_their_times_is_rarely_slower_each_time() -> None:
    draw = random.Random(3)
    slow = {number: judge(held_up(draw), held_up(draw), PROMISE, agents=1).slower for number in range(2_000)}
    assert sum(map(bool, slow.values())) > 2 * 2_000 * ERROR, "no test of one measurement's times has its error"

    async def again(names: Collection[str], number: int) -> list[str]:
        return [name for name in names if judge(held_up(draw), held_up(draw), PROMISE, agents=1).slower]

    suspects, times = [str(number) for number, why in slow.items() if why], measurements(ERROR)
    left, calls = await slower_again(suspects, dict.fromkeys(suspects, 40), again, times=times, bound=10**9)
    assert len(left) <= 2_000 * ERROR / 10 and 40 * len(suspects) <= calls < 2 * 40 * len(suspects)


@given(agents=st.integers(1, 20_000))
def test_as_often_as_chance_alone_would_be_the_error(agents: int) -> None:
    times = measurements(error_of(agents))
    assert 0.5**times <= error_of(agents) < 0.5 ** (times - 1)


async def test_who_is_slower_each_time_is_and_nobody_is_measured_beyond_the_bound() -> None:
    asked: list[tuple[int, list[str]]] = []

    async def again(names: Collection[str], number: int) -> list[str]:
        asked.append((number, sorted(names)))
        return [name for name in names if name != "once"]

    costs = {"each": 10, "once": 10, "too-dear": 1_000}
    assert await slower_again(costs, costs, again, times=4, bound=100) == ({"each"}, 40)
    assert asked == [(1, ["each", "once"]), (2, ["each"]), (3, ["each"])]
    assert await slower_again(["each"], costs, again, times=4, bound=29) == (set(), 20), "it isn't shown"
    assert await slower_again([], costs, again, times=4, bound=100) == (set(), 0)


def test_the_error_is_that_of_all_agents_together() -> None:
    assert z_of(ERROR / 100) > z_of(ERROR)
    one = judge(seen(20, 6), None, PROMISE, agents=1)
    assert one.faults and not judge(seen(20, 6), None, PROMISE, agents=500).faults
    draw = random.Random(11)
    wrong = 0
    for _ in range(60):
        errors = [sum(draw.random() < 0.1 for _ in range(20)) for _ in range(50)]
        wrong += any(judge(seen(20, count), None, PROMISE, agents=50).faults for count in errors)
    # Each of the changes has 50 agents that are just as good as they promise.
    assert wrong <= 60 * 3 * ERROR, wrong


def test_few_calls_are_low_evidence() -> None:
    assert judge(seen(5), None, PROMISE, agents=1).low_evidence
    assert not judge(seen(60), None, PROMISE, agents=1).low_evidence
    assert judge(seen(60), None, Objective(availability=0.999, latency_p95=2.0), agents=1).low_evidence
