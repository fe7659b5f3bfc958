"""The pipeline: takes every change in flight through its stages, one step after another.

It is level-triggered. A pass reads which changes are in flight, and for each that nobody works on it starts a worker;
a worker asks the rule (`course`) what comes next, does that, and asks again, until there is nothing to do but wait. All
that a step finds out is stored before the next one is asked for, so a control plane that is killed anywhere loses at
most the work of one check, which is done again. Everything is written under the lease's token: a process that has lost
the lease writes nothing.

A worker that fails is begun again at a later pass, later each time; the deadlines of the stages end that. A check that
doesn't end is cancelled at its deadline. A change that was given other content, or has ended, has its worker cancelled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from chimera.agents.catalogue import ChangedMeanwhile
from chimera.delivery import conflicts, transitions, written
from chimera.delivery.course import (
    STAGING_CHECK,
    Advance,
    Ask,
    Clean,
    Drive,
    Installed,
    Nothing,
    Step,
    Wait,
    next_step,
)
from chimera.delivery.errors import ChangeConflicts
from chimera.delivery.model import MOVING, NOT_MOVING, Change, Moved, Verdict
from chimera.delivery.ports import (
    ChangeStore,
    Check,
    InFlight,
    Progress,
    Reviewer,
    Revision,
    Rollouts,
    Staging,
)
from chimera.delivery.settings import DeliverySettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "pipeline"
_LEAST_BACKOFF, _MOST_BACKOFF = 1.0, 300.0
_TRIES = 4
_WATCHED = 2.0
"""Seconds between two looks at work that others do: staging, a rollout."""

_WAITING = 30.0
"""Seconds between two looks at a change that waits for people or the end of a freeze, where nothing of it changed."""

Key = tuple[str, str]


@dataclass(kw_only=True, slots=True)
class _Work:
    """What is known in this process of a change: the task at it, what it reads, and how often it failed."""

    content: str
    task: asyncio.Task[float] | None = None
    change: Change | None = None
    revisions: Sequence[Revision] | None = None
    checked: int = -1
    failures: int = 0
    due: float = 0.0
    seen: int = -1


@dataclass(kw_only=True, slots=True)
class Parts:
    """Who does the stages' work. A stage without a part is not in the pipeline."""

    checks: Sequence[Check] = ()
    reviewers: Sequence[Reviewer] = ()
    staging: Staging | None = None
    rollouts: Rollouts | None = None

    @property
    def installed(self) -> Installed:
        """Their names."""
        return Installed(
            checks=tuple(one.name for one in self.checks),
            reviewers=tuple(one.name for one in self.reviewers),
            staging=self.staging is not None,
        )


@dataclass(kw_only=True, slots=True)
class _Pass:
    """One lease's work."""

    lease: Lease | None
    works: dict[Key, _Work] = field(default_factory=dict)
    policies: int = 0


