"""Staging of changes: deployed with what they reach, evaluated beside the live revisions, judged, and taken away.

Two environments are made for a change: one with its new revisions, one with the live revisions that they would
replace; both have the agents that these may call. Evaluation cases are the agents' own tests that ask a real model.
Each agent answers `trials.staging_calls` of them in both at the same time: the same inputs under the same load.

An agent with integration tests is evaluated by those, with its tools real and the credentials of staging; any other
by its tests with a real model, with scripted tools. One that has neither is deployed and not called: nobody said what
may be asked of it.

A change whose cases have passed is then held against earlier traffic (`replaying`). All calls for a change together
are bounded (`shares`); cases come first, but leave half of the bound to the replay where it has use for it.

The work is a task of this process, and `advance` says how it is. Calls are found again by their keys, so a control
plane that takes over makes none of them twice.
"""

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from chimera.agents.cases import AgentTest, Expectation
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.model import Change, Verdict
from chimera.delivery.ports import Progress, Revision
from chimera.delivery.staging.again import NOT_AGAIN, measurements, slower_again
from chimera.delivery.staging.ports import Traffic
from chimera.delivery.staging.replay import Replayer
from chimera.delivery.staging.replaying import Both, Replays
from chimera.delivery.staging.rules import Judged, Objective, Seen, error_of, judge
from chimera.delivery.staging.sampling import evaluated
from chimera.delivery.staging.shares import Want, cost_of_rounds, rounds_within, shares
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.errors import TooManyEnvironments
from chimera.delivery.trials.model import Case, CaseResult
from chimera.delivery.trials.ports import Calls
from chimera.delivery.trials.runner import Judge, Place, Runner
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease

NAME = "staging"
NEW, LIVE = "staging", "staging-live"
MOST_TOLD = 200
AGAIN = 10
"""Of so many calls for cases one is kept to measure longer times again; where none are, the replay has it."""
MISFITS = frozenset({"trial-misfit", "script-over"})
"""Problems of a case that was made for another revision: they say nothing of the live one."""
_Results: TypeAlias = dict[str, list[CaseResult]]
"""Results of cases by agent."""


class _Rounds(Struct, frozen=True, kw_only=True):
    """How an agent is evaluated: its `tests` so many times, by `calls` in all; not at all with 0 rounds."""

    tests: tuple[AgentTest, ...]
    rounds: int
    calls: int

    def repeated(self) -> list[tuple[int, AgentTest]]:
        """Each case once a round, and as often as it says itself.

        The number tells the calls of one repetition from those of another.
        """
        return [
            (number, replace(test, runs=1, pass_share=1.0))
            for test in self.tests
            for number in range(max(self.rounds, test.runs))
        ]

    def timed(self) -> "_Rounds":
        """The same on two sides for times and errors alone: no answer is looked at, so each is asked all its turns."""
        tests = tuple(
            replace(test, expect=Expectation(), then=tuple(replace(turn, expect=Expectation()) for turn in test.then))
            for test in self.tests
        )
        return _Rounds(tests=tests, rounds=self.rounds, calls=2 * cost_of_rounds(tests, self.rounds))


