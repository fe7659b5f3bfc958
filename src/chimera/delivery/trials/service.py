"""Runs of tests: begun by whoever asks, worked on by one control plane, and gone on with by the next if that dies.

A run is kept before anything of it is done, each result as soon as it is there. Whoever goes on with a run leaves out
the cases that have results, and finds calls that are under way by their keys. Whoever has lost the lease meanwhile
writes nothing and takes nothing away: `LeaseLost` ends its work.

A run tests revisions by their digests, whether they are live or not. All agents of a run share environments, and so
warm hosts: two at most, one where tests answer for the tools and one where the tools are real.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.errors import NothingToTest, TooManyEnvironments, UnknownTestRun
from chimera.delivery.trials.model import UNFINISHED, Candidate, Case, CaseResult, Run, RunState
from chimera.delivery.trials.ports import Calls, Definitions, RunStore
from chimera.delivery.trials.runner import Judge, Place, Runner
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
FLUSH_EVERY = 0.5
SWEEP_EVERY = 30.0
READ_AT_ONCE = 500
"""Revisions that are read together."""
NO_ROOM = 5.0
"""Seconds until a run that found no room for its environments is tried again."""
SCRIPTED, REAL = "tests", "integration-tests"
BY = "system:trials"


class Trials:
    """Runs of tests."""

    def __init__(
        self,
        definitions: Definitions,
        store: RunStore,
        environments: Environments,
        calls: Calls,
        clock: Clock,
        settings: TrialSettings,
    ) -> None:
        """Test what stands in `definitions`, by `calls` in `environments`; keep what comes of it in `store`."""
        self._definitions = definitions
        self._store = store
        self._environments = environments
        self._clock = clock
        self._settings = settings
        self._runner = Runner(calls, parallel=settings.parallel, answer_bytes=settings.answer_bytes)
        self._wanted = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, float] = {}

    # -- for whoever asks ---------------------------------------------------------------------------------------------

    async def start(self, tenant: str, candidates: Sequence[Candidate], *, by: str, key: str | None = None) -> Run:
        """Begin a run, or find the one that was begun with this key. Raises `NothingToTest`."""
        if not candidates:
            raise NothingToTest("no agent is named", next_step="name agents, or definitions with `tests`")
        now, name = self._clock.wall(), new_id("tests")
        run = Run(run=name, tenant=tenant, state="waiting", by=by, created=now, updated=now, agents=len(candidates))
        kept = await self._store.create(run, candidates, hashlib.sha256((key or name).encode()).hexdigest())
        self._wanted.set()
        return kept

    async def get(self, tenant: str, run: str) -> Run:
        """A run. Raises `UnknownTestRun`."""
        found = await self._store.get(tenant, run)
        if found is None:
            raise _unknown(run)
        return found

    async def cancel(self, tenant: str, run: str, *, by: str) -> Run:
        """End a run; one that is over stays as it is. Raises `UnknownTestRun`."""
        found = await self._store.finish(tenant, run, "cancelled", by=by)
        if found is None:
            raise _unknown(run)
        self._wanted.set()
        return found

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def work(self, lease: Lease) -> None:
        """Work on runs, and take away environments whose time is over, until cancelled."""
        swept = -SWEEP_EVERY
        try:
            while True:
                self._wanted.clear()
                try:
                    await self.look(lease)
                    if self._clock.monotonic() - swept >= SWEEP_EVERY:
                        swept = self._clock.monotonic()
                        await self._environments.sweep()
                except ProblemError as error:
                    log.warning("runs of tests could not be looked after", extra={"problem": error.detail})
                try:
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
        finally:
            await self._stop(list(self._running.values()))

    async def look(self, held: Lease | None = None) -> None:
        """One look: begin what there is room for, end what was cancelled; all under the lease `held`, if any."""
        unfinished = {run.run: run for run in await self._store.unfinished()}
        for name, task in list(self._running.items()):
            if task.done():
                del self._running[name]
                if not task.cancelled() and (error := task.exception()) is not None:
                    log.warning("a run of tests is gone on with later", extra={"run": name, "problem": str(error)})
        await self._stop([task for name, task in self._running.items() if name not in unfinished])
        now = self._clock.monotonic()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        for name, run in unfinished.items():
            if len(self._running) >= self._settings.runs:
                return
            if name not in self._running and name not in self._resting:
                self._running[name] = asyncio.create_task(self._do(run, held), name=f"tests-{name}")

    @staticmethod
    async def _stop(tasks: Sequence["asyncio.Task[None]"]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, run: Run, held: Lease | None) -> None:
        state: RunState = "done"
        problem: str | None = None
        try:
            await self._execute(run, held)
        except TooManyEnvironments as error:
            self._resting[run.run] = self._clock.monotonic() + NO_ROOM
            log.info("a run of tests waits for room", extra={"run": run.run, "problem": error.detail})
            await self._remove(run, held)
            return
        except ProblemError as error:
            log.warning("a run of tests failed", extra={"run": run.run, "problem": error.detail})
            state, problem = "failed", f"{error.detail}; {error.next_step}" if error.next_step else error.detail
        except asyncio.CancelledError:
            found = await self._store.get(run.tenant, run.run)
            if found is None or found.state not in UNFINISHED:
                await self._remove(run, None)  # somebody cancelled it; otherwise another goes on with it
            raise
        except Exception as error:
            log.exception("a run of tests failed", extra={"run": run.run})
            state, problem = "failed", f"the control plane failed: {type(error).__name__}"
        # Whoever is told that it is over finds nothing left of it.
        await self._remove(run, held)
        await self._store.finish(run.tenant, run.run, state, by=BY, problem=problem, held=held)
        self._wanted.set()

    async def _remove(self, run: Run, held: Lease | None) -> None:
        for purpose in (SCRIPTED, REAL):
            await self._environments.remove(run.tenant, purpose, run.run, held=held)

    async def _execute(self, run: Run, held: Lease | None) -> None:
        values = await self._values(run)
        cases = [
            Case(agent=value.agent.name, revision=digest, test=test) for digest, value in values for test in value.tests
        ]
        untested = sum(not value.tests for _, value in values)
        there = await self._store.begin(run.tenant, run.run, total=len(cases), untested=untested)
        waiting = [case for case in cases if (case.agent, case.test.name) not in there]
        if not waiting:
            return
        place = await self._place(run, waiting, dict(values), held)
        await self._flushed(run, waiting, place, held)

    async def _values(self, run: Run) -> list[tuple[str, CanonicalDefinition]]:
        values: list[tuple[str, CanonicalDefinition]] = []
        candidates = await self._store.candidates(run.tenant, run.run)
        for first in range(0, len(candidates), READ_AT_ONCE):
            some = candidates[first : first + READ_AT_ONCE]
            compiled = await self._definitions.compiled_many(run.tenant, [one.revision for one in some])
            if gone := next((one for one in some if one.revision not in compiled), None):
                raise NothingToTest(
                    f"the revision {gone.revision[:19]} of agent {gone.agent} is not here any more",
                    next_step="send its definition again",
                )
            values += [(one.revision, compiled[one.revision].value) for one in some]
        return values

    async def _place(
        self, run: Run, cases: Sequence[Case], values: dict[str, CanonicalDefinition], held: Lease | None
    ) -> Place:
        rubrics = any(turn.expect.rubric is not None for case in cases for turn in case.test.turns)
        judge = rubrics and bool(self._settings.judge_model)
        scripted = [values[one] for one in dict.fromkeys(case.revision for case in cases if case.tools == "scripted")]
        real = [values[one] for one in dict.fromkeys(case.revision for case in cases if case.tools == "real")]
        names = {SCRIPTED: "", REAL: ""}
        found: Judge | None = None
        for purpose, some, tools in ((SCRIPTED, scripted, "scripted"), (REAL, real, "real")):
            if not some:
                continue
            if tools == "real":
                some = [*some, *await self._environments.neighbours(run.tenant, some)]
            names[purpose], agent = await self._environments.make(
                run.tenant,
                purpose,
                run.run,
                some,
                tools="real" if tools == "real" else "scripted",
                judge=judge and found is None,
                held=held,
            )
            if agent is not None:
                found = Judge(environment=names[purpose], agent=agent)
        return Place(key=run.run, scripted=names[SCRIPTED], real=names[REAL], judge=found)

    async def _flushed(self, run: Run, cases: Sequence[Case], place: Place, held: Lease | None) -> None:
        """Run cases; their results are kept together, a moment after they came."""
        results: list[CaseResult] = []

        async def done(result: CaseResult) -> None:
            results.append(result)

        async def flush() -> bool:
            some, results[:] = list(results), []
            return await self._store.add(run.tenant, run.run, some, held=held) if some else True

        working = asyncio.create_task(self._runner.run(cases, place, done), name=f"cases-{run.run}")
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=FLUSH_EVERY)
                if not await flush():
                    return
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _unknown(run: str) -> UnknownTestRun:
    return UnknownTestRun(f"no run of tests is called {run[:64]!r}", next_step="list them with `chimera test --list`")