class Pipeline:
    """The loop. `changed` is called when it made something live (a hint, not a promise)."""

    def __init__(
        self,
        store: ChangeStore,
        parts: Parts,
        clock: Clock,
        settings: DeliverySettings,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Work on the changes of `store`."""
        self._store = store
        self._parts = parts
        self._clock = clock
        self._settings = settings
        self._changed = changed
        self._poked = asyncio.Event()
        self._free = asyncio.Semaphore(settings.parallel)

    def poke(self) -> None:
        """Something was written: look now."""
        self._poked.set()

    async def while_held(self, leases: Leases, owner: str, life: float) -> None:
        """Work whenever this process holds the lease; until cancelled."""
        await work_while_held(leases, LEASE, owner, life, self.run)

    async def run(self, lease: Lease | None = None) -> None:
        """Pass after pass, until cancelled."""
        state = _Pass(lease=lease)
        try:
            while True:
                self._poked.clear()
                try:
                    await self._pass(state)
                except ProblemError as error:
                    log.warning("changes could not be looked at", extra={"problem": error.detail})
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.interval):
                        await self._poked.wait()
        finally:
            running = [work.task for work in state.works.values() if work.task is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if self._parts.staging is not None:
                await self._parts.staging.rest()

    async def settle(self, lease: Lease | None = None) -> None:
        """Pass after pass until nothing is left but to wait for people or time: for tests and for one-shot use."""
        state = _Pass(lease=lease)
        while True:
            await self._pass(state)
            running = [work.task for work in state.works.values() if work.task is not None]
            if not running:
                return
            await asyncio.gather(*running, return_exceptions=True)

    # -- one pass -----------------------------------------------------------------------------------------------------

    async def _pass(self, state: _Pass) -> None:
        found = await self._store.in_flight()
        there = {(one.tenant, one.id): one for one in found.changes}
        other_policies = found.policies != state.policies
        state.policies = found.policies
        for key, work in list(state.works.items()):
            await self._tidy(state, key, work, there.get(key))
        now = self._clock.monotonic()
        for key, one in there.items():
            work = state.works.setdefault(key, _Work(content=one.content))
            if work.task is None and (now >= work.due or one.version != work.seen or other_policies):
                work.seen = one.version
                name = f"change-{one.id}"
                work.task = asyncio.create_task(self._work(state, one, work, found.sequence), name=name)
                work.task.add_done_callback(lambda _: self.poke())

    async def _tidy(self, state: _Pass, key: Key, work: _Work, one: InFlight | None) -> None:
        """Take note of a task that has ended; cancel one whose change has, or has other content."""
        other = one is None or one.content != work.content
        if work.task is not None and (work.task.done() or other):
            work.task.cancel()
            (ended,) = await asyncio.gather(work.task, return_exceptions=True)
            work.task = None
            now = self._clock.monotonic()
            if isinstance(ended, float):
                work.failures, work.due = 0, now + ended
            elif isinstance(ended, ChangedMeanwhile):
                work.change, work.due = None, now
            elif isinstance(ended, Exception):
                work.failures += 1
                work.change = None
                work.due = now + min(_MOST_BACKOFF, _LEAST_BACKOFF * 2.0 ** (work.failures - 1))
                log.warning("work on a change failed", exc_info=ended, extra={"change": key[1]})
        if other and work.task is None:
            del state.works[key]

    # -- work on one change -------------------------------------------------------------------------------------------

    async def _work(self, state: _Pass, one: InFlight, work: _Work, sequence: int) -> float:
        """Step after step; seconds until it makes sense to look again."""
        async with self._free:
            if work.change is None or work.change.version != one.version:
                work.change = await self._store.change(one.tenant, one.id)
            while (change := work.change) is not None:
                policy = (await self._store.policy(change.tenant)).policy
                if await self._overtaken(state, work, change, sequence):
                    continue
                step = next_step(change, policy, self._parts.installed, self._settings, self._clock.wall())
                again = await self._do(state, work, change, step)
                if again is not None:
                    return again
        return self._settings.interval

    async def _overtaken(self, state: _Pass, work: _Work, change: Change, sequence: int) -> bool:
        """Whether its agents were changed since it was made; then it has ended. Asked once for each change of any."""
        if change.state not in NOT_MOVING or work.checked == sequence:
            return False
        live = {name: one.revision for name, one in (await self._store.live(change.tenant, change.names)).items()}
        work.checked = sequence
        late = conflicts.stale(change.items, live)
        if not late and not conflicts.is_live(change.items, live):
            return False
        why = conflicts.stale_text(late, live) if late else "all of it is live already, by another way"
        await self._move(state, work, change, transitions.ended(change, "superseded", why, self._clock.wall()))
        return True

    async def _do(self, state: _Pass, work: _Work, change: Change, step: Step) -> float | None:
        """Do `step`; None to be asked for the next one at once, or seconds to wait."""
        match step:
            case Ask():
                await self._ask(state, work, change, step)
            case Advance():
                return await self._advance(state, work, change)
            case Drive():
                return await self._drive(state, work, change)
            case Clean():
                await self._clean(state, work, change)
            case Wait() | Nothing():
                made = written.of_step(change, step, self._clock.wall())
                if made is not None:
                    await self._move(state, work, change, made)
                work.revisions = None  # definitions of a change that waits for days are no use in memory
                return _WAITING
            case _:
                made = written.of_step(change, step, self._clock.wall())
                assert made is not None, "only waiting writes nothing"
                await self._move(state, work, change, made)
        return None

    async def _move(self, state: _Pass, work: _Work, before: Change, after: Moved | Change) -> Change:
        work.change = None  # until it is written, nobody knows which of the two there is
        work.change = await self._store.save(before, after, held=state.lease)
        work.seen = work.change.version
        return work.change

    # -- checks and reviewers -----------------------------------------------------------------------------------------

    async def _ask(self, state: _Pass, work: _Work, change: Change, step: Ask) -> None:
        """Ask each, one after another, and keep what each says as soon as it has said it."""
        asked: dict[str, Callable[[Change, Sequence[Revision]], Awaitable[list[Verdict]]]]
        if step.stage == "build":
            asked = {check.name: check.run for check in self._parts.checks}
        else:
            asked = {reviewer.name: reviewer.review for reviewer in self._parts.reviewers}
        revisions = await self._revisions(work, change)
        for name in step.names:
            said = await self._answer(asked[name], name, work, change, revisions, patient=step.stage == "build")
            now = self._clock.wall()
            verdicts = [replace(one, stage=step.stage, check=name, at=one.at or now) for one in said]
            await self._store.put_verdicts(change, name, verdicts, held=state.lease)
            change = work.change = replace(change, verdicts=(*change.verdicts, *verdicts))

    async def _answer(
        self,
        ask: Callable[[Change, Sequence[Revision]], Awaitable[list[Verdict]]],
        name: str,
        work: _Work,
        change: Change,
        revisions: Sequence[Revision],
        *,
        patient: bool,
    ) -> list[Verdict]:
        """What it says. One that doesn't end, or says nothing, hasn't passed the change.

        One that fails is asked again a few times where we are `patient`: without it there is no going on. A reviewer
        is not: then people decide.
        """
        try:
            async with asyncio.timeout(self._settings.check_seconds) as limit:
                said = await ask(change, revisions)
        except TimeoutError:
            if not limit.expired():
                raise
            why = f"it did not end within {self._settings.check_seconds:g} s"
            return [written.silent(name, "failed", why, "see what it waits for, or raise `delivery.check_seconds`")]
        except Exception as error:
            if patient and work.failures + 1 < _TRIES:
                raise
            log.exception("a check failed", extra={"check": name, "change": change.id})
            what = error.detail if isinstance(error, ProblemError) else type(error).__name__
            return [written.silent(name, "skipped", f"it could not look: {what}", "see the control plane's log")]
        return said or [written.silent(name, "skipped", "it said nothing", "see the control plane's log")]

    async def _revisions(self, work: _Work, change: Change) -> Sequence[Revision]:
        if work.revisions is None:
            work.revisions = await self._store.revisions(change.tenant, change.items)
        return work.revisions

    # -- staging ------------------------------------------------------------------------------------------------------

    async def _advance(self, state: _Pass, work: _Work, change: Change) -> float | None:
        staging = self._parts.staging
        assert staging is not None, "the rule asks for it only where there is staging"
        how: Progress = await staging.advance(change, await self._revisions(work, change), held=state.lease)
        now = self._clock.wall()
        if how.state == "running":
            waiting = transitions.wait(change, how.detail, how.next_step, now)
            if waiting is not None:
                await self._move(state, work, change, waiting)
            return _WATCHED
        outcome: Verdict = Verdict(
            stage="staging",
            check=STAGING_CHECK,
            outcome="passed" if how.state == "passed" else "failed",
            detail=how.detail,
            next_step=how.next_step,
            at=now,
        )
        said = [replace(one, stage="staging", at=one.at or now) for one in how.verdicts]
        by_check: dict[str, list[Verdict]] = {}
        for one in (*said, outcome):  # the outcome last: where it stands, all the others do
            by_check.setdefault(one.check, []).append(one)
        for name, verdicts in by_check.items():
            await self._store.put_verdicts(change, name, verdicts, held=state.lease)
        kept = tuple(one for one in change.verdicts if one.stage != "staging")
        work.change = replace(change, verdicts=(*kept, *said, outcome))
        return None

    async def _clean(self, state: _Pass, work: _Work, change: Change) -> None:
        if self._parts.staging is not None:
            await self._parts.staging.remove(change, held=state.lease)
        await self._move(state, work, change, transitions.cleaned(change, self._clock.wall()))

    # -- production ---------------------------------------------------------------------------------------------------

    async def _drive(self, state: _Pass, work: _Work, change: Change) -> float | None:
        # An emergency is live at once: waves and bake times are for what can wait.
        if self._parts.rollouts is None or change.emergency is not None:
            return await self._commit(state, work, change)
        return await self._roll(self._parts.rollouts, state, work, change)

    async def _commit(self, state: _Pass, work: _Work, change: Change) -> float | None:
        """All of it at once, in one transaction. Before that nothing of it is live, after it all."""
        now = self._clock.wall()
        if change.wanted == "abort":
            await self._move(state, work, change, transitions.ended(change, "aborted", "aborted in time", now))
            return None
        if change.wanted == "pause":
            if change.state != "paused":
                await self._move(state, work, change, transitions.paused(change, "nothing of it is live yet", now))
            return self._settings.interval
        done = transitions.ended(change, "done", "", now)
        work.change = None
        try:
            await self._store.produce(change, done, held=state.lease)
        except ChangeConflicts as error:
            await self._move(state, work, change, transitions.ended(change, "superseded", error.detail, now))
            return None
        except ChangedMeanwhile:
            raise
        except ProblemError as error:
            if written.may_pass(error):
                raise
            await self._move(state, work, change, transitions.failed(change, error.detail, error.next_step or "", now))
            return None
        work.change, work.seen = done.change, done.change.version
        self._changed()
        return None

    async def _start(self, rollouts: Rollouts, state: _Pass, work: _Work, change: Change) -> float | None:
        """Begin a rollout of what is still as the change was made from; what can't begin ends the change."""
        live = {name: one.revision for name, one in (await self._store.live(change.tenant, change.names)).items()}
        now = self._clock.wall()
        if late := conflicts.stale(change.items, live):
            why = conflicts.stale_text(late, live)
            await self._move(state, work, change, transitions.ended(change, "superseded", why, now))
            return None
        try:
            await rollouts.start(change, held=state.lease)
        except ProblemError as error:
            if written.may_pass(error):
                raise
            await self._move(state, work, change, transitions.failed(change, error.detail, error.next_step or "", now))
            return None
        self._changed()
        return _WATCHED

    async def _roll(self, rollouts: Rollouts, state: _Pass, work: _Work, change: Change) -> float | None:
        """See to it that the rollout does what is wanted, and write down how it is."""
        view = await rollouts.look(change)
        now = self._clock.wall()
        if view is None:
            if change.wanted == "abort":
                await self._move(state, work, change, transitions.ended(change, "aborted", "aborted in time", now))
                return None
            return await self._start(rollouts, state, work, change)
        moved = written.of_rollout(change, view, now)
        if moved is not None:
            await self._move(state, work, change, moved)
            self._changed()
            return None
        if view.state in MOVING:
            if change.wanted == "abort":
                await rollouts.abort(change, by=change.wanted_by, reason="aborted")
            elif change.wanted == "pause" and view.state == "rolling-out":
                await rollouts.pause(change, by=change.wanted_by, reason="paused")
            elif change.wanted == "go" and view.state == "paused":
                await rollouts.resume(change, by=change.wanted_by)
        return _WATCHED
