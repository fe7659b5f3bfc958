"""The rule that compares two revisions by the same inputs, what calls are shared out, and where names are looked at."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.staging.paired import COMPARED, Pair, Side, compare, error_of
from chimera.delivery.staging.rules import ERROR
from chimera.delivery.staging.sampling import between
from chimera.delivery.staging.shares import Want, shares
from chimera.delivery.staging.statistics import at_least

sides = st.builds(Side, failed=st.booleans(), seconds=st.floats(0.001, 60.0, allow_nan=False), met=st.integers(0, 5))
pairs = st.lists(st.builds(Pair, new=sides, live=sides), max_size=60)
agents = st.integers(1, 12_000)
wants = st.lists(
    st.integers(0, 40).flatmap(lambda least: st.builds(Want, least=st.just(least), most=st.integers(least, 90))),
    max_size=30,
)


def turned(some: list[Pair]) -> list[Pair]:
    return [Pair(new=one.live, live=one.new) for one in some]


@given(st.lists(sides, max_size=60), agents)
def test_a_revision_that_does_the_same_is_never_held_up(some: list[Side], count: int) -> None:
    found = compare([Pair(new=one, live=one) for one in some], agents=count)
    assert (found.faults, found.slower) == ((), "")


@given(pairs, agents)
def test_of_two_revisions_one_at_most_is_worse_in_a_thing(some: list[Pair], count: int) -> None:
    found, back = compare(some, agents=count), compare(turned(some), agents=count)
    for name in ("p_errors", "p_answers", "p_slower"):
        assert found.figures[name] >= error_of(count) or back.figures[name] >= error_of(count)


@given(pairs, agents, st.integers(0, 59))
def test_doing_worse_on_one_more_input_excuses_nothing(some: list[Pair], count: int, place: int) -> None:
    before = compare(some, agents=count)
    if place < len(some) and not some[place].new.failed and not some[place].live.failed:
        one = some[place]
        new = Side(seconds=one.new.seconds + 100.0, met=one.new.met - 6)
        worse = [*some[:place], Pair(new=new, live=one.live), *some[place + 1 :]]
        after = compare(worse, agents=count)
        assert after.figures["p_answers"] <= before.figures["p_answers"] + 1e-9
        assert after.figures["p_slower"] <= before.figures["p_slower"] + 1e-9
        assert after.figures["p_errors"] == before.figures["p_errors"]


@given(pairs, agents)
def test_more_agents_ask_for_more(some: list[Pair], count: int) -> None:
    one, many = compare(some, agents=count), compare(some, agents=count + 1)
    assert len(many.faults) <= len(one.faults) and bool(many.slower) <= bool(one.slower)
    assert many.low_evidence >= one.low_evidence


@given(pairs, agents)
def test_what_is_shown_rests_on_enough(some: list[Pair], count: int) -> None:
    """Where so few inputs could show nothing, they show nothing."""
    found = compare(some, agents=count)
    assert not ((found.faults or found.slower) and found.low_evidence)
    broken = [Pair(new=Side(failed=True), live=Side(seconds=1.0))] * len(some)
    assert bool(compare(broken, agents=count).faults) != found.low_evidence


@given(st.integers(0, 200), agents)
def test_the_error_of_each_comparison_is_exactly_bounded(decided: int, count: int) -> None:
    """Over all ways in which that many pairs can fall where both sides are alike."""
    error = error_of(count)
    held = math.fsum(math.comb(decided, k) for k in range(decided + 1) if at_least(k, decided, 0.5) < error)
    assert held / 2**decided <= error * (1 + 1e-6)


def test_an_unchanged_agent_is_rarely_held_up_and_a_worse_one_is_found() -> None:
    draw = random.Random(5)

    def side(met: float) -> Side:
        return Side(
            failed=draw.random() < 0.1, seconds=math.exp(draw.gauss(0, 0.5)), met=sum(draw.random() < met for _ in "ab")
        )

    def held(met: float, runs: int, inputs: int = 20) -> int:
        return sum(
            bool(found.faults or found.slower)
            for found in (
                compare([Pair(new=side(met), live=side(0.9)) for _ in range(inputs)], agents=1) for _ in range(runs)
            )
        )

    assert held(0.9, 2_000) <= 2_000 * ERROR
    assert held(0.1, 200) >= 190
    assert error_of(1) * COMPARED == ERROR


def test_twenty_inputs_show_something_of_twelve_thousand_agents() -> None:
    broken = [Pair(new=Side(failed=True), live=Side(seconds=1.0))] * 20
    assert compare(broken, agents=12_000).faults
    assert not compare(broken[:5], agents=1).faults and compare(broken[:5], agents=1).low_evidence


def test_longer_times_count_where_somebody_notices() -> None:
    def slower(new: float, live: float) -> bool:
        return bool(compare([Pair(new=Side(seconds=new), live=Side(seconds=live))] * 20, agents=1).slower)

    assert slower(1.5, 1.0)
    assert not slower(1.2, 1.0), "by the ratio"
    assert not slower(0.04, 0.01), "nobody notices"


# -- shares ------------------------------------------------------------------------------------------------------------


@given(wants, st.integers(0, 2_000))
def test_calls_are_never_more_than_the_bound_and_shared_evenly(some: list[Want], bound: int) -> None:
    given_out = shares(some, bound)
    assert sum(given_out) <= bound
    for want, share in zip(some, given_out, strict=True):
        assert share == 0 or want.least <= share <= want.most
    if sum(want.most for want in some) <= bound:
        assert given_out == [want.most if want.least else 0 for want in some], "enough is enough for all"
    more = [share - want.least for want, share in zip(some, given_out, strict=True) if 0 < share < want.most]
    if more:
        assert sum(given_out) == bound, "nothing is left over while somebody has use for it"
        beyond = [share - want.least for want, share in zip(some, given_out, strict=True) if share]
        assert max(beyond) <= min(more) + 1


@given(wants, st.integers(0, 2_000))
def test_who_comes_away_with_nothing_could_not_have_had_its_least(some: list[Want], bound: int) -> None:
    given_out = shares(some, bound)
    least = sum(want.least for want, share in zip(some, given_out, strict=True) if share)
    for want, share in zip(some, given_out, strict=True):
        assert share or not want.least or least + want.least > bound


# -- names -------------------------------------------------------------------------------------------------------------

names = st.text("ABCxyz0189._:-", min_size=1, max_size=12)


@given(names, names, st.floats(0, 1, exclude_max=True))
def test_a_place_among_names_lies_between_them(one: str, other: str, share: float) -> None:
    first, last = sorted((one, other))
    assert between(first, last, 0.0) <= first
    assert between(first, last, 0.0) <= between(first, last, share) <= last


def test_places_are_spread_over_names_that_begin_alike() -> None:
    names = sorted(f"customer-{number:04d}" for number in range(1_000))
    found = [between(names[0], names[-1], share / 10) for share in range(10)]
    begin = [sum(name < place for name in names) for place in found]
    assert begin == [100 * share for share in range(10)], begin
