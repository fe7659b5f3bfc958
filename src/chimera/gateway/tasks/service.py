"""Tasks for callers: submitted, fetched, waited for, followed, listed and cancelled.

Whether an agent can be reached is said at once; all else happens later. A task is accepted when it is committed. The
principal that submitted it is kept with it, and what it may do is decided again whenever the task begins
(`chimera.gateway.tasks.worker`).
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from chimera.events.delivery.model import Target
from chimera.gateway.errors import InvalidRequest, NotServable, PayloadTooLarge
from chimera.gateway.identity.principal import Principal
from chimera.gateway.routes import RouteTable, check_offered
from chimera.gateway.state import rules as state_rules
from chimera.gateway.state.errors import KeyReused
from chimera.gateway.tasks.api import BatchItem, StateEvent, TaskBody, WebhookBody
from chimera.gateway.tasks.errors import TaskCancelled, TaskFinished, TaskNotFound, TooManyTasks
from chimera.gateway.tasks.model import Change, Details, Submission, Task, TaskFilter, TaskKey, TaskRequest
from chimera.gateway.tasks.ports import Accepted, TaskStore, Webhooks
from chimera.gateway.tasks.settings import TaskSettings
from chimera.gateway.tasks.watch import Watcher, Watchers
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import ProblemError, RemoteProblem

COUNTED = 10.0
"""Seconds for which a tenant's number of queued tasks is taken as true."""

_ENCODER = msgspec.json.Encoder()
_DETERMINISTIC = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a submission comes from: who, by which request, as part of which trace."""

    principal: Principal
    request: str | None = None
    traceparent: str | None = None


class StreamEvent(Struct, frozen=True, kw_only=True):
    """One event of a task's stream; those with an `id` can be resumed behind."""

    name: bytes
    data: bytes
    id: int | None = None


