"""From a wanted number to actions: what an action may touch, how many there are, and that passes come to rest."""

from hypothesis import given
from hypothesis import strategies as st

from chimera.platform.fleet import (
    LONGEST_RETRY_DELAY,
    Action,
    DrainHost,
    HostPhase,
    HostView,
    StartHosts,
    plan,
    retry_delay,
)

HOSTS = st.lists(
    st.builds(
        HostView,
        host=st.text("abcdef0123", min_size=1, max_size=6),
        phase=st.sampled_from(HostPhase),
        started=st.floats(0, 1000),
        unhealthy=st.none() | st.just("too much memory"),
    ),
    max_size=12,
    unique_by=lambda view: view.host,
)
WANTED = st.integers(0, 15)
RUNNING = (HostPhase.STARTING, HostPhase.READY)


def counts(view: HostView) -> bool:
    return view.phase in RUNNING and view.unhealthy is None


def do(hosts: list[HostView], actions: list[Action], now: float) -> list[HostView]:
    """The hosts after the actions, all done."""
    drained = {action.host for action in actions if isinstance(action, DrainHost)}
    left = [view for view in hosts if view.host not in drained]
    started = sum(action.count for action in actions if isinstance(action, StartHosts))
    new = [HostView(host=f"new-{n}", phase=HostPhase.STARTING, started=now) for n in range(started)]
    return left + new


@given(HOSTS, WANTED)
def test_the_wanted_number_is_reached_and_never_exceeded(hosts: list[HostView], wanted: int) -> None:
    after = do(hosts, plan(hosts, wanted, failures=0, last_failure=0, now=2000), 2000)
    assert sum(map(counts, after)) == wanted


@given(HOSTS, WANTED)
def test_a_second_pass_has_nothing_to_do(hosts: list[HostView], wanted: int) -> None:
    after = do(hosts, plan(hosts, wanted, failures=0, last_failure=0, now=2000), 2000)
    assert plan(after, wanted, failures=0, last_failure=0, now=2001) == []


@given(HOSTS, WANTED)
def test_only_hosts_that_run_are_drained_and_each_once(hosts: list[HostView], wanted: int) -> None:
    drained = [a.host for a in plan(hosts, wanted, failures=0, last_failure=0, now=2000) if isinstance(a, DrainHost)]
    assert len(drained) == len(set(drained))
    assert {view.host for view in hosts if view.phase in RUNNING} >= set(drained)
    assert {view.host for view in hosts if view.phase in RUNNING and view.unhealthy} <= set(drained)


@given(HOSTS, WANTED)
def test_hosts_are_never_started_and_scaled_down_in_one_pass(hosts: list[HostView], wanted: int) -> None:
    actions = plan(hosts, wanted, failures=0, last_failure=0, now=2000)
    scaled_down = [a for a in actions if isinstance(a, DrainHost) and a.reason == "scaled down"]
    assert not scaled_down or not any(isinstance(action, StartHosts) for action in actions)


@given(HOSTS, WANTED)
def test_scaling_down_keeps_those_that_are_ready_and_old(hosts: list[HostView], wanted: int) -> None:
    actions = plan(hosts, wanted, failures=0, last_failure=0, now=2000)
    gone = {a.host for a in actions if isinstance(a, DrainHost) and a.reason == "scaled down"}
    kept = [view for view in hosts if counts(view) and view.host not in gone]
    for view in hosts:
        if view.host in gone and view.phase is HostPhase.READY:
            assert all(one.phase is HostPhase.READY and one.started <= view.started for one in kept)


@given(HOSTS, WANTED, st.integers(1, 30), st.floats(0, 200))
def test_after_failures_it_waits_and_then_tries_again(
    hosts: list[HostView], wanted: int, failures: int, since: float
) -> None:
    actions = plan(hosts, wanted, failures=failures, last_failure=2000, now=2000 + since)
    starts = [action for action in actions if isinstance(action, StartHosts)]
    missing = wanted - sum(map(counts, hosts))
    assert bool(starts) == (missing > 0 and 2000 + since >= 2000 + retry_delay(failures))


def test_the_delay_doubles_up_to_a_minute() -> None:
    assert [retry_delay(n) for n in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert retry_delay(10**6) == LONGEST_RETRY_DELAY
