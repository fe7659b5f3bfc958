"""Calls of tests as durable tasks: written to the queue, run by whichever gateway has room, read when they are over.

So a test's call takes the way of any call, a gateway that is killed loses none, and a control plane that is killed
finds its calls again by their keys. All calls that a process waits for share one loop: it submits what has come in one
transaction, asks for all versions in one query, and ends when nobody waits.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.delivery.trials.asking import Ask, Told
from chimera.delivery.trials.errors import NotRun
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


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call that somebody waits for, until the clock says `until`.

    `found` says that the task was there before it was asked for, `again` how often it was found cancelled.
    """

    made: Submission
    answer: "asyncio.Future[Told]"
    until: float
    found: bool = False
    again: int = 0


class TaskCalls:
    """The port `Calls`, on the queue of tasks."""

    def __init__(self, store: TaskStorage, clock: Clock, *, patience: float, poll: float) -> None:
        """A call may wait `patience` seconds for its turn; what became of calls is looked at every `poll` seconds."""
        self._store = store
        self._clock = clock
        self._patience = patience
        self._poll = poll
        self._new: list[_Waiting] = []
        self._waiting: dict[TaskKey, list[_Waiting]] = {}
        self._versions: dict[TaskKey, int] = {}
        self._loop: asyncio.Task[None] | None = None

    async def call(self, ask: Ask) -> Told:
        """See `Calls`."""
        until = self._clock.wall() + ask.seconds + self._patience + GRACE
        waiting = _Waiting(self._submission(ask), asyncio.get_running_loop().create_future(), until)
        self._new.append(waiting)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._work(), name="trial-calls")
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            await self._give_up(waiting.answer)
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
            subject=ask.subject,
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
        new = [one for one in self._new if not one.answer.done()]
        if new:
            accepted = await self._store.submit([one.made for one in new])
            for waiting, one in zip(new, accepted, strict=True):
                key = TaskKey(tenant=waiting.made.tenant, task=one.task.task)
                if waiting.answer.done():
                    if key not in self._waiting:
                        await self._cancel(key)  # it was given up while it was written
                elif one.mismatch:
                    said = f"the key of a test's call was used for another one of agent {waiting.made.agent}"
                    waiting.answer.set_exception(NotRun(said))
                else:
                    waiting.found = one.existed
                    self._waiting.setdefault(key, []).append(waiting)
                    self._versions.pop(key, None)  # who has come late is told, too
        self._new = [one for one in self._new if one not in new and not one.answer.done()]

    async def _look(self) -> None:
        self._forget()
        versions = await self._store.versions(list(self._waiting))
        now = self._clock.wall()
        for key, waiting in list(self._waiting.items()):
            found = versions.get(key)
            if found is not None and found[0] != self._versions.get(key):
                details = await self._store.get(key)
                self._versions[key] = found[0]
                if details is not None and details.task.is_finished:
                    self._over(key, waiting, details)
            for one in waiting:
                if (found is None or now >= one.until) and not one.answer.done():
                    one.answer.set_result(Told(problem=_not_run(key).problem()))

    def _over(self, key: TaskKey, waiting: Sequence[_Waiting], details: Details) -> None:
        for one in waiting:
            if one.answer.done():
                continue
            if details.task.state == "cancelled" and one.found:
                # Whoever waited for it before gave it up, such as a control plane that ended: it is made anew.
                one.again += 1
                again = f"{one.again}".encode()
                made = replace(one.made, task=new_id("task"), key=(one.made.key or b"") + b"\0" + again)
                self._new.append(_Waiting(made, one.answer, one.until, again=one.again))
            else:
                one.answer.set_result(_told(details))
        self._waiting.pop(key, None)

    def _forget(self) -> None:
        """Those that nobody waits for any more, but for given up ones: whoever gives one up cancels its task."""
        left = {
            key: [one for one in some if not one.answer.done() or one.answer.cancelled()]
            for key, some in self._waiting.items()
        }
        self._waiting = {key: some for key, some in left.items() if some}
        self._versions = {key: version for key, version in self._versions.items() if key in self._waiting}

    async def _give_up(self, answer: "asyncio.Future[Told]") -> None:
        self._new = [one for one in self._new if one.answer is not answer]
        for key, some in list(self._waiting.items()):
            if all(one.answer is not answer for one in some):
                continue
            self._waiting[key] = left = [one for one in some if one.answer is not answer]
            if not left:
                del self._waiting[key]
                await self._cancel(key)

    async def _cancel(self, key: TaskKey) -> None:
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
