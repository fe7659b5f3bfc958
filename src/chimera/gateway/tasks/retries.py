"""What a failed attempt means: for good, to be tried again and when, or refused before anything was done.

The problem's code decides where it is known, else its status. A refusal that leaves nothing done (the agent is busy,
its cell isn't up yet, its budget is used up, the gateway is full) costs no attempt: the task goes back to its place,
and its agent's tasks rest for as long as the refusal says, so that a hundred thousand of them aren't tried one by one.
"""

from dataclasses import dataclass
from typing import Literal

from chimera_host.contract.problem import ProblemError

Kind = Literal["final", "retry", "put-back"]

PUT_BACK = frozenset(
    {
        "agent-busy",
        "cell-unavailable",
        "budget-exceeded",
        "rate-exceeded",
        "overloaded",
        "quota-unavailable",
        "host-busy",
        "host-draining",
        "tenant-suspended",
        "identity-unavailable",
    }
)
"""Codes of refusals that come before anything is done, or after which what was done is kept in the task's run."""

HELD_ELSEWHERE = "run-in-progress"
"""Somebody still works on the task's run: a worker that was lost but lives. It is over when that one's lease is."""

FINAL = frozenset({"agent-storage-full", "model-rejected", "bundle-refused"})
"""Codes that look as if they passed by themselves, and don't."""

AGAIN = frozenset({"agent-failed", "session-conflict"})
"""Codes that may pass by themselves, whatever their status says."""

PASSING = frozenset({408, 429, 502, 503, 504, 507})
"""Statuses of problems that may pass by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What becomes of the task, and whether its agent's tasks rest for `rest` seconds.

    `after` is the seconds until this task is tried again; 0 keeps its place in the queue.
    """

    kind: Kind
    after: float = 0.0
    rest: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Waits between attempts: up to `first` seconds, doubled each time, `cap` at most."""

    first: float
    cap: float

    def wait(self, failures: int, draw: float) -> float:
        """The wait after so many failures (1 the first); `draw` is uniform in [0, 1).

        Full jitter: any time up to the bound is as likely (M. Brooker, "Exponential Backoff And Jitter", 2015), so that
        tasks that failed together are not tried together.
        """
        exponent = min(failures - 1, 60)
        return float(min(self.cap, self.first * 2**exponent) * draw)


def verdict(error: ProblemError, *, failures: int, backoff: Backoff, rest: float, draw: float) -> Verdict:
    """What becomes of a task whose attempt failed with `error`, after `failures` that counted before.

    `rest` is the longest time that an agent's tasks rest after a refusal.
    """
    if error.code == HELD_ELSEWHERE:
        return Verdict(kind="put-back", after=max(1.0, error.retry_after or 0.0))
    if error.code in PUT_BACK:
        return Verdict(kind="put-back", rest=min(rest, error.retry_after or 1.0))
    passes = error.code in AGAIN or error.status in PASSING or error.retry_after is not None
    if error.code in FINAL or not passes:
        return Verdict(kind="final")
    wait = backoff.wait(failures + 1, draw)
    return Verdict(kind="retry", after=max(wait, min(backoff.cap, error.retry_after or 0.0)))
