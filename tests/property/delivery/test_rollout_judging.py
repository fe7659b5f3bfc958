"""Judging a wave: e-BH as it is defined, nobody condemned by too little, and no flapping."""

import math

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chimera.delivery.rollout.judging import DOUBT, RELIEF, Subject, e_bh, judge, strength, why
from chimera.delivery.rollout.sequential import NOTHING, Counts, Evidence

LOGS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(-50, 50), max_size=30)
ERRORS = st.floats(0.001, 0.5)


def with_bets(value: float, calls: int = 100, failures: int = 0) -> Evidence:
    """Evidence whose every bet stands at `value`."""
    bets = (value,) * len(NOTHING)
    return Evidence(green=Counts(calls, failures), failing=bets, slowing=bets, faulty=bets, late=bets)


def subject(agent: str, value: float, *, group: str = "", **fields: object) -> Subject:
    return replace(Subject(agent=agent, group=group or agent, evidence=with_bets(value)), **fields)


@given(LOGS, st.integers(0, 20), ERRORS)
def test_the_rejected_are_the_most_that_e_bh_allows(values: dict[str, float], more: int, error: float) -> None:
    size = len(values) + more
    rejected = e_bh(values, size=size, error=error)
    if rejected:
        least = min(values[name] for name in rejected)
        assert least >= math.log(size / (len(rejected) * error))
        assert all(value <= least for name, value in values.items() if name not in rejected)
    for k in range(len(rejected) + 1, len(values) + 1):
        kth = sorted(values.values(), reverse=True)[k - 1]
        assert kth < math.log(size / (k * error))


@given(LOGS, ERRORS, st.data())
def test_stronger_evidence_against_one_acquits_nobody(
    values: dict[str, float], error: float, data: st.DataObject
) -> None:
    before = set(e_bh(values, size=len(values), error=error))
    if values:
        name = data.draw(st.sampled_from(sorted(values)))
        values = {**values, name: values[name] + data.draw(st.floats(0, 50))}
    assert before <= set(e_bh(values, size=len(values), error=error))


@given(st.lists(st.floats(-10, 3), min_size=1, max_size=40))
def test_a_wave_without_an_e_value_above_its_bound_is_clean(values: list[float]) -> None:
    wave = [subject(f"a{number}", value) for number, value in enumerate(values)]
    found = judge(wave, size=len(wave), groups=len(wave), error=0.05, least_calls=5)
    assert found.clean


def test_one_needs_more_against_it_the_more_there_are_beside_it() -> None:
    value = math.log(1000)
    assert "a" in judge([subject("a", value)], size=1, groups=1, error=0.05, least_calls=5).agents
    assert judge([subject("a", value)], size=100, groups=100, error=0.05, least_calls=5).clean
    both = [subject(name, math.log(2200)) for name in ("a", "b")]
    assert judge(both[:1], size=100, groups=100, error=0.05, least_calls=5).clean
    assert set(judge(both, size=100, groups=100, error=0.05, least_calls=5).agents) == {"a", "b"}


def test_nobody_is_condemned_by_less_than_the_least_calls() -> None:
    few = Subject(agent="a", group="g", evidence=with_bets(50.0, calls=4))
    assert judge([few], size=1, groups=1, error=0.05, least_calls=5).clean
    assert not judge([few], size=1, groups=1, error=0.05, least_calls=4).clean


def test_a_group_is_condemned_though_none_of_it_is() -> None:
    wave = [subject(f"a{number}", 2.0, group="same") for number in range(8)]
    found = judge(wave, size=8, groups=1, error=0.05, least_calls=5)
    assert not found.agents
    assert found.groups == {"same": 14.0}  # whichever of them one leaves out


def test_one_bad_agent_of_a_group_is_condemned_alone() -> None:
    wave = [subject("bad", 60.0, group="same"), *(subject(f"a{number}", -1.0, group="same") for number in range(8))]
    found = judge(wave, size=9, groups=1, error=0.05, least_calls=5)
    assert set(found.agents) == {"bad"}
    assert not found.groups
    two = [subject("bad too", 50.0, group="same"), *wave]
    assert judge(two, size=10, groups=1, error=0.05, least_calls=5).groups
    assert not judge(two, size=10, groups=1, error=0.05, least_calls=5, spare=2).groups


def test_one_comes_into_doubt_before_it_is_condemned_and_leaves_it_later() -> None:
    bound = math.log(1 / 0.025)

    def doubted(value: float, before: bool) -> bool:
        wave = [subject("a", value, doubted=before)]
        return "a" in judge(wave, size=1, groups=1, error=0.05, least_calls=5).doubted

    assert doubted(bound * DOUBT, False)
    assert not doubted(bound * DOUBT - 0.01, False)
    assert doubted(bound * DOUBT - 0.01, True)
    assert doubted(bound * RELIEF, True)
    assert not doubted(bound * RELIEF - 0.01, True)
    over = subject("a", bound, open=False)
    assert not judge([over], size=1, groups=1, error=0.05, least_calls=500).doubted


def test_how_well_it_is_known_that_green_is_no_worse() -> None:
    few, some, many = Counts(49, 0), Counts(60, 1), Counts(20_000, 20)
    blue = Counts(20_000, 22)
    told = [
        strength(Evidence(blue=blue, green=one), least_calls=50, tolerance=0.005, error=0.05)
        for one in (few, some, many)
    ]
    assert told == ["low", "sufficient", "proven"]


def test_the_reason_names_the_comparison_that_speaks_most_against_green() -> None:
    found = replace(with_bets(0.0, calls=40, failures=12), failing=(9.0,) * 5, blue=Counts(80, 1))
    assert why(found) == "12 of 40 calls failed, 1 of 80 calls before"
    assert "slower" in why(replace(found, slowing=(19.0,) * 5))
    assert "objective" in why(replace(found, faulty=(19.0,) * 5))
