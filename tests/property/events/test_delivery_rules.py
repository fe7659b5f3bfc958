"""What follows an attempt: bounded attempts, bounded waits, and receivers that are asked when they say."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from chimera.events.delivery.model import Outcome, Result
from chimera.events.delivery.receivers import Turns
from chimera.events.delivery.rules import (
    LONGEST_REST,
    Again,
    Dead,
    Done,
    Policy,
    Share,
    Stop,
    after,
    backoff,
    share_after,
)

seconds = st.floats(0.001, 1e5)
policies = st.builds(
    Policy, attempts=st.integers(1, 30), give_up=st.floats(1, 1e5), backoff=st.floats(0.01, 10), backoff_cap=seconds
)
outcomes = st.builds(
    Outcome,
    result=st.sampled_from(get_args(Result)),
    status=st.sampled_from([None, 200, 404, 429, 500, 503]),
    retry_after=st.none() | st.floats(0, 1e6),
)
chances = st.floats(0, 1)
FAILED = Outcome(result="failed", status=500)


@given(policy=policies, answers=st.lists(outcomes, max_size=60), chance=chances, alone=st.booleans())
def test_an_event_ends_within_its_attempts_and_its_time(
    policy: Policy, answers: list[Outcome], chance: float, alone: bool
) -> None:
    age, attempts = 0.0, 0
    for outcome in [*answers, *[FAILED] * policy.attempts]:
        attempts += 1
        verdict = after(outcome, attempts=attempts, age=age, policy=policy, chance=chance, alone=alone)
        if not isinstance(verdict, Again):
            break
        assert verdict.wait >= 0
        age += verdict.wait
        assert age <= policy.give_up * (1 + 1e-9)
    assert attempts <= policy.attempts
    assert isinstance(verdict, (Done, Dead, Stop))
    assert not (alone and isinstance(verdict, Stop)), "a task's receiver stops nothing but its own event"


@given(policy=policies, outcome=outcomes, chance=chances)
def test_a_receiver_is_not_asked_before_it_says(policy: Policy, outcome: Outcome, chance: float) -> None:
    verdict = after(outcome, attempts=1, age=0.0, policy=policy, chance=chance, alone=False)
    if isinstance(verdict, Again) and outcome.retry_after is not None:
        assert verdict.wait >= min(outcome.retry_after, policy.give_up, 86_400.0)


@given(policy=policies, chance=chances, attempts=st.integers(1, 40))
def test_waits_grow_to_their_cap_and_half_of_each_is_sure(policy: Policy, chance: float, attempts: int) -> None:
    whole = min(policy.backoff * 2.0 ** (attempts - 1), policy.backoff_cap)
    assert whole / 2 <= backoff(attempts, policy, chance) <= whole


@given(answers=st.lists(outcomes, max_size=200), most=st.integers(1, 20))
def test_a_receivers_share_stays_between_one_and_the_most(answers: list[Outcome], most: int) -> None:
    share, now = Share(most=most, limit=most), 0.0
    for outcome in answers:
        before = share
        share = share_after(share, outcome, now)
        assert 1 <= share.limit <= most
        assert share.rests <= max(before.rests, now + LONGEST_REST)
        if outcome.result in ("delivered", "gone"):
            assert share.failures == 0 and share.limit >= before.limit
        else:
            assert share.limit <= max(1, before.limit // 2)
        now += 0.5


def test_a_receiver_that_fails_again_and_again_rests_longer_each_time_and_one_success_opens_it() -> None:
    share, rests = Share(most=8, limit=8), []
    for _ in range(20):
        share = share_after(share, FAILED, 0.0)
        rests.append(share.rests)
    assert rests[:5] == [0.0] * 5 and rests[5] > 0 and rests == sorted(rests) and rests[-1] == LONGEST_REST
    assert (share.limit, share_after(share, Outcome(result="delivered"), 99.0).failures) == (1, 0)


@given(
    given=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=60),
    most=st.integers(1, 4),
    places=st.integers(1, 6),
)
def test_turns_give_each_line_once_and_no_receiver_more_than_its_share(
    given: list[tuple[int, bool]], most: int, places: int
) -> None:
    turns, now = Turns(most), 0.0
    lines = {number: object() for number in range(len(given))}
    for number, (receiver, _) in enumerate(given):
        turns.add((str(receiver), ""), lines[number], now)  # type: ignore[arg-type]  # it only passes them on
    running: list[tuple[tuple[str, str], object]] = []
    got: list[object] = []
    while len(got) < len(given):
        while len(running) < places and (found := turns.next(now)) is not None:
            running.append(found)
            got.append(found[1])
        for key in {key for key, _ in running}:
            assert sum(one == key for one, _ in running) <= most
        if running:
            key, line = running.pop(0)
            succeeded = given[next(n for n, one in lines.items() if one is line)][1]
            turns.answered(key, Outcome(result="delivered" if succeeded else "failed"), now)
        else:
            rest = turns.next_rest()
            assert rest is not None and rest > now, "something waits, nothing runs and nobody rests"
            now = rest
    assert len(set(map(id, got))) == len(given)


def test_one_receiver_with_a_long_queue_leaves_the_others_their_turn() -> None:
    turns = Turns(2)
    for _ in range(100):
        turns.add(("busy", ""), object(), 0.0)  # type: ignore[arg-type]
    turns.add(("other", ""), object(), 0.0)  # type: ignore[arg-type]
    first = [turns.next(0.0) for _ in range(3)]
    assert [found[0][0] for found in first if found] == ["busy", "other", "busy"]
    assert turns.next(0.0) is None
