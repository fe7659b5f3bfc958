"""Calls of tests as durable tasks: written to the queue, run by whichever gateway has room, read when they are over.

So a test's call takes the way of any call, a gateway that is killed loses none, and a control plane that is killed
finds its calls again by their keys. All calls that a process waits for share one loop: it submits what has come in one
transaction, asks for all versions in one query, and ends when nobody waits.
"""

import asyncio
import hashlib
import logging
from dataclasses import dataclass

import msgspec

from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.delivery.trials.asking import Ask, Told
from chimera.gateway.api import InvokeAnswer
from chimera.gateway.identity.principal import system
from chimera.gateway.state.rules import run_id
from chimera.gateway.tasks.errors import TaskFinished
from chimera.gateway.tasks.model import Details, Submission, TaskKey, TaskRequest
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

PRINCIPAL = system("trials")
ATTEMPTS = 1
AFTER_FAULT = 1.0
GRACE = 30.0
"""Seconds after a task's deadline in which a gateway says that it is over."""

_ENCODER = msgspec.json.Encoder()
_ANSWERS = msgspec.json.Decoder(InvokeAnswer)
_PRINCIPAL = _ENCODER.encode(PRINCIPAL)


class NotRun(ProblemError):
    """No gateway ran a test's call in time."""

    code = "trial-not-run"
    status = 504
    title = "The test was not run"


@dataclass(slots=True)
class _Waiting:
    """A call that somebody waits for, until the clock says `until`."""

    answer: "asyncio.Future[Told]"
    until: float
    version: int = 0


class TaskCalls:
    """The port `Calls`, on the queue of tasks."""

    def __init__(self, store: TaskStorage, clock: Clock, *, patience: float, poll: float) -> None:
        """A call may wait `patience` seconds for its turn; what became of calls is looked at every `poll` seconds."""
        self._store = store
        self._clock = clock
        self._patience = patience
        self._poll = poll
        self._new: list[tuple[Submission, _Waiting]] = []
        self._waiting: dict[TaskKey, _Waiting] = {}
        self._loop: asyncio.Task[None] | None = None

    async def call(self, ask: Ask) -> Told:
        """One call; cancelling this cancels it."""
        made = self._submission(ask)
        waiting = _Waiting(asyncio.get_running_loop().create_future(), self._clock.wall() + ask.seconds)
        waiting.until += self._patience + GRACE
        self._new.append((made, waiting))
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._work(), name="trial-calls")
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            await self._give_up(waiting)
            raise

    async def aclose(self) -> None:
        """Wait for nothing more."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def _submission(self, ask: Ask) -> Submission:
        request = _ENCODER.encode(
            TaskRequest(messages=ask.messages, principal=_PRINCIPAL, within=ask.seconds, trial=ask.request)
        )
        return Submission(
            tenant=ask.environment,
            task=new_id("task"),
            agent=ask.agent,
            request=request,
            digest=hashlib.sha256(request).digest(),
            deadline=self._clock.wall() + ask.seconds + self._patience,
            max_attempts=ATTEMPTS,
            key=run_id(ask.environment, ask.agent, PRINCIPAL.actor, ask.key).encode(),
            session=ask.session,
            actor=PRINCIPAL.actor,
        )

    async def _work(self) -> None:
        while self._new or self._waiting:
            try:
                await self._submit()
                await self._look()
            except ProblemError as error:
                log.warning("calls of tests could not be looked after", extra={"problem": error.detail})
                await asyncio.sleep(AFTER_FAULT)
            await asyncio.sleep(self._poll)

    async def _submit(self) -> None:
        new = [one for one in self._new if not one[1].answer.done()]
        if new:
            accepted = await self._store.submit([made for made, _ in new])
            for (made, waiting), one in zip(new, accepted, strict=True):
                if one.mismatch:
                    waiting.answer.set_exception(
                        NotRun(f"the key of a test's call was used for another one of agent {made.agent}")
                    )
                    continue
                self._waiting[TaskKey(tenant=made.tenant, task=one.task.task)] = waiting
        self._new = [one for one in self._new if one not in new and not one[1].answer.done()]

    async def _look(self) -> None:
        self._waiting = {key: one for key, one in self._waiting.items() if not one.answer.done()}
        versions = await self._store.versions(list(self._waiting))
        now = self._clock.wall()
        for key, waiting in list(self._waiting.items()):
            found = versions.get(key)
            if found is not None and found[0] != waiting.version:
                waiting.version = found[0]
                details = await self._store.get(key)
                if details is not None and details.task.is_finished and not waiting.answer.done():
                    waiting.answer.set_result(_told(details))
            elif (found is None or now >= waiting.until) and not waiting.answer.done():
                waiting.answer.set_result(Told(problem=_not_run(key).problem()))

    async def _give_up(self, waiting: _Waiting) -> None:
        self._new = [one for one in self._new if one[1] is not waiting]
        for key, one in list(self._waiting.items()):
            if one is waiting:
                del self._waiting[key]
                try:
                    await self._store.cancel(key, PRINCIPAL.actor)
                except (TaskFinished, ProblemError) as error:
                    log.info("a test's call was not cancelled", extra={"task": key.task, "problem": str(error)})


def _told(details: Details) -> Told:
    task = details.task
    if task.state == "succeeded" and details.result is not None:
        answer = _ANSWERS.decode(details.result)
        return Told(
            output=answer.output,
            seconds=answer.timings.run,
            tokens=answer.usage.total_tokens,
            model_calls=answer.model_calls,
            tool_calls=answer.tool_calls,
        )
    began = task.started if task.started is not None else task.updated
    seconds = max(0.0, (task.finished or task.updated) - began)
    if task.problem is not None:
        return Told(problem=task.problem, seconds=seconds)
    key = TaskKey(tenant=task.tenant, task=task.task)
    return Told(problem=_not_run(key, task.state).problem(), seconds=seconds)


def _not_run(key: TaskKey, state: str = "queued") -> NotRun:
    return NotRun(
        f"the call of the test ({key.task}) was not run in time; it is {state}",
        next_step="see whether a gateway runs, and whether the agent's budget or hosts leave room",
    )
