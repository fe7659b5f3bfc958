"""The agents' own tests as a check of the build stage: a run of all tests of a change, and what came of it."""

import asyncio
from collections.abc import Sequence

from chimera.delivery.model import Change, Verdict
from chimera.delivery.ports import Revision
from chimera.delivery.trials.model import UNFINISHED, Candidate, CaseResult, Run
from chimera.delivery.trials.ports import RunStore
from chimera.delivery.trials.service import Trials
from chimera.kernel.clock import Clock

NAME = "own-tests"
POLL = 0.5
MOST_TOLD = 200
"""Cases of a change that failed or were skipped of which a verdict tells; the run has all of them."""


class OwnTests:
    """The port `Check`: what was begun for this build of a change is found again, and waited for."""

    name = NAME

    def __init__(self, trials: Trials, store: RunStore, clock: Clock, *, poll: float = POLL) -> None:
        """Run `trials`, and look at them in `store` every `poll` seconds."""
        self._trials = trials
        self._store = store
        self._clock = clock
        self._poll = poll

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """Run the tests of all revisions; a verdict for each case that didn't pass, and one for the change."""
        candidates = [
            Candidate(agent=one.item.agent, revision=one.compiled.digest)
            for one in revisions
            if one.compiled is not None
        ]
        if not candidates:
            return [self._verdict("passed", "no agent is made or changed")]
        run = await self._trials.start(change.tenant, candidates, by=change.author, key=f"change\0{change.work_key}")
        while run.state in UNFINISHED:
            await asyncio.sleep(self._poll)
            run = await self._trials.get(change.tenant, run.run)
        if run.state != "done":
            why = run.problem or f"the run of tests was {run.state}"
            return [self._verdict("skipped", why, run=run, step="open the change again once that is mended")]
        wrong = await self._store.results(
            change.tenant, run.run, outcomes=("failed", "skipped"), after=("", ""), limit=MOST_TOLD
        )
        return [self._of_change(run), *(self._of_case(run, one) for one in wrong)]

    def _of_change(self, run: Run) -> Verdict:
        counts = run.counts
        said = f"{counts.passed:,} of {counts.total:,} tests passed"
        if run.untested:
            said += f"; {run.untested:,} of {run.agents:,} agents declare none"
        if counts.failed or counts.skipped:
            outcome = "failed" if counts.failed else "skipped"
            said += f"; {counts.failed:,} failed, {counts.skipped:,} were skipped"
            return self._verdict(outcome, said, run=run, step=f"see `chimera test --run {run.run}`")
        return self._verdict("passed", said, run=run)

    def _of_case(self, run: Run, result: CaseResult) -> Verdict:
        said = f"the test {result.case!r}: {result.detail}"
        step = f"see `chimera test --run {run.run}`"
        return self._verdict(result.outcome, said, run=run, agent=result.agent, step=step)

    def _verdict(
        self, outcome: str, detail: str, *, run: Run | None = None, agent: str | None = None, step: str = ""
    ) -> Verdict:
        return Verdict(
            stage="build",
            check=NAME,
            outcome="passed" if outcome == "passed" else "failed" if outcome == "failed" else "skipped",
            agent=agent,
            detail=detail[:1_000],
            next_step=step,
            evidence={} if run is None else {"run": run.run},
            at=self._clock.wall(),
        )