class ChangeStaging:
    """The port `Staging`."""

    def __init__(
        self, environments: Environments, calls: Calls, traffic: Traffic, clock: Clock, settings: TrialSettings
    ) -> None:
        """Deploy into `environments`, and evaluate by `calls`, with cases and with earlier `traffic`."""
        self._environments = environments
        self._traffic = traffic
        self._clock = clock
        self._settings = settings
        side = max(1, settings.parallel // 2)
        self._runner = Runner(calls, parallel=side, answer_bytes=settings.answer_bytes)
        replayer = Replayer(self._runner, parallel=side)
        self._replays = Replays(environments, traffic, replayer, clock, settings)
        self._working: dict[str, tuple[str, asyncio.Task[Progress]]] = {}

    async def advance(self, change: Change, revisions: Sequence[Revision], *, held: Lease | None = None) -> Progress:
        """See `Staging`."""
        key, task = self._working.get(change.id, ("", None))
        if task is None or key != change.work_key:
            if task is not None:
                await self.remove(change, held=held)
            task = asyncio.create_task(self._validate(change, revisions, held), name=f"staging-{change.id}")
            self._working[change.id] = (change.work_key, task)
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

    async def remove(self, change: Change, *, held: Lease | None = None) -> None:
        """See `Staging`."""
        _, task = self._working.pop(change.id, ("", None))
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._clear(change, held)

    async def _clear(self, change: Change, held: Lease | None) -> None:
        for purpose in (NEW, LIVE):
            await self._environments.remove(change.tenant, purpose, change.id, held=held)
        await self._replays.clear(change, held)

    async def rest(self) -> None:
        """See `Staging`."""
        working, self._working = self._working, {}
        for _, task in working.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in working.values()), return_exceptions=True)

    async def aclose(self) -> None:
        """End the work; whoever takes over goes on."""
        await self.rest()

    # -- one change ---------------------------------------------------------------------------------------------------

    async def _validate(self, change: Change, revisions: Sequence[Revision], held: Lease | None) -> Progress:
        new = [one.compiled.value for one in revisions if one.compiled is not None]
        if not new:
            return self._over([], said="no agent is made or changed")
        both = [
            Both(new=one.compiled.value, live=one.before)
            for one in revisions
            if one.compiled is not None and one.before is not None
        ]
        policy = await self._traffic.allowed(change.tenant)
        bound = self._settings.staging_most_calls
        left = bound - min(self._replays.wanted_calls(both, policy), bound // 2)
        rounds = self._rounds(new, {one.agent for one in both}, left - left // AGAIN)
        try:
            verdicts, spent = await self._cases(change, new, [one.live for one in both], rounds, left, held)
            said = self._told_of_cases(new, rounds)
            if not _wrong(verdicts):
                replayed = await self._replays.run(change, both, policy, bound - spent, held)
                verdicts += replayed.verdicts
                said += f"; {replayed.said}" if replayed.said else ""
        except TooManyEnvironments:
            await self._clear(change, held)  # who waits for room holds none, or all might wait for each other
            raise
        return self._over(verdicts, said=said)

    def _rounds(self, new: Sequence[CanonicalDefinition], live: Collection[str], bound: int) -> dict[str, _Rounds]:
        """How often each agent answers its cases, within `bound` calls together."""
        tests = [evaluated(value) for value in new]
        sides = [2 if value.agent.name in live else 1 for value in new]
        most = [math.ceil(self._settings.staging_calls / len(some)) if some else 0 for some in tests]
        wants = [
            Want(least=times * cost_of_rounds(some, 1), most=times * cost_of_rounds(some, each))
            for some, times, each in zip(tests, sides, most, strict=True)
        ]
        found = {}
        for value, some, times, each, share in zip(new, tests, sides, most, shares(wants, bound), strict=True):
            rounds = rounds_within(some, share // times, each)
            found[value.agent.name] = _Rounds(
                tests=some if rounds else (), rounds=rounds, calls=times * cost_of_rounds(some, rounds) if rounds else 0
            )
        return found

    async def _cases(
        self,
        change: Change,
        new: Sequence[CanonicalDefinition],
        live: Sequence[CanonicalDefinition],
        rounds: Mapping[str, _Rounds],
        bound: int,
        held: Lease | None,
    ) -> tuple[list[Verdict], int]:
        """What the agents' cases show of them, and how many calls that took: `bound` at most."""
        place = await self._place(change, NEW, new, rounds, held, judge=True)
        beside = await self._place(change, LIVE, live, rounds, held, judge=False) if live else None
        asked = [value for value in new if rounds[value.agent.name].rounds]

        async def measured(some: Mapping[str, _Rounds], number: int) -> tuple[_Results, _Results]:
            timed = {name: one.timed() for name, one in some.items()}
            return await asyncio.gather(
                self._run(place, new, some, number),
                self._run(beside, live, timed, number) if beside is not None else _nothing(),
            )

        async def slow(names: Collection[str], number: int) -> list[str]:
            found = await measured({name: timed[name] for name in names}, number)
            return [one.agent.name for one in asked if one.agent.name in names and _judged(one, *found, most).slower]

        most, spent = len(asked), sum(one.calls for one in rounds.values())
        results = await measured(rounds, 0)
        judged = {value.agent.name: _judged(value, *results, most) for value in asked}
        timed = {name: rounds[name].timed() for name, one in judged.items() if one.slower}
        costs, times = {name: one.calls for name, one in timed.items()}, measurements(error_of(most))
        slower, more = await slower_again(timed, costs, slow, times=times, bound=bound - spent)
        await self._clear(change, held)
        verdicts = [
            self._of_agent(value, judged[value.agent.name], results[0], slower=value.agent.name in slower)
            for value in asked
        ]
        return verdicts, spent + more

    async def _place(
        self,
        change: Change,
        purpose: str,
        values: Sequence[CanonicalDefinition],
        rounds: Mapping[str, _Rounds],
        held: Lease | None,
        *,
        judge: bool,
    ) -> Place:
        scripted = {name for name, one in rounds.items() if one.tests and not one.tests[0].integration}
        tests = [test for one in rounds.values() for test in one.tests]
        rubrics = any(turn.expect.rubric is not None for one in tests for turn in one.turns)
        name, agent = await self._environments.make(
            change.tenant,
            purpose,
            change.id,
            [*values, *await self._environments.neighbours(change.tenant, values)],
            tools="real",
            scripted=scripted,
            judge=judge and rubrics and bool(self._settings.judge_model),
            held=held,
        )
        found = None if agent is None else Judge(environment=name, agent=agent)
        return Place(key=f"{purpose}\0{change.work_key}", scripted=name, real=name, judge=found)

    async def _run(
        self, place: Place, values: Sequence[CanonicalDefinition], rounds: Mapping[str, _Rounds], measurement: int
    ) -> _Results:
        results: _Results = {}

        async def done(result: CaseResult) -> None:
            results.setdefault(result.agent, []).append(result)

        cases = [
            Case(agent=value.agent.name, revision=f"{measurement}-{number}", test=test)
            for value in values
            if value.agent.name in rounds
            for number, test in rounds[value.agent.name].repeated()
        ]
        await self._runner.run(cases, place, done)
        return results

    # -- judging ------------------------------------------------------------------------------------------------------

    def _of_agent(self, value: CanonicalDefinition, judged: Judged, found: _Results, *, slower: bool) -> Verdict:
        name = value.agent.name
        results = found.get(name, [])
        late = [judged.slower] if slower else []
        faults, skipped = [*judged.faults, *late, *_missed(value, results)], _skipped(results)
        outcome = "failed" if faults else "skipped" if skipped else "passed"
        said = "; ".join([*faults, *skipped]) or f"{judged.figures['calls']} calls were as the agent promises"
        if judged.slower and not slower:
            said += NOT_AGAIN
        if judged.low_evidence:
            said += " (low evidence: too few calls to show that the objective is kept)"
        return self._verdict(
            outcome, said, agent=name, evidence={**judged.figures, "low_evidence": judged.low_evidence}
        )

    @staticmethod
    def _told_of_cases(new: Sequence[CanonicalDefinition], rounds: Mapping[str, _Rounds]) -> str:
        asked = sum(bool(one.rounds) for one in rounds.values())
        untested = sum(not evaluated(value) for value in new)
        said = f"{asked:,} of {len(new):,} agents were evaluated in staging"
        if untested:
            said += f", {untested:,} have no tests with a real model (low evidence)"
        if left := len(new) - asked - untested:
            said += f", {left:,} were left out by trials.staging_most_calls (low evidence)"
        return said

    def _over(self, verdicts: Sequence[Verdict], *, said: str) -> Progress:
        wrong = _wrong(verdicts)
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


def _wrong(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return [one for one in verdicts if one.outcome != "passed"]


def _judged(value: CanonicalDefinition, found: _Results, live: _Results, agents: int) -> Judged:
    name = value.agent.name
    before = [one for one in live.get(name, []) if one.tries[-1].problem not in MISFITS]
    objective = Objective(availability=value.availability, latency_p95=value.latency_p95)
    return judge(_seen(found.get(name, [])), _seen(before) if before else None, objective, agents=agents)


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


async def _nothing() -> _Results:
    return {}
