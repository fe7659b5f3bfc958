"""Works tasks off: one worker a gateway, one look at the queue for all of them, one call for each task it has taken.

Three loops, however many tasks there are: one looks at the queue and takes what there is room for; one says that the
worker lives; one writes down progress. Each task that was taken is a call like any other (`chimera.gateway.invoke`), on
a run of the task's name: what its agent's framework finishes is committed step by step, and whoever has the task next
goes on from there. An answer that was committed before its task was settled is found by the next attempt and not made
again.

A worker that can't say that it lives ends its calls when its lease is over, by its own monotonic clock: others may have
its tasks by then. What it would still write is refused by its tokens. It begins again under another name. A claim whose
answer was lost leaves tasks that this worker has and doesn't know of; the next look finds them, and gives them back.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from chimera.gateway import api
from chimera.gateway.admission import Admission
from chimera.gateway.audit import AuditTrail, denial
from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.hosts import Sink
from chimera.gateway.identity.errors import NotAllowed, TenantSuspended
from chimera.gateway.identity.principal import Principal
from chimera.gateway.invoke import Answered, Incoming
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.policy.authorise import Asked, Authoriser
from chimera.gateway.quota.service import Quota
from chimera.gateway.routes import Protocol as CallProtocol
from chimera.gateway.routes import RouteTable
from chimera.gateway.state.errors import RunInProgress
from chimera.gateway.state.runs import Wanted
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import Turns, choose
from chimera.gateway.tasks.errors import TaskTaken, WorkerLost
from chimera.gateway.tasks.model import Claimed, Task, TaskKey
from chimera.gateway.tasks.ports import Held, Look, TaskStore
from chimera.gateway.tasks.progress import Reporter
from chimera.gateway.tasks.retries import Backoff, verdict
from chimera.gateway.tasks.settings import TaskSettings
from chimera.gateway.tasks.watch import Watchers
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import ProblemError
from chimera_host.trace import parse

log = logging.getLogger(__name__)

TENDED = 500
"""Tasks that one transaction queues, expires or takes from lost workers."""

BEAT_PAUSE = 0.5
"""Seconds until a beat that failed is tried again."""

_ASKED = Asked(protocol="task")
_STARTED: tuple[CallProtocol, CallProtocol] = ("event", "message")
"""The protocol of a call that an event started: of anybody's, or an agent's message."""
_ENCODER = msgspec.json.Encoder()
_PRINCIPALS = msgspec.json.Decoder(Principal)

Why = Literal["lost", "cancel", "leave"]


class Calls(Protocol):
    """Whatever runs calls."""

    async def run(self, incoming: Incoming, sink: Sink | None = None) -> Answered:
        """One call; cancelling this cancels it in its host."""


class _Running:
    """A task that this worker has."""

    __slots__ = ("claimed", "settling", "why", "work")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.settling = False
        self.why: Why | None = None
        self.work: asyncio.Task[None]

    def stop(self, why: Why) -> None:
        """End its call; what is being settled already is let be: its token says whether it counts."""
        if self.why is None and not self.settling:
            self.why = why
            self.work.cancel()


class Worker:
    """The worker of one gateway."""

    def __init__(
        self,
        store: TaskStore,
        calls: Calls,
        *,
        routes: RouteTable,
        admission: Admission,
        quota: Quota,
        authoriser: Authoriser,
        audit: AuditTrail,
        watchers: Watchers,
        metrics: GatewayMetrics,
        clock: Clock,
        settings: TaskSettings,
        longest: float,
        draw: Callable[[], float] = random.random,
        in_session: Callable[[str, str, str], bool] = lambda *_: False,
    ) -> None:
        """Run `calls` of up to `longest` seconds for what is in `store`.

        `in_session` says whether a call of a tenant's agent is under way in a session: what events start waits for it.
        """
        self._in_session = in_session
        self._store = store
        self._calls = calls
        self._routes = routes
        self._admission = admission
        self._quota = quota
        self._authoriser = authoriser
        self._audit = audit
        self._watchers = watchers
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._longest = longest
        self._draw = draw
        self._backoff = Backoff(first=settings.backoff, cap=settings.backoff_cap)
        self._running: dict[TaskKey, _Running] = {}
        self._of_agent: Counter[tuple[str, str]] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        self._resting: dict[tuple[str, str], float] = {}
        self._turns = Turns()
        self._wanted = asyncio.Event()
        self._closing = False
        self._claiming = False
        self.reporter = Reporter(store, watchers, clock, every=settings.progress, text=settings.progress_text)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.name = new_id("worker")
        self._arrived = False
        self._heard = self._clock.monotonic()

    @property
    def running(self) -> int:
        """Tasks that this worker has."""
        return len(self._running)

    def wake(self) -> None:
        """There may be something to do, which matters where there is room for it."""
        if len(self._running) < self._settings.concurrency:
            self._wanted.set()

    # -- loops --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """All three loops, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop, name in ((self._work(), "work"), (self._live(), "live"), (self._report(), "report")):
                group.create_task(loop, name=f"tasks-{name}")

    async def _work(self) -> None:
        while True:
            self._wanted.clear()
            try:
                await self.look()
            except WorkerLost:
                self._lose()
            except ProblemError as error:
                log.warning("the task queue could not be worked", extra={"problem": error.detail})
            try:
                async with asyncio.timeout(self._settings.poll):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _live(self) -> None:
        every = self._settings.lease / 3
        while True:
            await asyncio.sleep(max(0.0, min(every, self._left())) if self._arrived else every)
            if not self._arrived:
                continue
            if self._left() <= 0:
                self._lose()
                continue
            name, asked = self.name, self._clock.monotonic()
            try:
                async with asyncio.timeout(max(0.0, min(every, self._left()))):
                    if not self._running and not self._claiming:
                        self._begin_anew()  # whoever has nothing need not be heard of
                        await self._store.leave(name)
                        continue
                    await self._store.beat(name, self._settings.lease)
                if name == self.name:
                    self._heard = max(self._heard, asked)
            except WorkerLost:
                if name == self.name:
                    self._lose()
            except (TimeoutError, ProblemError) as error:
                log.warning("the worker of tasks could not say that it lives", extra={"error": str(error)})
                await asyncio.sleep(min(every, BEAT_PAUSE))

    def _left(self) -> float:
        """Seconds until others may have this worker's tasks."""
        return self._heard + self._settings.lease - self._clock.monotonic()

    async def _report(self) -> None:
        while True:
            await self.reporter.wait()
            try:
                await self.reporter.write(self.name)
            except ProblemError as error:
                log.warning("progress of tasks could not be written", extra={"problem": error.detail})
            await asyncio.sleep(self._settings.progress)

    def _lose(self) -> None:
        """Others may have this worker's tasks: end their calls, and begin again under another name."""
        if self._running:
            log.warning("a worker was lost with its tasks", extra={"worker": self.name, "tasks": len(self._running)})
        for running in list(self._running.values()):
            running.stop("lost")
        self._begin_anew()

    # -- the queue ----------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One look at the queue: tend it, end what is to be cancelled, take what there is room for."""
        while True:
            look = await self._store.look(self.name, self._turns)
            await self._compare(look)
            if look.overdue and await self._store.tend(losses=self._settings.losses, limit=TENDED):
                continue
            if not await self._take(look):
                return

    async def _compare(self, look: Look) -> None:
        for held in look.held:
            running = self._running.get(held.key)
            if running is None or running.claimed.task.token != held.token:
                await self._give_back(held)
            elif held.cancelling:
                running.stop("cancel")

    async def _give_back(self, held: Held) -> None:
        """A claim whose answer was lost made this worker the holder of a task that it doesn't know of."""
        try:
            await self._store.settle(held.key, rules.GiveBack(worker=self.name, token=held.token))
        except TaskTaken:
            return  # it has ended since the look

    async def _take(self, look: Look) -> int:
        free = self._settings.concurrency - len(self._running)
        if self._closing or free <= 0 or not look.survey.lanes:
            return 0
        wants, turns = choose(look.survey, free=free, room=self._room, turns=self._turns)
        if not wants:
            return 0
        asked, name = self._clock.monotonic(), self.name
        self._claiming = True
        try:
            if not self._arrived:
                await self._store.arrive(name, self._settings.lease)
                self._arrived, self._heard = True, asked
            claimed = await self._store.claim(name, wants, self._settings.lease)
        finally:
            self._claiming = False
        turns.forget(list(look.survey.lanes))
        self._turns = turns
        if name != self.name or self._closing:
            return 0  # lost, or leaving, meanwhile: the tasks are found and given back
        self._heard = max(self._heard, asked)
        for one in claimed:
            self._begin(one)
        return len(claimed)

    def _room(self, tenant: str, agent: str) -> int:
        key = (tenant, agent)
        if (until := self._resting.get(key)) is not None:
            if self._clock.monotonic() < until:
                return 0
            del self._resting[key]
        route = self._routes.known(tenant, agent)
        if route is None:
            return 1  # it is taken, and told that there is no such agent
        limit = self._quota.share(route.concurrency)
        most = max(1, int(limit * self._settings.agent_share))
        return max(0, min(most - self._of_agent[key], limit - self._admission.running(key)))

    # -- one task -----------------------------------------------------------------------------------------------------

    def _begin(self, claimed: Claimed) -> None:
        task = claimed.task
        key = TaskKey(tenant=task.tenant, task=task.task)
        running = _Running(claimed)
        self._running[key] = running
        self._of_agent[task.tenant, task.agent] += 1
        self._metrics.tasks_running.set(len(self._running))
        self._metrics.task_wait.observe(max(0.0, task.updated - max(task.created, task.history[-2].at)))
        running.work = asyncio.create_task(self._do(key, running), name=f"task-{task.task}")
        self._ending.add(running.work)
        running.work.add_done_callback(self._ending.discard)
        self._watchers.tell(key)

    async def _do(self, key: TaskKey, running: _Running) -> None:
        task = running.claimed.task
        worker = task.worker
        result: bytes | None = None
        event: rules.Event
        try:
            try:
                event, result = await self._attempt(key, running.claimed)
            except asyncio.CancelledError:
                if running.why not in ("cancel", "leave"):
                    return  # its tasks are others'
                who: dict[str, Any] = {"worker": worker, "token": task.token}
                event = rules.Stopped(**who) if running.why == "cancel" else rules.GiveBack(**who)
            running.settling = True
            await self._settle(key, event, result)
        except Exception:
            log.exception("a task could not be worked on", extra={"task": task.task})
        finally:
            if self._running.get(key) is running:
                del self._running[key]
            self._of_agent[task.tenant, task.agent] -= 1
            if not self._of_agent[task.tenant, task.agent]:
                del self._of_agent[task.tenant, task.agent]
            self.reporter.forget(key)
            self._metrics.tasks_running.set(len(self._running))
            self._watchers.tell(key)
            self._wanted.set()

    async def _attempt(self, key: TaskKey, claimed: Claimed) -> tuple[rules.Event, bytes | None]:
        task, request = claimed.task, claimed.request
        try:
            principal = _PRINCIPALS.decode(request.principal)
            await self._check(principal, task)
            self._check_session(task)
            protocol: CallProtocol = "task" if task.origin is None else _STARTED[task.origin.sender is not None]
            left = task.deadline - self._clock.wall()
            incoming = Incoming(
                tenant=task.tenant,
                agent=task.agent,
                messages=request.messages,
                protocol=protocol,
                state=Wanted(
                    actor=task.actor,
                    run=task.task,
                    session=task.session,
                    subject=task.subject,
                    hops=0 if task.origin is None else task.origin.hops,
                ),
                within=max(0.001, min(self._longest if request.within is None else request.within, left)),
                trace=parse(request.traceparent),
                request=request.request or task.task,
                actor=task.actor,
                trial=request.trial,
            )
            if self._routes.known(task.tenant, task.agent) is None:
                await self._routes.fresh()  # whoever submitted it may know more than this gateway
            answered = await self._calls.run(incoming, self.reporter.sink(key, task))
            result = _ENCODER.encode(api.answer_of(answered, task.session))
            if len(result) > self._settings.result_bytes:
                raise PayloadTooLarge(
                    f"the result has {len(result)} bytes; it may have {self._settings.result_bytes}",
                    next_step="have the agent answer less, or raise the setting tasks.result_bytes",
                    agent=task.agent,
                )
        except ProblemError as error:
            return await self._failed(key, task, error), None
        except Exception as error:
            log.exception("a task's call failed", extra={"task": task.task})
            unforeseen = ProblemError(f"the gateway failed: {type(error).__name__}", next_step="see the gateway's log")
            return await self._failed(key, task, unforeseen), None
        return rules.Succeed(worker=task.worker, token=task.token), result

    def _check_session(self, task: Task) -> None:
        """Leave a session to the call that is under way in it: both would save, and one of them in vain."""
        session = task.session
        if task.origin is not None and session is not None and self._in_session(task.tenant, task.agent, session):
            raise RunInProgress(f"a call is under way in session {session}", retry_after=1.0, agent=task.agent)

    async def _check(self, principal: Principal, task: Task) -> None:
        """Whether who submitted it may still call its agent."""
        asked = _ASKED
        if (origin := task.origin) is not None:
            sender = principal.subject if principal.kind == "agent" else origin.sender or task.agent
            asked = Asked(
                protocol=_STARTED[origin.sender is not None],
                depth=origin.hops,
                caller=self._authoriser.facts_of(task.tenant, sender),
            )
        try:
            self._authoriser.check_agent(principal, task.tenant, task.agent, asked)
        except (NotAllowed, TenantSuspended) as error:
            if (entry := denial(error, at=self._audit.now(), request=task.task)) is not None:
                await self._audit.refused(entry)
            raise

    async def _failed(self, key: TaskKey, task: Task, error: ProblemError) -> rules.Event:
        settings = self._settings
        made = verdict(error, failures=task.failures, backoff=self._backoff, rest=settings.rest, draw=self._draw())
        if made.rest > 0:
            self._resting[task.tenant, task.agent] = self._clock.monotonic() + made.rest
        saved = task.seen
        if error.code == rules.OUT_OF_TIME:
            saved = await self._store.saved(key)
        return rules.Fail(
            worker=task.worker,
            token=task.token,
            problem=error.problem(),
            kind=made.kind,
            after=made.after,
            saved=saved,
        )

    async def _settle(self, key: TaskKey, event: rules.Event, result: bytes | None) -> None:
        """Write down what came of it, for as long as the lease may last; after that it is somebody else's anyway."""
        until = self._clock.monotonic() + self._settings.lease * 2
        pause = 0.05
        while True:
            try:
                task = await self._store.settle(key, event, result)
            except TaskTaken:
                self._metrics.tasks.labels("taken").inc()
                return
            except ProblemError as error:
                # Also `storage-unsure`: where it was stored after all, the next try finds the token gone.
                if self._clock.monotonic() >= until:
                    log.warning("a task was not settled", extra={"task": key.task, "problem": error.detail})
                    return
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)
            else:
                self._metrics.tasks.labels(task.history[-1].why).inc()
                return

    # -- the end ------------------------------------------------------------------------------------------------------

    async def leave(self, within: float) -> None:
        """Take nothing more; let tasks end for `within` seconds, and give the others back."""
        self._closing = True
        if self._ending:
            await asyncio.wait(self._ending, timeout=max(0.0, within))
        for running in list(self._running.values()):
            running.stop("leave")
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._arrived:
            try:
                await self._store.leave(self.name)
            except ProblemError as error:
                log.warning("the worker of tasks could not say that it ends", extra={"problem": error.detail})