class Tasks:
    """The tasks of one gateway's callers."""

    def __init__(
        self,
        store: TaskStore,
        routes: RouteTable,
        watchers: Watchers,
        clock: Clock,
        *,
        settings: TaskSettings,
        wake: Callable[[], None],
        webhooks: Webhooks,
    ) -> None:
        """Keep tasks in `store`; `wake` whoever works on them here."""
        self._store = store
        self._routes = routes
        self._watchers = watchers
        self._clock = clock
        self._settings = settings
        self._wake = wake
        self._webhooks = webhooks
        self._queued: dict[str, tuple[float, int]] = {}

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def submit(
        self, tenant: str, wanted: Sequence[tuple[str, TaskBody, str | None]], origin: Origin
    ) -> list[Accepted]:
        """Accept tasks of (agent, body, Idempotency-Key), all or none; committed when it returns.

        Raises `KeyReused`, `TooManyTasks`, or what is wrong with one of them.
        """
        if len(wanted) > self._settings.batch:
            raise InvalidRequest(
                f"a batch has at most {self._settings.batch} tasks, not {len(wanted)}",
                next_step="send several batches, or raise the setting tasks.batch",
            )
        await self._check_room(tenant, len(wanted))
        principal = _ENCODER.encode(origin.principal)
        # Of one batch the ids are in its order, and so are its tasks in their queues.
        ids = sorted(new_id("task") for _ in wanted)
        made = [
            self._submission(tenant, agent, body, key, task, principal, origin)
            for (agent, body, key), task in zip(wanted, ids, strict=True)
        ]
        accepted = list(await self._store.submit(made))
        for (agent, _, _), one in zip(wanted, accepted, strict=True):
            if one.mismatch:
                raise KeyReused(
                    f"its Idempotency-Key was used for another task of agent {agent} ({one.task.task})",
                    next_step="use a new key for a new task",
                    agent=agent,
                )
        self._wake()
        return accepted

    async def take(self, tenant: str, made: Sequence[Submission]) -> Sequence[Accepted]:
        """Accept tasks that the platform itself has made, each once by its key; committed when it returns.

        Raises `TooManyTasks`.
        """
        await self._check_room(tenant, len(made))
        accepted = await self._store.submit(made)
        self._wake()
        return accepted

    async def _check_room(self, tenant: str, more: int) -> None:
        now, most = self._clock.monotonic(), self._settings.waiting
        until, count = self._queued.get(tenant, (0.0, 0))
        if now >= until:
            for old in [name for name, (then, _) in self._queued.items() if now >= then]:
                del self._queued[old]
            until, count = now + COUNTED, await self._store.backlog(tenant, most + 1)
        if count + more > most:
            raise TooManyTasks(
                f"tenant {tenant} has about {count} tasks queued, and may have {most}",
                next_step="wait until some are done, or raise the setting tasks.waiting",
                retry_after=COUNTED,
            )
        self._queued[tenant] = (until, count + more)

    def _submission(
        self,
        tenant: str,
        agent: str,
        body: TaskBody,
        key: str | None,
        task: str,
        principal: bytes,
        origin: Origin,
    ) -> Submission:
        self._check_agent(tenant, agent)
        messages = body.said()
        state_rules.check_subject(body.subject)
        now = self._clock.wall()
        deadline = now + self._settings.life if body.deadline is None else body.deadline
        if deadline <= max(now, body.not_before or 0.0):
            raise InvalidRequest(
                f"the deadline {deadline:.0f} is over, or before the task may begin",
                next_step="give a deadline in seconds since the epoch that is later than `not_before`",
                agent=agent,
            )
        request = _ENCODER.encode(
            TaskRequest(
                messages=messages,
                principal=principal,
                within=body.attempt_seconds,
                traceparent=origin.traceparent,
                request=origin.request,
            )
        )
        if len(request) > self._settings.request_bytes:
            raise PayloadTooLarge(
                f"a task's request has at most {self._settings.request_bytes} bytes, not {len(request)}",
                next_step="send less, or raise the setting tasks.request_bytes",
                agent=agent,
            )
        actor = origin.principal.actor
        return Submission(
            tenant=tenant,
            task=task,
            agent=agent,
            request=request,
            digest=_digest(agent, body),
            deadline=deadline,
            priority=body.priority,
            not_before=body.not_before,
            max_attempts=body.max_attempts or self._settings.attempts,
            key=None if key is None else state_rules.run_id(tenant, agent, actor, key).encode(),
            session=body.session,
            subject=body.subject,
            actor=actor,
            webhook=None if (told := body.webhook) is None else self._target(tenant, told),
        )

    def secret_of(self, accepted: Accepted, body: TaskBody) -> str | None:
        """The secret of an accepted task's webhook, for whoever submitted it."""
        if body.webhook is None:
            return None
        task = accepted.task
        return self._webhooks.secret_of(task.tenant, task.task, self._target(task.tenant, body.webhook))

    def _target(self, tenant: str, told: WebhookBody) -> Target:
        return self._webhooks.target(tenant, told.url, told.states, told.secret)

    def _check_agent(self, tenant: str, agent: str) -> None:
        route = self._routes.find(tenant, agent)
        check_offered(route, "task")
        if route.unservable is not None:
            raise NotServable(route.unservable, next_step="see `chimera describe`", agent=agent)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def get(self, key: TaskKey, agent: str) -> Details:
        """The task of an agent. Raises `TaskNotFound`."""
        found = await self._store.get(key)
        if found is None or found.task.agent != agent:
            raise _not_found(key, agent)
        return found

    async def page(self, wanted: TaskFilter) -> Sequence[Task]:
        """Tasks, newest first."""
        return await self._store.page(wanted)

    async def wait(self, key: TaskKey, agent: str, within: float) -> Details:
        """The task once it has ended, or as it is after `within` seconds."""
        found = await self.get(key, agent)
        if found.task.is_finished or within <= 0:
            return found
        until = self._clock.monotonic() + within
        async with self._watchers.watching(key) as watcher:
            while True:
                found = await self.get(key, agent)
                if found.task.is_finished or not await watcher.changed(until - self._clock.monotonic()):
                    return found

    async def follow(self, key: TaskKey, agent: str, after: int) -> AsyncGenerator[StreamEvent, None]:
        """What happens to the task behind its version `after`, until it ends or `tasks.watch` seconds are over.

        Changes of state come from the record and are complete; of progress only the newest is told. The last event,
        `end`, says that nothing will follow; without it the reader resumes.
        """
        until = self._clock.monotonic() + self._settings.watch
        told = 0.0
        async with self._watchers.watching(key) as watcher:
            while True:
                found = await self.get(key, agent)
                for change in found.task.history:
                    if change.version > after:
                        after = change.version
                        yield _state(found.task, change)
                if found.progress is not None and found.progress.at > told and not found.task.is_finished:
                    told = found.progress.at
                    yield StreamEvent(name=b"progress", data=_ENCODER.encode(found.progress))
                while watcher.pieces:
                    name, data = watcher.pieces.popleft()
                    yield StreamEvent(name=name, data=data)
                if found.task.is_finished:
                    yield StreamEvent(name=b"end", data=_ENCODER.encode({"state": found.task.state}))
                    return
                if not await self._more(watcher, until):
                    return

    async def _more(self, watcher: Watcher, until: float) -> bool:
        return await watcher.changed(until - self._clock.monotonic())

    # -- ending -------------------------------------------------------------------------------------------------------

    async def cancel(self, key: TaskKey, agent: str, by: str) -> Task:
        """Cancel it: at once where it isn't running, else its call is ended. Twice is once. Raises `TaskFinished`."""
        found = await self.get(key, agent)
        if found.task.state == "cancelled":
            return found.task
        try:
            made = await self._store.cancel(key, by)
        except TaskFinished:
            found = await self.get(key, agent)
            if found.task.state == "cancelled":
                return found.task
            raise
        if made is None:
            raise _not_found(key, agent)
        self._watchers.tell(key)
        self._wake()
        return made


def _digest(agent: str, body: TaskBody) -> bytes:
    """What two submissions with one key must have in common: all of them."""
    values = {name: getattr(body, name) for name in TaskBody.__struct_fields__}
    if body.webhook is None:
        del values["webhook"]  # so that a key goes on over an upgrade to the release that has webhooks
    return state_rules.content_digest(agent.encode(), _DETERMINISTIC.encode(values))


def _state(task: Task, change: Change) -> StreamEvent:
    event = StateEvent(task=task.task, **msgspec.structs.asdict(change))
    return StreamEvent(name=b"state", data=_ENCODER.encode(event), id=change.version)


def _not_found(key: TaskKey, agent: str) -> TaskNotFound:
    return TaskNotFound(
        f"agent {agent[:63]} has no task {key.task[:40]!r}",
        next_step="list them with `chimera tasks list`; ended ones are kept for `tasks.result_ttl`",
    )


def failure_of(details: Details) -> ProblemError | None:
    """Why an ended task has no result, as a call would have been answered; None where it has one."""
    task = details.task
    if task.state == "cancelled":
        return TaskCancelled(f"task {task.task} was cancelled", next_step="submit it again", agent=task.agent)
    return None if task.problem is None or task.state == "succeeded" else RemoteProblem(task.problem)


def items_of(items: Sequence[BatchItem]) -> list[tuple[str, TaskBody, str | None]]:
    """A batch as `Tasks.submit` takes it."""
    return [(item.agent, item, item.key) for item in items]
