"""Evidence of rollouts: no bet wins on average where green is no worse, and the bounds hold at every look."""

import math

from hypothesis import example, given
from hypothesis import strategies as st

from chimera.delivery.rollout.sequential import (
    ALONE_CALLS,
    EXCESS,
    NOTHING,
    PACE_CALLS,
    Counts,
    Evidence,
    Objective,
    Tolerance,
    Window,
    bucket_of,
    closest,
    difference,
    log_e,
    log_factor,
    lower,
    observe,
    pooled,
    upper,
)

CLOSE = 1e-9
BOUNDS = (0.5, 1.0, 2.0, 5.0, 30.0)
OBJECTIVE, TOLERANCE = Objective(0.05, 0.05, 30.0), Tolerance(0.01, 0.02)
RATES = st.floats(0.0005, 0.9)
BETS = st.builds(
    lambda blue, above, allowed: (blue, blue + allowed + (1 - blue - allowed) * above, allowed),
    RATES,
    st.sampled_from(EXCESS),
    st.sampled_from((0.0, 0.001, 0.005, 0.02, 0.09)),
)
SIZES = st.integers(1, 500)


def window(calls: int, failures: int, late: int = 0) -> Window:
    """Calls of which all took half a second, but the late ones a minute."""
    return Window(calls, failures, (calls - late, 0, 0, 0, 0, late))


def mean_of_factor(n: int, m: int, x: float, y: float, bet: tuple[float, float, float]) -> float:
    """The exact mean of a block's factor where blue fails with `x` and green with `y`."""
    b, g, d = bet
    t = closest(n, m, b, g, d)
    each_blue = x * b / t + (1 - x) * (1 - b) / (1 - t)
    each_green = y * g / (t + d) + (1 - y) * (1 - g) / (1 - t - d)
    return each_blue**n * each_green**m


@given(SIZES, SIZES, BETS, st.floats(0, 1), st.floats(0, 1))
def test_no_block_wins_on_average_where_green_is_no_worse(
    n: int, m: int, bet: tuple[float, float, float], blue: float, better: float
) -> None:
    x = blue * (1 - bet[2])
    green = (x + bet[2]) * better  # anywhere from never failing to failing as much more as is allowed
    assert mean_of_factor(n, m, x, green, bet) <= 1 + CLOSE


@given(SIZES, SIZES, BETS)
def test_a_bet_wins_on_average_where_it_is_right(n: int, m: int, bet: tuple[float, float, float]) -> None:
    b, g, _ = bet
    assert mean_of_factor(n, m, b, g, bet) > 1


@given(SIZES, SIZES, BETS, st.data())
def test_the_factor_is_the_likelihood_ratio_of_the_bet_and_of_the_closest_null(
    n: int, m: int, bet: tuple[float, float, float], data: st.DataObject
) -> None:
    k, failed = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    b, g, d = bet
    t = closest(n, m, b, g, d)
    likelihood = k * math.log(b) + (n - k) * math.log1p(-b) + failed * math.log(g) + (m - failed) * math.log1p(-g)
    null = k * math.log(t) + (n - k) * math.log1p(-t)
    null += failed * math.log(t + d) + (m - failed) * math.log1p(-t - d)
    assert math.isclose(log_factor(n, k, m, failed, b, g, d), likelihood - null, rel_tol=1e-9, abs_tol=1e-7)


@given(SIZES, SIZES, BETS)
def test_no_other_null_is_closer(n: int, m: int, bet: tuple[float, float, float]) -> None:
    b, g, d = bet

    def apart(t: float) -> float:
        of_blue = b * math.log(b / t) + (1 - b) * math.log((1 - b) / (1 - t))
        return n * of_blue + m * (g * math.log(g / (t + d)) + (1 - g) * math.log((1 - g) / (1 - t - d)))

    found = closest(n, m, b, g, d)
    assert b <= found <= g - d + 1e-15
    for part in range(1, 20):
        other = b + (g - d - b) * part / 20
        assert apart(found) <= apart(other) + 1e-9 * n * m


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.floats(0, 1)), max_size=15))
def test_green_that_never_fails_and_is_never_late_is_never_held_guilty(rows: list[tuple[int, int, float]]) -> None:
    evidence = Evidence()
    for blue, green, share in rows:
        failed = int(blue * share)
        evidence = observe(evidence, window(blue, failed), window(green, 0), OBJECTIVE, TOLERANCE, BOUNDS)
        assert max(evidence.bets) <= CLOSE
    assert evidence.green.calls == sum(green for _, green, _ in rows)
    assert evidence.blue.calls == sum(blue for blue, _, _ in rows)


