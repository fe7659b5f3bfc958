"""What follows an attempt to deliver: pure rules of the outcome, what was tried before, and the time.

An event is tried until its receiver takes it, `attempts` times, or for `give_up` seconds: then it is a dead letter and
its subject goes on. Every failure may pass, a 404 too, since what is wrong is mended at the receiver; so all are tried
again. The wait grows twofold, half of it by chance, so that receivers that were away aren't met by all at once. A
receiver that says when to come back is not asked before. 410 says that it wants no more at all.
"""

from dataclasses import dataclass
from typing import TypeAlias

from chimera.events.delivery.model import Outcome

CLOSED_AFTER = 5
"""Failures in a row after which a receiver rests between attempts, whatever waits for it."""
LONGEST_REST = 60.0
LONGEST_ASKED = 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How often and how long an event is tried; times in seconds."""

    attempts: int
    give_up: float
    backoff: float
    backoff_cap: float


@dataclass(frozen=True, slots=True)
class Done:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again in `wait` seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class Dead:
    """It is given up."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The receiver wants no more of anything: the event stays, and nothing is sent until somebody says so."""


Verdict: TypeAlias = Done | Again | Dead | Stop


def after(outcome: Outcome, *, attempts: int, age: float, policy: Policy, chance: float, alone: bool) -> Verdict:
    """What becomes of an event that was tried `attempts` times, this one included, in `age` seconds.

    `chance` is from 0 to 1. `alone` says that the receiver is asked for this one event's sake (a task's webhook): then
    there is nothing to pause.
    """
    match outcome.result:
        case "delivered":
            return Done()
        case "gone":
            return Dead() if alone else Stop()
        case "failed" | "refused":
            wait = backoff(attempts, policy, chance)
            if outcome.retry_after is not None:
                wait = max(wait, min(outcome.retry_after, LONGEST_ASKED))
            if attempts >= policy.attempts or age >= policy.give_up:
                return Dead()
            return Again(min(wait, policy.give_up - age))  # the last attempt is at the end of its time


def backoff(attempts: int, policy: Policy, chance: float) -> float:
    """The wait after so many attempts: twofold each time up to a cap, half of it by chance."""
    whole = min(policy.backoff * 2.0 ** min(attempts - 1, 60), policy.backoff_cap)
    return whole * (0.5 + 0.5 * chance)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How much a receiver is asked at once, by how it answers: halved by each failure, one more by each success.

    `failures` counts those in a row, `rests` is when it may be asked again (by a clock that never goes back).
    """

    most: int
    limit: int
    failures: int = 0
    rests: float = 0.0


def share_after(share: Share, outcome: Outcome, now: float) -> Share:
    """A receiver's share after an answer. A rest isn't an attempt: nothing that waits is counted for it."""
    if outcome.result in ("delivered", "gone"):
        return Share(most=share.most, limit=min(share.limit + 1, share.most), rests=share.rests)
    failures = share.failures + 1
    rest = 0.0
    if outcome.status in (429, 503) and outcome.retry_after is not None:
        rest = min(outcome.retry_after, LONGEST_REST)
    elif failures > CLOSED_AFTER:
        rest = min(2.0 ** min(failures - CLOSED_AFTER - 1, 16), LONGEST_REST)
    return Share(most=share.most, limit=max(1, share.limit // 2), failures=failures, rests=max(share.rests, now + rest))
