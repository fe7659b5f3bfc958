"""Staging of changes: deployed with what they reach, evaluated beside the live revisions, judged, and taken away.

Two environments are made for a change: one with its new revisions, one with the live revisions that they would
replace; both have the agents that these may call. Evaluation cases are the agents' own tests that ask a real model.
Each agent answers `trials.staging_calls` of them in both at the same time: the same inputs under the same load.

An agent with integration tests is evaluated by those, with its tools real and the credentials of staging; any other
by its tests with a real model, with scripted tools. One that has neither is deployed and not called: nobody said what
may be asked of it.

The work is a task of this process, and `advance` says how it is. Calls are found again by their keys, so a control
plane that takes over makes none of them twice.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence

import msgspec

from chimera.agents.cases import AgentTest
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.model import Change, Verdict
from chimera.delivery.ports import Progress, Revision
from chimera.delivery.staging.rules import Objective, Seen, judge
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.errors import TooManyEnvironments
from chimera.delivery.trials.model import Case, CaseResult
from chimera.delivery.trials.ports import Calls
from chimera.delivery.trials.runner import Judge, Place, Runner
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import Clock

NAME = "staging"
NEW, LIVE = "staging", "staging-live"
MOST_TOLD = 200
MISFITS = frozenset({"trial-misfit", "script-over"})
"""Problems of a case that was made for another revision: they say nothing of the live one."""


class ChangeStaging:
    """The port `Staging`."""

    def __init__(self, environments: Environments, calls: Calls, clock: Clock, settings: TrialSettings) -> None:
        """Deploy into `environments`, and evaluate by `calls`."""
        self._environments = environments
        self._clock = clock
        self._settings = settings
        side = max(1, settings.parallel // 2)
        self._runner = Runner(calls, parallel=side, answer_bytes=settings.answer_bytes)
        self._working: dict[str, tuple[str, asyncio.Task[Progress]]] = {}

    async def advance(self, change: Change, revisions: Sequence[Revision]) -> Progress:
        """See `Staging`."""
        content, task = self._working.get(change.id, ("", None))
        if task is None or content != change.content:
            if task is not None:
                await self.remove(change)
            task = asyncio.create_task(self._validate(change, revisions), name=f"staging-{change.id}")
            self._working[change.id] = (change.content, task)
        if not task.done():
            return Progress(state="running", detail="its agents are evaluated in staging")
        try:
            return task.result()
        except TooManyEnvironments as error:
            del self._working[change.id]
            return Progress(state="running", detail=f"it waits for room in staging: {error.detail}")
        except BaseException:
            del self._working[change.id]  # asked again, it begins again
            raise

    async def remove(self, change: Change) -> None:
        """See `Staging`."""
        _, task = self._working.pop(change.id, ("", None))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._clear(change)

    async def _clear(self, change: Change) -> None:
        for purpose in (NEW, LIVE):
            await self._environments.remove(change.tenant, purpose, change.id)

    async def aclose(self) -> None:
        """End the work; whoever takes over goes on."""
        for _, task in self._working.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._working.values()), return_exceptions=True)

    # -- one change ---------------------------------------------------------------------------------------------------

    async def _validate(self, change: Change, revisions: Sequence[Revision]) -> Progress:
        new = [one.compiled.value for one in revisions if one.compiled is not None]
        if not new:
            return self._over([], agents=0, evaluated=0)
        live = [one.before for one in revisions if one.before is not None and one.compiled is not None]
        tests = {value.agent.name: evaluated(value) for value in new}
        try:
            place = await self._place(change, NEW, new, tests, judge=True)
            beside = await self._place(change, LIVE, live, tests, judge=False) if live else None
        except TooManyEnvironments:
            await self._clear(change)  # who waits for room holds none, or all might wait for each other
            raise
        found, of_live = await asyncio.gather(
            self._run(place, new, tests),
            self._run(beside, live, tests) if beside is not None else _nothing(),
        )
        await self._clear(change)
        asked = [value for value in new if tests[value.agent.name]]
        verdicts = [self._of_agent(value, found, of_live, len(asked)) for value in asked]
        return self._over(verdicts, agents=len(new), evaluated=len(asked))

    async def _place(
        self,
        change: Change,
        purpose: str,
        values: Sequence[CanonicalDefinition],
        tests: Mapping[str, Sequence[AgentTest]],
        *,
        judge: bool,
    ) -> Place:
        scripted = {name for name, some in tests.items() if some and not some[0].integration}
        rubrics = any(turn.expect.rubric is not None for some in tests.values() for one in some for turn in one.turns)
        name, agent = await self._environments.make(
            change.tenant,
            purpose,
            change.id,
            [*values, *await self._environments.neighbours(change.tenant, values)],
            tools="real",
            scripted=scripted,
            judge=judge and rubrics and bool(self._settings.judge_model),
        )
        found = None if agent is None else Judge(environment=name, agent=agent)
        return Place(key=f"{purpose}\0{change.id}\0{change.content}", scripted=name, real=name, judge=found)

    async def _run(
        self, place: Place, values: Sequence[CanonicalDefinition], tests: Mapping[str, Sequence[AgentTest]]
    ) -> dict[str, list[CaseResult]]:
        results: dict[str, list[CaseResult]] = {}

        async def done(result: CaseResult) -> None:
            results.setdefault(result.agent, []).append(result)

        cases = [
            Case(agent=value.agent.name, revision=f"{number}", test=test)
            for value in values
            for number, test in self._repeated(tests[value.agent.name])
        ]
        await self._runner.run(cases, place, done)
        return results

    def _repeated(self, tests: Sequence[AgentTest]) -> list[tuple[int, AgentTest]]:
        """Each case as often as makes `staging_calls` of all of them, and as often as it says itself.

        The number tells the calls of one repetition from those of another.
        """
        each = math.ceil(self._settings.staging_calls / len(tests)) if tests else 0
        return [
            (number, msgspec.structs.replace(test, runs=1, pass_share=1.0))
            for test in tests
            for number in range(max(each, test.runs))
        ]

    # -- judging ------------------------------------------------------------------------------------------------------

    def _of_agent(
        self,
        value: CanonicalDefinition,
        found: dict[str, list[CaseResult]],
        live: dict[str, list[CaseResult]],
        agents: int,
    ) -> Verdict:
        name = value.agent.name
        results = found.get(name, [])
        before = [one for one in live.get(name, []) if one.tries[-1].problem not in MISFITS]
        objective = Objective(availability=value.availability, latency_p95=value.latency_p95)
        judged = judge(_seen(results), _seen(before) if before else None, objective, agents=agents)
        faults, skipped = [*judged.faults, *_missed(value, results)], _skipped(results)
        outcome = "failed" if faults else "skipped" if skipped else "passed"
        said = "; ".join([*faults, *skipped]) or f"{judged.figures['calls']} calls were as the agent promises"
        if judged.low_evidence:
            said += " (low evidence: too few calls to show that the objective is kept)"
        return self._verdict(
            outcome, said, agent=name, evidence={**judged.figures, "low_evidence": judged.low_evidence}
        )

    def _over(self, verdicts: Sequence[Verdict], *, agents: int, evaluated: int) -> Progress:
        wrong = [one for one in verdicts if one.outcome != "passed"]
        said = f"{evaluated:,} of {agents:,} agents were evaluated in staging"
        if evaluated < agents:
            said += ", the others have no tests with a real model (low evidence)"
        if wrong:
            said += f"; {len(wrong):,} did not pass, first {wrong[0].agent}: {wrong[0].detail}"
        step = "mend the agents, or their tests, and send the change again" if wrong else ""
        return Progress(
            state="failed" if wrong else "passed", detail=said[:1_000], next_step=step, verdicts=self._told(verdicts)
        )

    @staticmethod
    def _told(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
        return tuple(sorted(verdicts, key=lambda one: one.outcome == "passed")[:MOST_TOLD])

    def _verdict(self, outcome: str, detail: str, *, agent: str, evidence: dict[str, object]) -> Verdict:
        return Verdict(
            stage="staging",
            check=NAME,
            outcome="passed" if outcome == "passed" else "failed" if outcome == "failed" else "skipped",
            agent=agent,
            detail=detail[:1_000],
            next_step="" if outcome == "passed" else "see the agent's tests and its service_level_objective",
            evidence=evidence,
            at=self._clock.wall(),
        )


def evaluated(value: CanonicalDefinition) -> tuple[AgentTest, ...]:
    """The tests that an agent is evaluated by: its integration tests, else those with a real model."""
    integration = tuple(test for test in value.tests if test.integration)
    return integration or tuple(test for test in value.tests if not test.is_scripted)


def _seen(results: Sequence[CaseResult]) -> Seen:
    tries = [one for result in results for one in result.tries]
    answered = [one for one in tries if one.problem is None]
    return Seen(calls=len(tries), errors=len(tries) - len(answered), seconds=tuple(one.seconds for one in answered))


def _missed(value: CanonicalDefinition, results: Sequence[CaseResult]) -> list[str]:
    """Cases of which fewer runs passed than must."""
    faults = []
    for test in evaluated(value):
        mine = [one for one in results if one.case == test.name]
        passed = sum(one.outcome == "passed" for one in mine)
        skipped = sum(one.outcome == "skipped" for one in mine)
        if passed + skipped < math.ceil(test.pass_share * len(mine) - 1e-9):
            why = next(one.detail for one in mine if one.outcome == "failed")
            faults.append(f"of the case {test.name!r} {passed} of {len(mine)} runs passed: {why}"[:500])
    return faults


def _skipped(results: Sequence[CaseResult]) -> list[str]:
    return sorted({f"the case {one.case!r}: {one.detail}" for one in results if one.outcome == "skipped"})[:5]


async def _nothing() -> dict[str, list[CaseResult]]:
    return {}
