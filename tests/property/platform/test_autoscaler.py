"""The autoscaler: bounds first, then what a burst and a silence may do, then that load is served and silence ends."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import assume, given
from hypothesis import strategies as st

from chimera.platform.autoscaler import (
    MAX_SCALE_DOWN_RATE,
    MAX_SCALE_UP_RATE,
    STABLE_WINDOW,
    UTILISATION,
    Bounds,
    Decision,
    Observation,
    ScalerState,
    decide,
)

BOUNDS = st.builds(
    lambda minimum, above, target, idle: Bounds(
        minimum=minimum, maximum=minimum + above, target=target, idle_timeout=idle
    ),
    st.integers(0, 5),
    st.integers(1, 1000),
    st.floats(1, 100),
    st.floats(1, 600),
)
OBSERVATIONS = st.builds(
    Observation,
    in_flight=st.just(0.0) | st.floats(0.001, 5000),
    waiting=st.just(0) | st.integers(1, 500),
    ready=st.integers(0, 50),
)
STEPS = st.lists(st.tuples(st.floats(0, 20), OBSERVATIONS), min_size=1, max_size=60)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision with what led to it."""

    now: float
    seen: Observation
    before: ScalerState
    decision: Decision


def history(bounds: Bounds, steps: Sequence[tuple[float, Observation]], start: float = 1000.0) -> Iterator[Step]:
    """Decide again and again, each time after a pause."""
    state, now = ScalerState(), start
    for pause, seen in steps:
        now += pause
        decision = decide(bounds, seen, state, now)
        yield Step(now=now, seen=seen, before=state, decision=decision)
        state = decision.state


def called(seen: Observation) -> bool:
    return seen.in_flight > 0 or seen.waiting > 0


