"""Waves: every agent in one of them, the canary first and small, every kind of change tried on one agent first."""

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.rollout.waves import CANARY_SHARE, Candidate, order, sizes, waves

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        agent=st.integers(0, 40).map(lambda number: f"a{number}"),
        group=st.sampled_from("abcdefg"),
        calls=st.integers(0, 50),
        leaves=st.booleans(),
        needed_by=st.just(frozenset()) | st.frozensets(st.integers(0, 40).map(lambda number: f"a{number}"), max_size=2),
    ),
    max_size=30,
    unique_by=lambda one: one.agent,
)
SHARES = st.lists(st.floats(0, 1), max_size=4)


@given(CANDIDATES, st.integers(1, 10), SHARES)
def test_every_agent_is_in_one_wave_and_no_wave_is_empty(
    candidates: list[Candidate], canary: int, shares: list[float]
) -> None:
    found = waves(candidates, canary, shares)
    assert sorted(one.agent for wave in found for one in wave) == sorted(one.agent for one in candidates)
    assert all(found)
    assert len(found) <= len(shares) + 2


@given(CANDIDATES, st.integers(1, 10), SHARES)
def test_a_new_agent_comes_before_all_that_call_it_and_no_sooner_than_the_first_does(
    candidates: list[Candidate], canary: int, shares: list[float]
) -> None:
    found = waves(candidates, canary, shares)
    place = {one.agent: (number, at) for number, wave in enumerate(found) for at, one in enumerate(wave)}
    plain = {one.agent for one in candidates if not one.needed_by}
    for one in candidates:
        callers = [place[name] for name in one.needed_by & plain & place.keys()]
        if callers:
            assert place[one.agent] < min(callers)
    direct = [one for one in candidates if one.needed_by and one.needed_by <= plain & place.keys()]
    for one in direct:
        assert place[one.agent][0] == min(place[name][0] for name in one.needed_by)


@given(st.integers(1, 20_000), st.integers(1, 300), st.integers(1, 50), SHARES)
def test_the_canary_is_as_small_as_is_said(agents: int, groups: int, canary: int, shares: list[float]) -> None:
    found = sizes(agents, groups, canary, shares)
    assert found[0] <= max(canary, min(groups, agents * CANARY_SHARE), 1)
    assert found[0] >= min(agents, canary)
    assert sum(found) == agents


@given(CANDIDATES)
def test_who_leaves_comes_last_and_the_busiest_of_each_group_first(candidates: list[Candidate]) -> None:
    ordered = order(candidates)
    assert [one.leaves for one in ordered] == sorted(one.leaves for one in ordered)
    staying = [one for one in ordered if not one.leaves]
    for group in {one.group for one in staying}:
        calls = [one.calls for one in staying if one.group == group]
        assert calls == sorted(calls, reverse=True)


def test_a_canary_of_two_tries_both_kinds_of_change() -> None:
    many = [Candidate(agent=f"a{number}", group="large", calls=number) for number in range(18)]
    few = [Candidate(agent=f"b{number}", group="small") for number in range(2)]
    first, *_ = waves([*many, *few], 1, (0.5,))
    assert [one.agent for one in first] == ["a17", "b0"]


def test_what_a_needed_agent_needs_comes_before_it() -> None:
    made = [Candidate(agent=f"a{number}", group="g", calls=9 - number) for number in range(4)]
    made.append(Candidate(agent="deep", group="new", needed_by=frozenset({"high"})))
    made.append(Candidate(agent="high", group="new", needed_by=frozenset({"a2", "a3"})))
    found = waves(made, 1, (0.5,))
    assert [[one.agent for one in wave] for wave in found] == [["a0"], ["a1"], ["deep", "high", "a2", "a3"]]
    circle = [Candidate(agent=one, group="new", needed_by=frozenset({other})) for one, other in ("ab", "ba")]
    assert [one.agent for one in waves(circle, 1, (0.5,))[0]] == ["a", "b"]


def test_shares_bring_the_total_and_not_each_wave_so_far() -> None:
    assert sizes(1000, 1, 1, (0.1, 0.5)) == [1, 99, 400, 500]
    assert sizes(1, 1, 5, (0.1, 0.5)) == [1]
    assert sizes(3, 1, 1, (0.1, 0.5)) == [1, 2]
    assert sizes(0, 0, 1, (0.5,)) == []
