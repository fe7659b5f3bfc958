"""The bodies of the tasks' API. Times are seconds since the epoch."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from chimera.gateway.api import MAX_MESSAGES, InvokeAnswer, Seconds, Subject
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.tasks.model import Change, Details, Progress, Task, TaskState
from chimera_host.contract.call import Message
from chimera_host.contract.problem import Problem

Priority = Annotated[int, Meta(ge=-100, le=100)]
Attempts = Annotated[int, Meta(ge=1, le=100)]
Time = Annotated[float, Meta(ge=0, le=253_402_300_799)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ToldState = Literal["started", "retried", "succeeded", "failed", "cancelled", "expired"]
ENDS: tuple[ToldState, ...] = ("succeeded", "failed", "cancelled", "expired")
Key = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,255}$")]


class WebhookBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a task's changes are told, as events `task.STATE` signed as Standard Webhooks says.

    `secret` refers to a secret; without it one is made, which the answer to the submission shows.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    states: Annotated[tuple[ToldState, ...], Meta(min_length=1, max_length=10)] = ENDS
    secret: Annotated[str, Meta(max_length=160)] = ""


class TaskBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task for an agent: what is asked, as in a call, and when and how it is to be done.

    `priority` is from -100 to 100: of a tenant's tasks the higher ones go first. `not_before` and `deadline` say when
    it may begin and when it must have ended. `max_attempts` bounds the attempts that fail, `attempt_seconds` the time
    of each. `webhook` is told how it ends.
    """

    input: str | None = None
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_MESSAGES)] | None = None
    session: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")] | None = None
    subject: Subject | None = None
    priority: Priority = 0
    not_before: Time | None = None
    deadline: Time | None = None
    max_attempts: Attempts | None = None
    attempt_seconds: Seconds | None = None
    webhook: WebhookBody | None = None

    def said(self) -> tuple[Message, ...]:
        """The messages, in either form."""
        if (self.input is None) == (self.messages is None):
            raise InvalidRequest("a task has either `input` or `messages`", next_step='send {"input": "what to do"}')
        if self.input is not None:
            return (Message(role="user", content=self.input),)
        messages = self.messages or ()
        if not messages or messages[-1].role != "user":
            raise InvalidRequest("the last of `messages` must be of the user", next_step='end with a "user" message')
        return messages


class BatchItem(TaskBody, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One task of a batch: its agent, and the Idempotency-Key that it would have alone."""

    agent: Name
    key: Key | None = None


class BatchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tasks that are accepted together, or not at all."""

    tasks: Annotated[tuple[BatchItem, ...], Meta(min_length=1, max_length=10_000)]


class TaskSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task in a list. One that an event started names the event, and the agent's `subscription` to it."""

    task: str
    agent: str
    tenant: str
    state: TaskState
    version: int
    created: float
    updated: float
    deadline: float
    priority: int = 0
    attempts: int = 0
    failures: int = 0
    max_attempts: int = 1
    due: float | None = None
    started: float | None = None
    finished: float | None = None
    expires: float | None = None
    cancelling: bool = False
    session: str | None = None
    subject: str | None = None
    by: str = ""
    problem: Problem | None = None
    subscription: str | None = None
    event: str | None = None


class TaskAnswer(TaskSummary, frozen=True, kw_only=True, omit_defaults=True):
    """A task: `result` is what a call would have been answered; `problem` why the last attempt failed.

    `webhook_secret` signs what its webhook is sent; only the answer to its submission has it.
    """

    history: tuple[Change, ...] = ()
    progress: Progress | None = None
    result: InvokeAnswer | None = None
    webhook_secret: str | None = None


class TaskPage(Struct, frozen=True, kw_only=True):
    """Tasks, newest first; the next page begins `after` the `next` of this one."""

    tasks: list[TaskSummary]
    next: str | None = None


class BatchEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one task of a batch; `existed` says that its key had made it before.

    `webhook_secret` signs what its webhook is sent.
    """

    task: str
    agent: str
    state: TaskState
    existed: bool = False
    webhook_secret: str | None = None


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """In the order of the request."""

    tasks: list[BatchEntry]


class StateEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The event `state` of a task's stream; its id is the task's version."""

    task: str
    state: TaskState
    version: int
    at: float
    why: str
    attempt: int = 0


StreamEventName = Literal["state", "progress", "delta", "tool", "end"]


def summary_of(task: Task) -> TaskSummary:
    """A task in a list."""
    return TaskSummary(**_shown(task))


def answer_of(details: Details, *, webhook_secret: str | None = None) -> TaskAnswer:
    """A task as it is shown alone, to its submitter with the secret of its webhook."""
    return TaskAnswer(
        **_shown(details.task),
        history=details.task.history,
        progress=details.progress,
        result=None if details.result is None else result_of(details.result),
        webhook_secret=webhook_secret,
    )


def result_of(stored: bytes) -> InvokeAnswer:
    """A stored result."""
    return msgspec.json.decode(stored, type=InvokeAnswer)


def _shown(task: Task) -> dict[str, Any]:
    names = TaskSummary.__struct_fields__
    return {**{name: getattr(task, name) for name in names if name != "by"}, "by": task.actor}