@given(BOUNDS, STEPS)
def test_bounds_hold_whatever_happens(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    for step in history(bounds, steps):
        assert bounds.minimum <= step.decision.hosts <= bounds.maximum


@given(BOUNDS, STEPS)
def test_the_same_input_gives_the_same_decision(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    assert list(history(bounds, steps)) == list(history(bounds, steps))


@given(BOUNDS, STEPS)
def test_in_panic_the_number_never_falls(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    last: Step | None = None
    for step in history(bounds, steps):
        panics = step.decision.state.panic_until is not None
        if panics and last is not None and step.before.panic_until is not None:
            assert step.decision.hosts >= last.decision.hosts
        if panics:
            assert step.decision.hosts >= min(step.seen.ready, bounds.maximum)
        last = step


@given(BOUNDS, STEPS)
def test_a_panic_ends_a_window_after_its_last_cause(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    for step in history(bounds, steps):
        until = step.decision.state.panic_until
        assert until is None or step.now < until <= step.now + STABLE_WINDOW


@given(BOUNDS, STEPS)
def test_rates_of_change_are_bounded(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    for step in history(bounds, steps):
        ready = max(1, step.seen.ready)
        assert step.decision.hosts >= min(bounds.maximum, math.floor(ready / MAX_SCALE_DOWN_RATE))
        if step.decision.state.panic_until is None:
            assert step.decision.hosts <= max(bounds.minimum, math.ceil(MAX_SCALE_UP_RATE * ready))


@given(BOUNDS, STEPS)
def test_a_cell_that_is_called_always_gets_a_host(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    for step in history(bounds, steps):
        if called(step.seen):
            assert step.decision.hosts >= 1


@given(BOUNDS, STEPS)
def test_zero_only_after_the_idle_timeout(bounds: Bounds, steps: list[tuple[float, Observation]]) -> None:
    last_call: float | None = None
    for step in history(bounds, steps):
        if called(step.seen):
            last_call = step.now
        if step.decision.hosts == 0 and step.seen.ready > 0:
            assert last_call is None or step.now - last_call >= bounds.idle_timeout


@given(BOUNDS, OBSERVATIONS, st.floats(0, 0.99))
def test_another_look_in_the_same_second_does_not_send_a_starting_host_home(
    bounds: Bounds, seen: Observation, later: float
) -> None:
    assume(called(seen))
    first = decide(bounds, seen, ScalerState(), 1000.0)
    again = decide(bounds, Observation(in_flight=0, waiting=0, ready=0), first.state, 1000.0 + later)
    assert again.hosts >= 1


@given(BOUNDS, STEPS, st.just(0.0) | st.floats(0.001, 2000))
def test_steady_load_gets_the_hosts_it_needs_and_no_more(
    bounds: Bounds, before: list[tuple[float, Observation]], load: float
) -> None:
    *_, step = history(bounds, before)
    state, now, ready = step.decision.state, step.now, step.seen.ready
    # A panic that the load itself sets off ends one stable window after the window that caused it has passed.
    for _ in range(4 * STABLE_WINDOW):
        now += 1.0
        decision = decide(bounds, Observation(in_flight=load, waiting=0, ready=ready), state, now)
        state, ready = decision.state, decision.hosts
    needed = math.ceil(load / (bounds.target * UTILISATION) - 1e-6)
    wanted = min(max(needed, bounds.minimum), bounds.maximum)
    if load > 0:
        assert wanted <= ready <= max(wanted, min(bounds.maximum, needed + 1))


@given(BOUNDS, STEPS)
def test_silence_brings_a_cell_to_its_minimum(bounds: Bounds, before: list[tuple[float, Observation]]) -> None:
    *_, step = history(bounds, before)
    state, now, ready = step.decision.state, step.now, step.seen.ready
    end = now + bounds.idle_timeout + 2 * STABLE_WINDOW + 20
    while now < end:
        now += 1.0
        decision = decide(bounds, Observation(in_flight=0, waiting=0, ready=ready), state, now)
        state, ready = decision.state, decision.hosts
    assert ready == bounds.minimum


def test_what_is_remembered_is_bounded() -> None:
    steps = [(0.5, Observation(in_flight=1, waiting=0, ready=1))] * 1000
    *_, last = history(Bounds(minimum=0, maximum=1, target=10, idle_timeout=300), steps)
    assert len(last.decision.state.samples) == STABLE_WINDOW


def test_a_burst_is_answered_within_the_panic_window() -> None:
    """A tenfold load on one host that was at its target: the stable average alone would need a minute."""
    bounds = Bounds(minimum=0, maximum=100, target=10, idle_timeout=300)
    calm = [(2.0, Observation(in_flight=7, waiting=0, ready=1))] * 30
    burst = [(2.0, Observation(in_flight=70, waiting=0, ready=1))] * 3
    steps = list(history(bounds, calm + burst))
    assert steps[29].decision.hosts == 1
    assert [step.decision.reason for step in steps[30:]] == ["panic"] * 3
    assert steps[-1].decision.hosts == 10


def test_an_idle_cell_goes_to_sleep_by_halves() -> None:
    bounds = Bounds(minimum=0, maximum=100, target=10, idle_timeout=60)
    state, hosts = ScalerState(), [20]
    for tick in range(7):
        decision = decide(bounds, Observation(in_flight=0, waiting=0, ready=hosts[-1]), state, 1000.0 + 2 * tick)
        state = decision.state
        hosts.append(decision.hosts)
    assert hosts == [20, 10, 5, 2, 1, 0, 0, 0]


def test_reasons_are_told() -> None:
    bounds = Bounds(minimum=0, maximum=2, target=10, idle_timeout=300)
    first = decide(bounds, Observation(in_flight=0, waiting=1, ready=0), ScalerState(), 1000.0)
    kept = decide(bounds, Observation(in_flight=0, waiting=0, ready=1), first.state, 1200.0)
    gone = decide(bounds, Observation(in_flight=0, waiting=0, ready=1), kept.state, 1301.0)
    full = decide(bounds, Observation(in_flight=100, waiting=0, ready=2), gone.state, 1302.0)
    assert [one.reason for one in (first, kept, gone, full)] == ["stable", "retained", "idle", "panic, at its maximum"]
    assert [one.hosts for one in (first, kept, gone, full)] == [1, 1, 0, 2]