@given(st.integers(1, 60), st.floats(0, 1), st.integers(1, 8))
def test_a_fault_on_both_sides_alike_is_no_evidence_against_green(calls: int, share: float, windows: int) -> None:
    evidence = observe(Evidence(), window(1000, 0), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    for _ in range(windows):
        failed = int(calls * share)
        both = window(calls, failed)
        evidence = observe(evidence, both, both, OBJECTIVE, TOLERANCE, BOUNDS)
    assert log_e(evidence.failing) <= CLOSE


def chance(calls: int, failures: int, rate: float) -> float:
    """How likely so many of the calls fail."""
    return math.comb(calls, failures) * rate**failures * (1 - rate) ** (calls - failures)


NEAR_ONE = st.floats(0.6, 1) | st.sampled_from((0.0, 0.5, 0.9, 0.97, 1.0))
ALLOWED = st.floats(0, 0.5) | st.sampled_from((0.1, 0.2, 0.35, 0.5))


@given(st.integers(1, 5), st.integers(1, 5), NEAR_ONE, NEAR_ONE, st.floats(0, 1), ALLOWED)
@example(1, 1, 0.8, 0.9, 0.9, 0.4)
def test_no_window_wins_on_average_however_much_is_allowed_and_however_often_blue_fails(
    n: int, m: int, known: float, blue: float, better: float, allowed: float
) -> None:
    past = Counts(1000, int(1000 * known), 0, int(1000 * known))
    before, tolerance = Evidence(blue=past, pace=bucket_of(30.0, BOUNDS)), Tolerance(allowed, allowed)
    green = min(1.0, blue + allowed) * better
    means = [0.0] * (2 * len(EXCESS))
    for k in range(n + 1):
        for failed in range(m + 1):
            both = window(n, k, k), window(m, failed, failed)
            after = observe(before, *both, OBJECTIVE, tolerance, BOUNDS)
            likely = chance(n, k, blue) * chance(m, failed, green)
            means = [
                mean + likely * math.exp(bet) for mean, bet in zip(means, after.failing + after.slowing, strict=True)
            ]
    assert max(means) <= 1 + CLOSE


def test_where_all_calls_may_fail_nothing_is_bet() -> None:
    evidence = observe(Evidence(), window(1000, 900, 900), window(0, 0), OBJECTIVE, Tolerance(0.5, 0.5), BOUNDS)
    for _ in range(30):
        blue, green = window(10, 9, 9), window(10, 0, 0)
        evidence = observe(evidence, blue, green, OBJECTIVE, Tolerance(0.5, 0.5), BOUNDS)
    assert evidence.failing == evidence.slowing == NOTHING


def test_a_green_that_fails_all_is_found_by_its_first_calls() -> None:
    evidence = observe(Evidence(), window(500, 2), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    evidence = observe(evidence, window(10, 0), window(10, 10), OBJECTIVE, TOLERANCE, BOUNDS)
    assert log_e(evidence.bets) > math.log(1e6)


def test_a_green_that_is_late_is_found_though_nothing_fails() -> None:
    evidence = observe(Evidence(), window(500, 0), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    for _ in range(5):
        evidence = observe(evidence, window(20, 0), window(20, 0, 10), OBJECTIVE, TOLERANCE, BOUNDS)
    assert log_e(evidence.slowing) > math.log(100)
    assert log_e(evidence.late) > math.log(100)
    assert log_e(evidence.failing) <= CLOSE


def test_slow_is_what_blue_seldom_was_long_before_the_objective_is_missed() -> None:
    quick, slower = Window(40, 0, (38, 2, 0, 0, 0, 0)), Window(40, 0, (0, 0, 40, 0, 0, 0))
    evidence = observe(Evidence(), Window(400, 0, (380, 20, 0, 0, 0, 0)), Window(), OBJECTIVE, TOLERANCE, BOUNDS)
    evidence = observe(evidence, quick, slower, OBJECTIVE, TOLERANCE, BOUNDS)
    assert evidence.pace == 0
    assert log_e(evidence.slowing) > math.log(1000)
    assert log_e(evidence.late) <= CLOSE


def test_without_enough_of_blues_calls_slow_is_what_the_objective_says() -> None:
    few = Window(PACE_CALLS - 1, 0, (PACE_CALLS - 1, 0, 0, 0, 0, 0))
    evidence = observe(Evidence(), few, Window(), OBJECTIVE, TOLERANCE, BOUNDS)
    assert observe(evidence, few, Window(1, 0, (1,)), OBJECTIVE, TOLERANCE, BOUNDS).pace == bucket_of(30.0, BOUNDS)


def test_a_green_that_misses_an_objective_which_blue_misses_too_is_not_held_guilty_of_it() -> None:
    evidence = observe(Evidence(), window(200, 40), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    for _ in range(10):
        evidence = observe(evidence, window(20, 4), window(20, 4), OBJECTIVE, TOLERANCE, BOUNDS)
    assert evidence.faulty == NOTHING
    alone = observe(Evidence(), window(0, 0), window(20, 4), OBJECTIVE, TOLERANCE, BOUNDS)
    assert log_e(alone.faulty) > 0


def test_windows_in_which_one_side_had_no_call_are_joined() -> None:
    begun = observe(Evidence(), window(300, 0), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    apart = observe(begun, window(0, 0), window(6, 3), OBJECTIVE, TOLERANCE, BOUNDS)
    assert apart.failing == NOTHING
    apart = observe(apart, window(9, 0), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    together = observe(begun, window(9, 0), window(6, 3), OBJECTIVE, TOLERANCE, BOUNDS)
    assert apart.failing == together.failing
    assert log_e(apart.failing) > 0
    assert apart.open_green == apart.open_blue == Counts()


def test_without_any_of_blues_calls_green_is_held_against_what_blue_was() -> None:
    begun = observe(Evidence(), window(1000, 1), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
    few = observe(begun, window(0, 0), window(ALONE_CALLS - 1, 9), OBJECTIVE, TOLERANCE, BOUNDS)
    assert few.failing == NOTHING
    enough = observe(begun, window(0, 0), window(ALONE_CALLS, 9), OBJECTIVE, TOLERANCE, BOUNDS)
    assert log_e(enough.failing) > math.log(100)
    unknown = observe(Evidence(), window(0, 0), window(ALONE_CALLS, 9), OBJECTIVE, TOLERANCE, BOUNDS)
    assert unknown.failing == NOTHING


def test_agents_with_the_same_change_know_together_what_none_knows_alone() -> None:
    several = []
    for _ in range(30):
        evidence = observe(Evidence(), window(100, 1), window(0, 0), OBJECTIVE, TOLERANCE, BOUNDS)
        several.append(observe(evidence, window(10, 0), window(10, 1), OBJECTIVE, TOLERANCE, BOUNDS))
    assert max(log_e(one.bets) for one in several) < math.log(20)
    assert pooled(several) > math.log(1000)
    assert pooled([]) == 0.0


SCORES = st.tuples(*[st.floats(-20, 20)] * len(EXCESS))
EVIDENCE = st.builds(Evidence, failing=SCORES, slowing=SCORES, faulty=SCORES, late=SCORES)


@given(st.lists(EVIDENCE, min_size=2, max_size=6))
def test_what_is_known_without_the_strongest_is_known_without_anyone(several: list[Evidence]) -> None:
    left = pooled(several, spare=1)
    for number in range(len(several)):
        assert left <= pooled([*several[:number], *several[number + 1 :]]) + CLOSE
    assert pooled(several, spare=len(several)) == 0.0


@given(st.integers(1, 3000), st.data(), st.sampled_from((0.05, 0.001, 1e-6)))
def test_bounds_of_a_rate_are_on_their_sides_and_get_closer(calls: int, data: st.DataObject, error: float) -> None:
    failures = data.draw(st.integers(0, calls))
    low, high = lower(calls, failures, error), upper(calls, failures, error)
    assert 0 <= low <= failures / calls <= high <= 1
    assert upper(10 * calls, 10 * failures, error) <= high + CLOSE
    assert upper(calls, failures, error / 10) >= high - CLOSE
    below, above = difference(Counts(calls, failures), Counts(calls, failures), error)
    assert below <= 0 <= above
    assert upper(0, 0, error) == 1.0


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=40))
def test_the_mean_of_e_values_is_between_them(bets: list[float]) -> None:
    assert min(bets) - 1e-6 <= log_e(bets) <= max(bets) + 1e-6
