"""The rule, first safety (never ends a healthy host), then liveness (ends every sick one, in time)."""

from hypothesis import given
from hypothesis import strategies as st

from chimera_host.watchdog import ExitCode, Limits, Observation, OverdueCall, WatchState, decide

LIMITS = Limits(grace=10.0, memory_bytes=1000, tick=1.0)
overdue = OverdueCall(agent="looper", call="c", seconds=10.0)
healthy = st.builds(
    Observation,
    beats=st.just(0),
    cancelled=st.lists(
        st.builds(OverdueCall, agent=st.just("a"), call=st.just("c"), seconds=st.floats(0, 9.9)), max_size=3
    ).map(tuple),
    others=st.integers(0, 5),
    resident=st.integers(0, 1000),
)


def play(observations, *, step=1.0, state=None):
    """Feed observations, one a step; yields the decisions."""
    state = state or WatchState()
    for number, seen in enumerate(observations):
        decision, state = decide(seen, state, LIMITS, 100.0 + number * step)
        yield decision


def beating(seen, number):
    return Observation(
        beats=number, cancelled=seen.cancelled, others=seen.others, resident=seen.resident, heaviest=seen.heaviest
    )


@given(st.lists(healthy, max_size=40))
def test_a_healthy_host_is_left_alone(seen):
    for decision in play(beating(one, number) for number, one in enumerate(seen)):
        assert decision.give_up is None and decision.end is None


@given(st.integers(1, 8), st.integers(1, 9))
def test_a_pause_shorter_than_the_grace_is_borne(beats, pause):
    seen = [Observation(beats=n) for n in range(beats)] + [Observation(beats=beats)] * pause
    seen += [Observation(beats=beats + 1 + n) for n in range(5)]
    assert all(decision.end is None for decision in play(seen))


def test_a_standing_loop_ends_the_host_after_the_grace():
    decisions = list(play([Observation(beats=5, others=3)] * 12))
    assert [decision.end is None for decision in decisions].index(False) == 10
    assert decisions[10].end.exit is ExitCode.LOOP_STALLED


@given(st.floats(3.1, 10_000), st.integers(1, 50))
def test_a_watcher_that_was_stopped_itself_accuses_nobody(step, count):
    for decision in play([Observation(beats=5)] * count, step=step):
        assert decision.end is None


@given(st.integers(1, 3), st.integers(0, 20))
def test_an_overdue_call_gives_the_host_up_and_others_get_the_grace(stuck, busy_for):
    def see(number):
        others = 2 if number < busy_for else 0
        return Observation(beats=number, cancelled=(overdue,) * stuck, others=others)

    decisions = list(play(see(number) for number in range(30)))
    assert decisions[0].give_up.exit is ExitCode.CALL_OVERDUE
    assert decisions[0].give_up.agents == ("looper",) and "looper" in decisions[0].give_up.reason
    assert all(decision.give_up is None for decision in decisions[1:])
    ends = [number for number, decision in enumerate(decisions) if decision.end is not None]
    assert ends[0] == min(max(1, busy_for), 10)
    assert decisions[ends[0]].end == decisions[0].give_up


def test_a_verdict_stands_although_the_call_comes_back():
    seen = [Observation(beats=0, cancelled=(overdue,), others=1), Observation(beats=1, others=1), Observation(beats=2)]
    assert list(play(seen))[2].end.agents == ("looper",)


def test_too_much_memory_names_the_heaviest():
    verdict = next(play([Observation(beats=0, resident=1001, heaviest=("leaky",))])).give_up
    assert verdict.exit is ExitCode.OUT_OF_MEMORY and verdict.agents == ("leaky",) and "leaky" in verdict.reason


def test_a_loop_that_stands_after_giving_up_keeps_the_first_verdict():
    seen = [Observation(beats=0, cancelled=(overdue,), others=1)] * 12
    decisions = list(play(seen))
    assert next(decision.end for decision in decisions if decision.end).exit is ExitCode.CALL_OVERDUE


@given(
    st.lists(
        st.builds(
            Observation,
            beats=st.integers(0, 3),
            others=st.integers(0, 2),
            resident=st.integers(0, 2000),
            cancelled=st.lists(st.just(overdue), max_size=2).map(tuple),
        ),
        max_size=60,
    )
)
def test_given_up_is_final_and_soon_over(seen):
    given_up = None
    for number, decision in enumerate(play(seen)):
        if decision.give_up is not None:
            assert given_up is None
            given_up = number
        if given_up is not None and number >= given_up + 11:
            assert decision.end is not None
