"""What may happen to a task, and what it becomes: one ordered list of named rules, and no other way to change one.

`after(task, event, now)` runs the first rule that applies, and refuses what none allows. The rules know nothing of
queues, databases or clocks. Two things hold whatever happens (property-tested): a task that has ended never changes
again, and what a worker does counts only while it holds the token that the task was given to it with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from chimera.gateway.tasks.errors import TaskExpired, TaskFinished, TaskLost, TaskTaken
from chimera.gateway.tasks.model import HISTORY, Change, Task, TaskState
from chimera_host.contract.problem import Problem, ProblemError


class Claim(Struct, frozen=True, kw_only=True):
    """A worker takes it."""

    worker: str


class Due(Struct, frozen=True):
    """Its time has come."""


class Succeed(Struct, frozen=True, kw_only=True):
    """The worker that has `token` got an answer."""

    worker: str
    token: int


class Fail(Struct, frozen=True, kw_only=True):
    """The worker's attempt failed.

    `kind` says what that means: for good, to be tried `after` seconds, or refused before anything was done, which
    counts as no attempt (`put back`). `saved` is how much the task's run has saved by now, in bytes: an attempt that
    ran out of time but finished something is gone on with and doesn't count either.
    """

    worker: str
    token: int
    problem: Problem
    kind: Literal["final", "retry", "put-back"]
    after: float = 0.0
    saved: int = 0


class GiveBack(Struct, frozen=True, kw_only=True):
    """The worker ends and leaves it to others."""

    worker: str
    token: int


class Stopped(Struct, frozen=True, kw_only=True):
    """The worker has ended the call of a task that is to be cancelled."""

    worker: str
    token: int


class Lose(Struct, frozen=True, kw_only=True):
    """Its worker was silent for too long; `most` losses end it."""

    worker: str
    most: int


class Cancel(Struct, frozen=True, kw_only=True):
    """Somebody wants it ended."""

    by: str


class Deadline(Struct, frozen=True):
    """Its deadline may have passed."""


Event = Claim | Due | Succeed | Fail | GiveBack | Stopped | Lose | Cancel | Deadline
"""Everything that can happen to a task."""

OUT_OF_TIME = "deadline-exceeded"
"""The code of a call that came to the gateway's deadline of calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """`name` is what the task's history says; `applies` and `then` are asked with the task, the event and the time."""

    name: str
    applies: Callable[[Task, Event, float], bool]
    then: Callable[[Task, Event, float], Task]


def after(task: Task, event: Event, now: float) -> Task:
    """The task after `event`; the same object where it changes nothing.

    Raises `TaskFinished` for what comes too late and `TaskTaken` for what a worker does that has lost the task.
    """
    for rule in RULES:
        if rule.applies(task, event, now):
            return _noted(task, rule.then(task, event, now), rule.name, now)
    raise AssertionError(f"no rule for {type(event).__name__} of a task that is {task.state}")


def submitted(task: Task, now: float) -> Task:
    """A new task with the beginning of its history."""
    return replace(task, history=(Change(version=task.version, state=task.state, at=now, why="submitted"),))


# -- what rules are made of --------------------------------------------------------------------------------------------


def _holds(task: Task, event: Event) -> bool:
    if not isinstance(event, Succeed | Fail | GiveBack | Stopped):
        return False
    return task.state == "running" and (task.worker, task.token) == (event.worker, event.token)


def _ended(task: Task, state: TaskState, now: float, problem: Problem | None = None) -> Task:
    return replace(task, state=state, worker="", due=None, cancelling=False, finished=now, problem=problem)


def _refuse(error: type[ProblemError], detail: str) -> Callable[[Task, Event, float], Task]:
    def then(task: Task, event: Event, now: float) -> Task:
        raise error(
            f"task {task.task} {detail} (it is {task.state})", next_step="see the task as it is", agent=task.agent
        )

    return then


def _same(task: Task, event: Event, now: float) -> Task:
    return task


def _is(*kinds: type) -> Callable[[Task, Event, float], bool]:
    return lambda task, event, now: isinstance(event, kinds)


def _late(task: Task, event: Event, now: float) -> bool:
    return now >= task.deadline


def _expired(task: Task, event: Event, now: float) -> Task:
    problem = TaskExpired(
        f"task {task.task} had {task.attempts} attempts until its deadline",
        next_step="give it a later deadline, or see its history for where its time went",
        agent=task.agent,
    )
    return _ended(task, "expired", now, problem.problem())


def _cancelled(task: Task, event: Event, now: float) -> Task:
    return _ended(task, "cancelled", now)


def _queued(task: Task, *, due: float | None = None) -> Task:
    return replace(task, state="queued" if due is None else "waiting", due=due, worker="")


def _claimed(task: Task, event: Event, now: float) -> Task:
    assert isinstance(event, Claim)
    started = task.started if task.started is not None else now
    return replace(
        task,
        state="running",
        worker=event.worker,
        token=task.token + 1,
        attempts=task.attempts + 1,
        started=started,
        due=None,
    )


def _failed(task: Task, event: Event, now: float) -> Task:
    assert isinstance(event, Fail)
    return _ended(replace(task, failures=task.failures + 1, seen=event.saved), "failed", now, event.problem)


def _is_last(task: Task, event: Event, now: float) -> bool:
    return (
        isinstance(event, Fail)
        and event.kind != "put-back"
        and not _went_on(task, event, now)
        and (event.kind == "final" or task.failures + 1 >= task.max_attempts)
    )


def _went_on(task: Task, event: Event, now: float) -> bool:
    return isinstance(event, Fail) and event.problem.code == OUT_OF_TIME and event.saved > task.seen


def _again(task: Task, event: Event, now: float) -> Task:
    assert isinstance(event, Fail)
    counted = replace(task, failures=task.failures + 1, seen=event.saved, problem=event.problem)
    return _queued(counted, due=now + event.after)


def _goes_on(task: Task, event: Event, now: float) -> Task:
    assert isinstance(event, Fail)
    return _queued(replace(task, seen=event.saved))


def _put_back(task: Task, event: Event, now: float) -> Task:
    assert isinstance(event, Fail)
    return _queued(replace(task, problem=event.problem), due=now + event.after if event.after > 0 else None)


def _lost(task: Task, event: Event, now: float) -> bool:
    return isinstance(event, Lose) and task.state == "running" and task.worker == event.worker


def _lost_too_often(task: Task, event: Event, now: float) -> Task:
    problem = TaskLost(
        f"the gateway that ran task {task.task} was lost {task.losses + 1} times",
        next_step="see the gateways' logs: the task may be what ends them",
        agent=task.agent,
    )
    return _ended(replace(task, losses=task.losses + 1), "failed", now, problem.problem())


def _by_worker(task: Task, event: Event, now: float) -> bool:
    return isinstance(event, Succeed | Fail | GiveBack | Stopped)


RULES: tuple[Rule, ...] = (
    # Nobody but its worker speaks for a running task, and nobody at all for one that has ended.
    Rule(name="not-its-worker", applies=lambda t, e, n: _by_worker(t, e, n) and not _holds(t, e),
         then=_refuse(TaskTaken, "is not this worker's any more")),
    Rule(name="ended-already", applies=lambda t, e, n: t.is_finished and isinstance(e, Cancel),
         then=_refuse(TaskFinished, "has ended already")),
    Rule(name="not-to-be-had", applies=lambda t, e, n: isinstance(e, Claim) and t.state != "queued",
         then=_refuse(TaskTaken, "is not queued")),
    Rule(name="ended-before", applies=lambda t, e, n: t.is_finished, then=_same),
    # An answer counts, also where it comes late or the task was to be cancelled: the work is done.
    Rule(name="succeeded", applies=_is(Succeed),
         then=lambda t, e, n: _ended(t, "succeeded", n)),
    Rule(name="cancelled", applies=lambda t, e, n: _holds(t, e) and (t.cancelling or isinstance(e, Stopped)),
         then=_cancelled),
    Rule(name="cancelled", applies=lambda t, e, n: _lost(t, e, n) and t.cancelling, then=_cancelled),
    Rule(name="cancelling", applies=lambda t, e, n: isinstance(e, Cancel) and t.state == "running",
         then=lambda t, e, n: replace(t, cancelling=True)),
    Rule(name="cancelled", applies=_is(Cancel), then=_cancelled),
    # The deadline: a running task's worker ends it in time, and says so.
    Rule(name="deadline", applies=lambda t, e, n: _holds(t, e) and _late(t, e, n), then=_expired),
    Rule(name="deadline", applies=lambda t, e, n: _lost(t, e, n) and _late(t, e, n), then=_expired),
    Rule(name="deadline", applies=lambda t, e, n: t.state != "running" and _late(t, e, n), then=_expired),
    # What an attempt comes to.
    Rule(name="put-back", applies=lambda t, e, n: isinstance(e, Fail) and e.kind == "put-back", then=_put_back),
    Rule(name="goes-on", applies=_went_on, then=_goes_on),
    Rule(name="failed", applies=_is_last, then=_failed),
    Rule(name="tried-again", applies=_is(Fail), then=_again),
    Rule(name="given-back", applies=_is(GiveBack), then=lambda t, e, n: _queued(t)),
    Rule(name="lost-too-often", applies=lambda t, e, n: isinstance(e, Lose) and _lost(t, e, n)
         and t.losses + 1 >= e.most, then=_lost_too_often),
    Rule(name="worker-lost", applies=_lost, then=lambda t, e, n: _queued(replace(t, losses=t.losses + 1))),
    # The queue.
    Rule(name="claimed", applies=_is(Claim), then=_claimed),
    Rule(name="due", applies=lambda t, e, n: isinstance(e, Due) and t.state == "waiting" and (t.due or 0.0) <= n,
         then=lambda t, e, n: _queued(t)),
    Rule(name="nothing", applies=lambda t, e, n: True, then=_same),
)  # fmt: skip


def _noted(before: Task, made: Task, why: str, now: float) -> Task:
    if made == before:
        return before
    version = before.version + 1
    change = Change(version=version, state=made.state, at=now, why=why, attempt=made.attempts)
    history = (*before.history, change)
    if len(history) > HISTORY:
        history = (history[0], *history[2:])
    return replace(made, version=version, updated=now, history=history)
