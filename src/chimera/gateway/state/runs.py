"""Runs: pieces of work that may take several hosts, or several calls.

A call has a run where it has a session, an Idempotency-Key, or belongs to a task. What its frameworks finish step by
step is committed under the run. When its host dies, or the call ends otherwise before it has an answer, the run stays
unfinished, and somebody goes on with it from the last finished step:

- the gateway itself on another host, where repeating the step in flight is safe (`chimera.gateway.invoke`);
- a call with the same Idempotency-Key, of the same caller and with the same messages;
- the next call of the session with the same messages, or with `resume`.

A call of the session with other messages gives the unfinished run up. The messages that it had finished, and what they
answer, are part of the conversation first: they were said. Steps of other kinds are dropped with it.

A finished run with a key keeps its answer for a while and gives it again. Runs that are not named by a key leave
nothing once they are finished, and one without a finished step was never written down: a call of a session costs no
more than its session.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import assert_never

import msgspec
from msgspec.structs import replace

from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import StateSettings
from chimera.gateway.state import rules
from chimera.gateway.state.errors import KeyReused, NothingToResume, RunInProgress
from chimera.gateway.state.model import NewStep, RunRequest, StoredRun, StoredSession
from chimera.gateway.state.ports import Kept, RunLimits, RunStore
from chimera.gateway.state.sessions import Sessions
from chimera.kernel.clock import Clock
from chimera_host.contract.call import InvokeResponse, Message, SessionState
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import FinishedStep, RunState, StepBody, StepPage

log = logging.getLogger(__name__)

PAGE = 200
_answers = msgspec.json.Decoder(InvokeResponse)
_requests = msgspec.json.Decoder(RunRequest)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a call says of its run.

    `key` is the caller's Idempotency-Key, which names a run of `actor` alone; `run` one that the platform names (a
    task's). `subject` is the person whom it is for. With `resume` the call goes on with the session's unfinished run,
    whatever its messages. `hops` is how many agents events have started down to this call.
    """

    actor: str = ""
    key: str | None = None
    run: str | None = None
    session: str | None = None
    subject: str | None = None
    resume: bool = False
    hops: int = 0


Choose = Callable[[StoredSession | None], Awaitable[str | None]]
"""Says which revision of the agent a call is for, given its session; raises what keeps the session from going on."""


async def _any(_: StoredSession | None) -> str | None:
    return None


NO_STATE = Wanted()
"""What a call says that has no run."""


@dataclass(kw_only=True, slots=True, eq=False)
class OpenRun:
    """A run that a call works on. `run` is the newest that is known of it.

    `stored` says that it has a row, or may have: a host that dies while it saves leaves nobody who hears how that
    ended. `before` is the session as the call finds it, `messages` what is asked: those of the run, where it goes on.
    `answer` is there where the run is finished already.
    """

    run: StoredRun
    stored: bool
    before: StoredSession | None
    messages: tuple[Message, ...]
    answer: InvokeResponse | None = None
    checkpoints: bool = False

    @property
    def name(self) -> str:
        """The run's id."""
        return self.run.run


