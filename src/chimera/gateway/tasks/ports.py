"""What tasks need of storage."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from chimera.events.delivery.model import Target
from chimera.gateway.state.ports import Record
from chimera.gateway.tasks.claims import Survey, Turns, Want
from chimera.gateway.tasks.model import Claimed, Details, Progress, Submission, Task, TaskFilter, TaskKey
from chimera.gateway.tasks.rules import Event


class Accepted(Struct, frozen=True, kw_only=True):
    """What became of a submission: the task, and whether it was there already.

    `mismatch` says that the key was used for another request.
    """

    task: Task
    existed: bool = False
    mismatch: bool = False


class Held(Struct, frozen=True, kw_only=True):
    """A running task of a worker, and whether it is to be cancelled."""

    key: TaskKey
    token: int
    cancelling: bool


class Look(Struct, frozen=True, kw_only=True):
    """What is queued, whether anything is overdue, and what the worker has taken, as one read found it."""

    survey: Survey
    overdue: bool
    held: Sequence[Held]


class TaskStore(Protocol):
    """The queue and its tasks, shared by all gateways on one database.

    Times that decide about leases are the database's; a write of a worker that has lost a task raises `TaskTaken`.
    """

    async def submit(self, tasks: Sequence[Submission]) -> Sequence[Accepted]:
        """Accept tasks, all in one transaction; durable when it returns."""

    async def backlog(self, tenant: str, most: int) -> int:
        """How many tasks of a tenant are queued, counted up to `most`."""

    async def get(self, key: TaskKey) -> Details | None:
        """A task with its result and progress."""

    async def page(self, wanted: TaskFilter) -> Sequence[Task]:
        """Tasks, newest first."""

    async def cancel(self, key: TaskKey, by: str) -> Task | None:
        """Cancel it, or ask its worker to; None where there is none. Raises `TaskFinished`."""

    async def versions(self, keys: Sequence[TaskKey]) -> Mapping[TaskKey, tuple[int, float]]:
        """The version of each task, and when its progress was last written; tasks that are gone are left out."""

    # -- workers ------------------------------------------------------------------------------------------------------

    async def look(self, worker: str, turns: Turns) -> Look:
        """See `Look`; writes nothing."""

    async def tend(self, *, losses: int, limit: int) -> int:
        """Queue what is due, expire what is late, take from workers that are lost; how many tasks changed."""

    async def arrive(self, worker: str, life: float) -> None:
        """A worker begins, and lives for `life` seconds."""

    async def beat(self, worker: str, life: float) -> None:
        """The worker lives for `life` seconds more. Raises `WorkerLost`."""

    async def claim(self, worker: str, wants: Sequence[Want], life: float) -> Sequence[Claimed]:
        """Take tasks; the worker lives for `life` seconds more. Raises `WorkerLost`."""

    async def settle(self, key: TaskKey, event: Event, result: bytes | None = None) -> Task:
        """What a worker's attempt has come to. Raises `TaskTaken`."""

    async def progress(self, worker: str, rows: Mapping[TaskKey, tuple[int, Progress]]) -> None:
        """Write down by task its token and how far it is; of a task that was lost nothing."""

    async def saved(self, key: TaskKey) -> int:
        """How much the task's run has saved of what it finished, in bytes."""

    async def leave(self, worker: str) -> None:
        """The worker has no task any more and ends."""


class Webhooks(Protocol):
    """What makes the webhooks of tasks."""

    def target(self, tenant: str, url: str, states: Sequence[str], secret: str) -> Target:
        """Where a task tells its states. Raises what is wrong with the address or the secret's reference."""

    def secret_of(self, tenant: str, task: str, target: Target) -> str | None:
        """The secret that signs, as the submitter is told it; None where it is referred to."""


class TaskPeople(Protocol):
    """What tasks keep of people; a `SubjectPart`."""

    async def count(self, tenant: str, subject: str) -> int:
        """How many tasks are a person's."""

    async def records(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[Record]:
        """A page of them, as they are exported."""

    async def erase(self, tenant: str, subject: str, limit: int) -> int:
        """Remove up to `limit` of them."""
