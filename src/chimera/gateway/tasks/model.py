"""A task and what it may become, as values."""

from typing import Any, Literal

from msgspec import Struct

from chimera.delivery.trials.asking import TrialRequest
from chimera.events.delivery.model import Target
from chimera_host.contract.call import Message
from chimera_host.contract.problem import Problem

TaskState = Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled", "expired"]
"""`waiting` until it is due (not before a time, or between attempts), `queued` until a gateway has room for it."""

UNFINISHED: tuple[TaskState, ...] = ("waiting", "queued", "running")
FINISHED: tuple[TaskState, ...] = ("succeeded", "failed", "cancelled", "expired")

HISTORY = 64
"""Changes of state that a task remembers: its first, and its last ones."""


class TaskKey(Struct, frozen=True, kw_only=True):
    """Where a task is."""

    tenant: str
    task: str


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of a task's state. `version` is the task's after it; `why` names the rule, or a problem's code."""

    version: int
    state: TaskState
    at: float
    why: str
    attempt: int = 0


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far the attempt under way is, as last written down.

    `steps` are the finished ones that survive its host. `source` is the participant, task or node that spoke last,
    `text` the end of what it said, `characters` how much there was in all, `tool` the one it called last.
    """

    attempt: int
    at: float
    steps: int = 0
    characters: int = 0
    text: str = ""
    source: str | None = None
    tool: str | None = None


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who hears how a task of a message ends: the agent that sent it, in its session.

    `message` is the message that is answered, `asked` its beginning, `correlation` the conversation, `subject` the
    person whom it is for.
    """

    agent: str
    message: str
    correlation: str
    session: str
    subject: str | None = None
    asked: str | None = None


class StartedBy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The event that started a task: `source` and `event` (its id), and the agent's `subscription` to it.

    `hops` is how many agents events have started, one by the other, down to this. `replays` counts how often the event
    was sent again by a person. `sender` is the agent whose message it is, `reply` who hears the answer.
    """

    subscription: str
    source: str
    event: str
    hops: int = 1
    replays: int = 0
    sender: str | None = None
    reply: Reply | None = None


class TaskRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked, as stored: all that decides what is done. `event` is the CloudEvent that asks, where one does.

    `trial` makes it a test, which only the platform asks for.
    """

    messages: tuple[Message, ...]
    principal: bytes
    within: float | None = None
    traceparent: str | None = None
    request: str | None = None
    event: dict[str, Any] | None = None
    trial: TrialRequest | None = None


class Submission(Struct, frozen=True, kw_only=True):
    """A task that somebody wants. `key` is the digest of the caller's Idempotency-Key, `digest` that of the request."""

    tenant: str
    task: str
    agent: str
    request: bytes
    digest: bytes
    deadline: float
    priority: int = 0
    not_before: float | None = None
    max_attempts: int = 3
    key: bytes | None = None
    session: str | None = None
    subject: str | None = None
    actor: str = ""
    webhook: Target | None = None
    origin: StartedBy | None = None


class Task(Struct, frozen=True, kw_only=True):
    """A task as stored, without its request and result.

    `version` grows with every change; `token` is the fencing token: it grows whenever a worker takes the task, and what
    a worker writes names it. `attempts` counts how often it was begun, `failures` the attempts that count against
    `max_attempts`, `losses` how often its worker was lost. `due` is when a waiting task is queued. `seen` is how
    much its run had saved when its last attempt ended, in bytes. `origin` is the event that started it. Times are
    seconds since the epoch.
    """

    tenant: str
    task: str
    agent: str
    state: TaskState
    version: int
    created: float
    updated: float
    deadline: float
    priority: int = 0
    due: float | None = None
    max_attempts: int = 3
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    worker: str = ""
    token: int = 0
    cancelling: bool = False
    seen: int = 0
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    session: str | None = None
    subject: str | None = None
    actor: str = ""
    history: tuple[Change, ...] = ()
    problem: Problem | None = None
    origin: StartedBy | None = None

    @property
    def subscription(self) -> str | None:
        """The agent's subscription that an event started it by."""
        return None if self.origin is None else self.origin.subscription

    @property
    def event(self) -> str | None:
        """The id of the event that started it."""
        return None if self.origin is None else self.origin.event

    @property
    def is_finished(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in FINISHED

    @property
    def lane(self) -> str | None:
        """Where it queues: lanes sort by urgency, and then by agent; None while it isn't queued."""
        return lane_of(self.agent, self.priority) if self.state == "queued" else None


class Details(Struct, frozen=True, kw_only=True):
    """A task with what it has come to: `result` is the answer as JSON."""

    task: Task
    result: bytes | None = None
    progress: Progress | None = None


class Claimed(Struct, frozen=True, kw_only=True):
    """A task that a worker has taken, with what was asked."""

    task: Task
    request: TaskRequest


class TaskFilter(Struct, frozen=True, kw_only=True):
    """Which tasks a page lists, newest first: those behind `before`."""

    tenant: str
    agent: str | None = None
    state: TaskState | None = None
    session: str | None = None
    subject: str | None = None
    before: str | None = None
    limit: int = 100


def lane_of(agent: str, priority: int) -> str:
    """The lane of an agent's tasks of one priority (-100 to 100)."""
    return f"{100 - priority:03d}/{agent}"


def agent_of(lane: str) -> str:
    """The agent of a lane."""
    return lane.partition("/")[2]


def fact_data(task: Task) -> dict[str, Any]:
    """What facts say of a task: nothing of what is asked or answered."""
    data: dict[str, Any] = {
        "task": task.task,
        "agent": task.agent,
        "state": task.state,
        "version": task.version,
        "attempts": task.attempts,
        "by": task.actor,
    }
    if task.session is not None:
        data["session"] = task.session
    if task.problem is not None:
        data["problem"] = task.problem.code
    return data