class Runs:
    """Opens, saves and finishes runs for calls."""

    def __init__(
        self,
        store: RunStore,
        sessions: Sessions,
        clock: Clock,
        *,
        gateway: str,
        settings: StateSettings,
        metrics: GatewayMetrics,
    ) -> None:
        """Work on runs as the holder `gateway`."""
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._gateway = gateway
        self._settings = settings
        self._metrics = metrics
        self._open: set[OpenRun] = set()
        self._releases: set[asyncio.Task[bool]] = set()
        self._beginning = Counter[tuple[str, str]]()
        self._unreleased: dict[tuple[str, str], StoredRun] = {}
        self._told: list[Callable[[OpenRun], None]] = []

    @property
    def limits(self) -> RunLimits:
        """How much a run may hold."""
        settings = self._settings
        return RunLimits(size=settings.run_bytes, steps=settings.run_steps, open_for=settings.open_ttl)

    @property
    def life(self) -> float:
        """How long a holder lives after it was heard of, in seconds."""
        return self._settings.holder_life

    # -- a call's way --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def opened(
        self,
        tenant: str,
        agent: str,
        call: str,
        messages: tuple[Message, ...],
        wanted: Wanted,
        choose: Choose = _any,
    ) -> AsyncIterator[OpenRun | None]:
        """The run that a call works on; None where it has none. `choose` says which revision a new one begins on.

        Raises `RunInProgress`, `KeyReused`, `NothingToResume`, or what is wrong with the session or key. Leaving the
        context without `finish` leaves the run unfinished, for whoever goes on with it.
        """
        opened = await self._begin(tenant, agent, call, messages, wanted, choose)
        if opened is None or opened.answer is not None:
            yield opened
            return
        self._open.add(opened)
        try:
            yield opened
        finally:
            if opened in self._open:
                self._open.remove(opened)
                if opened.stored:
                    await self._let_go(opened.run)

    def resume_state(self, opened: OpenRun) -> RunState | None:
        """What the run has behind it, for the host that is given it."""
        finished = opened.run.steps
        if not finished and not opened.checkpoints:
            return None
        return RunState(attempt=opened.run.attempt, finished=finished, checkpoints=opened.checkpoints)

    async def finish(self, opened: OpenRun, response: InvokeResponse, by: str, hops: int = 0) -> None:
        """Commit the session's next version and, of a run with a key, the answer, in one transaction."""
        now = self._clock.wall()
        after = None
        if opened.before is not None and response.session is not None:
            after = self._sessions.following(opened.before, response.session)
        done = opened.run
        if done.keyed:
            answer = _encoder.encode(replace(response, session=None, threads=None))
            done = replace(done, answer=answer, expires=now + self._settings.answer_ttl)
        if opened.stored or after is not None:
            keep = Kept(newest=self._settings.checkpoints, threads=response.threads)
            await self._store.finish(done, stored=opened.stored, session=after, keep=keep, now=now, by=by, hops=hops)
        self._open.discard(opened)

    async def save_step(self, opened: OpenRun, body: StepBody) -> int:
        """Commit a finished step; its place in the run."""
        output = _encoder.encode(body.output)
        if len(output) > self._settings.step_bytes:
            raise PayloadTooLarge(
                f"step {body.step[:100]!r} has {len(output)} bytes; it may have {self._settings.step_bytes}",
                next_step="keep less in a step, or raise state.step_bytes in the settings",
                agent=opened.run.agent,
            )
        digest = rules.content_digest(body.kind.encode(), output)
        step = NewStep(step=body.step, kind=body.kind, digest=digest, output=output)
        self.touched(opened)
        seq = await self._store.save_step(opened.run, step, limits=self.limits, now=self._clock.wall(), life=self.life)
        if seq > opened.run.steps:
            opened.run = replace(opened.run, steps=seq)
        return seq

    async def steps(self, opened: OpenRun, after: int) -> StepPage:
        """A page of the run's finished steps."""
        found = await self._store.steps(opened.run.tenant, opened.name, after, PAGE + 1)
        steps = tuple(
            FinishedStep(version=one.seq, step=one.step, kind=one.kind, output=msgspec.Raw(one.output))
            for one in found[:PAGE]
        )
        return StepPage(steps=steps, next=steps[-1].version if len(found) > PAGE else None)

    def on_growth(self, told: Callable[[OpenRun], None]) -> None:
        """Tell `told` whenever something of a run is about to be stored."""
        self._told.append(told)

    def touched(self, opened: OpenRun, *, checkpoints: bool = False) -> None:
        """Something of the run is about to be stored."""
        opened.stored = True
        opened.checkpoints = opened.checkpoints or checkpoints
        for told in self._told:
            told(opened)

    def moved(self, opened: OpenRun, revision: str) -> None:
        """The call goes on by another revision of its agent."""
        opened.run = replace(opened.run, revision=revision)
        if opened.before is not None:
            opened.before = replace(opened.before, revision=revision)

    async def again(self, opened: OpenRun) -> None:
        """The run's host is dead, and it is to be worked on by another: as a new attempt, from what was really saved.

        What the dead host had asked for is committed before this, or refused after it.
        """
        if opened.stored:
            opened.run = await self._store.again(opened.run)

    async def unfinished(self, session: StoredSession) -> StoredRun | None:
        """The work of a session that has no answer yet."""
        found = await self._store.unfinished(session.tenant, session.agent, session.session)
        return None if found is None or rules.is_over(found.expires, self._clock.wall()) else found

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Say every third of a holder's life that this gateway lives, while it works on anything; until cancelled.

        What could not be released, since the database was away or somebody asked for it just then, is released then: as
        long as this gateway says that it lives, nobody else may go on with it.
        """
        while True:
            await asyncio.sleep(self.life / 3)
            for run in list(self._unreleased.values()):
                if not await self._release(run):
                    break
            if any(opened.stored for opened in self._open):
                try:
                    await self._store.beat(self._gateway, self.life)
                except ProblemError as error:
                    log.warning("could not say that this gateway lives", extra={"problem": error.detail})

    async def aclose(self) -> None:
        """Wait for what is being let go."""
        await asyncio.gather(*self._releases, return_exceptions=True)

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _begin(
        self,
        tenant: str,
        agent: str,
        call: str,
        messages: tuple[Message, ...],
        wanted: Wanted,
        choose: Choose,
    ) -> OpenRun | None:
        rules.check_subject(wanted.subject)
        before = None
        if wanted.session is not None:
            before = await self._sessions.open(tenant, agent, wanted.session, wanted.subject)
        revision = await choose(before)
        if before is not None and revision is not None:
            before = replace(before, revision=revision)
        request = RunRequest(messages=messages, session=wanted.session)
        if wanted.key is not None or wanted.run is not None:
            name = wanted.run or rules.run_id(tenant, agent, wanted.actor, wanted.key or "")
            if before is not None:
                before = await self._alone(before, name)
            new = self._new(tenant, agent, name, request, before, wanted, revision, keyed=True)
            return await self._claimed(new, before, messages)
        if before is None:
            if wanted.resume:
                raise _nothing_to_resume(agent, None)
            return None
        new = self._new(tenant, agent, call, request, before, wanted, revision)
        return await self._of_session(before, new, wanted.resume)

    async def _of_session(self, before: StoredSession, new: StoredRun, resume: bool) -> OpenRun:
        """Go on with the session's unfinished run, give it up, or begin one."""
        messages = _requests.decode(new.request).messages
        found = await self.unfinished(before)
        if found is None:
            if resume:
                raise _nothing_to_resume(new.agent, before.session)
            return OpenRun(run=new, stored=False, before=before, messages=messages)
        same = resume or found.digest == new.digest
        wanted = replace(found, holder=self._gateway, base=before.version, updated=new.updated)
        if same and found.base == before.version:
            asked = _requests.decode(found.request).messages
            try:
                return await self._claimed(wanted, before, asked)
            except RunInProgress:
                if resume:
                    raise
                # Somebody asks the same of the same session at the same time; of the two, one will save.
                return OpenRun(run=new, stored=False, before=before, messages=messages)
        if resume:
            raise _nothing_to_resume(new.agent, before.session)
        before = await self._given_up(found, before)
        return OpenRun(run=replace(new, base=before.version), stored=False, before=before, messages=messages)

    async def _alone(self, before: StoredSession, name: str) -> StoredSession:
        """The session without an unfinished run but the one of this name."""
        found = await self.unfinished(before)
        if found is None or found.run == name:
            return before
        return await self._given_up(found, before)

    async def _given_up(self, found: StoredRun, before: StoredSession) -> StoredSession:
        """End an unfinished run for good; the session with what the run had said, unless it is at work just now."""
        mine = replace(found, holder=self._gateway)
        with self._claiming(mine):
            verdict, claimed = await self._store.claim(mine, life=self.life, now=self._clock.wall())
            if not isinstance(verdict, rules.GoOn):
                return before
            folded: SessionState | None = None
            if found.base == before.version:
                steps = await self._store.steps(found.tenant, found.run, 0, self._settings.run_steps)
                kinds = [(one.kind, one.output) for one in steps]
                before = _of_run(before, found)
                folded = rules.folded(before.state, _requests.decode(found.request), kinds)
            after = None if folded is None else self._sessions.following(before, folded)
            await self._store.fold(claimed, after, "system:runs")
        return before if after is None else after

    async def _claimed(self, new: StoredRun, before: StoredSession | None, messages: tuple[Message, ...]) -> OpenRun:
        with self._claiming(new):
            verdict, run = await self._store.claim(new, life=self.life, now=self._clock.wall())
        self._metrics.runs.labels(rules.outcome_of(verdict)).inc()
        match verdict:
            case rules.Begin() | rules.GoOn():
                going_on = isinstance(verdict, rules.GoOn) and not verdict.afresh
                before = None if before is None else _of_run(before, run)
                return OpenRun(run=run, stored=True, before=before, messages=messages, checkpoints=going_on)
            case rules.Replay():
                answer = _answers.decode(run.answer or b"")
                return OpenRun(run=run, stored=True, before=None, messages=messages, answer=answer)
            case rules.Busy():
                raise RunInProgress(
                    f"this is being worked on already (run {run.run})",
                    next_step="wait, and ask again with the same Idempotency-Key for the answer",
                    retry_after=2,
                    agent=run.agent,
                )
            case rules.Reused():
                raise KeyReused(
                    "this Idempotency-Key was used for a request with other messages, or another session",
                    next_step="use a new key for a new request",
                    agent=run.agent,
                )
            case _:
                assert_never(verdict)

    def _new(
        self,
        tenant: str,
        agent: str,
        name: str,
        request: RunRequest,
        before: StoredSession | None,
        wanted: Wanted,
        revision: str | None,
        *,
        keyed: bool = False,
    ) -> StoredRun:
        now = self._clock.wall()
        return StoredRun(
            tenant=tenant,
            run=name,
            agent=agent,
            session=request.session,
            subject=before.subject if before is not None else wanted.subject,
            status="open",
            keyed=keyed,
            digest=rules.request_digest(request),
            request=_encoder.encode(request),
            base=0 if before is None else before.version,
            attempt=1,
            holder=self._gateway,
            steps=0,
            size=0,
            created=now,
            updated=now,
            expires=now + self._settings.open_ttl,
            revision=revision,
        )

    @contextlib.contextmanager
    def _claiming(self, run: StoredRun) -> Iterator[None]:
        """Ask for a run. Whether a claim that failed, or whose caller left, was committed isn't known: it is let go."""
        mark = (run.tenant, run.run)
        self._beginning[mark] += 1
        claimed = False
        try:
            yield
            claimed = True
        finally:
            self._beginning[mark] -= 1
            if not self._beginning[mark]:
                del self._beginning[mark]
            if not claimed or mark in self._unreleased:
                self._releasing(run)

    async def _let_go(self, run: StoredRun) -> None:
        """Tell others that nobody works on it; also where the call was cancelled, which doesn't cancel this."""
        await asyncio.shield(self._releasing(run))

    def _releasing(self, run: StoredRun) -> "asyncio.Task[bool]":
        task = asyncio.create_task(self._release(run), name="run-release")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return task

    async def _release(self, run: StoredRun) -> bool:
        """Whether the database took it; `keep_alive` tries again where it did not.

        Another call here that works on the run or asks for it counts on the holder's name: the last one releases it.
        Writes are done in the order in which they are asked for, so a claim that comes later isn't undone by this.
        """
        mark = (run.tenant, run.run)
        self._unreleased[mark] = run
        if mark in self._beginning or any((one.run.tenant, one.name) == mark for one in self._open):
            return True
        try:
            await self._store.release(run)
        except ProblemError as error:
            log.warning("run not released", extra={"run": run.run, "problem": error.detail})
            return False
        self._unreleased.pop(mark, None)
        return True


def _of_run(before: StoredSession, run: StoredRun) -> StoredSession:
    """A session that isn't stored yet is the person's whom its unfinished run is for."""
    return replace(before, subject=run.subject) if before.subject is None else before


def _nothing_to_resume(agent: str, session: str | None) -> NothingToResume:
    what = "the call names no session" if session is None else f"session {session!r} has no unfinished work"
    return NothingToResume(what, next_step="call it without `resume`", agent=agent)
