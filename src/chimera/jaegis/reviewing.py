"""JAEGIS in the pipeline of a change: what may approve it without a person, and what of it can't work.

Quality Assurance and the Agent Creator review: where both are content, a change of low risk needs nobody's approval,
and what they found stands beside it as verdicts, with the score of each criterion. The Agent Creator is a check of the
build stage too: an agent that names one which doesn't exist fails there, whatever the risk.

An agent that passed has its verdict as one that failed has, so that an automatic approval says on what it rests.
"""

from collections.abc import Sequence

from chimera.agents.compile import CompiledAgent
from chimera.delivery.model import Change, Outcome, Stage, Verdict
from chimera.delivery.ports import Revision
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.quality.model import Assessment
from chimera.jaegis.service import Jaegis
from chimera.kernel.clock import Clock

QUALITY, ECOSYSTEM = "quality", "ecosystem"
_MOST_REASONS = 3


class QualityReviewer:
    """A `Reviewer`: every definition of the change is good enough."""

    name = QUALITY

    def __init__(self, jaegis: Jaegis, clock: Clock) -> None:
        """Ask `jaegis`."""
        self._jaegis = jaegis
        self._clock = clock

    async def review(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Reviewer`."""
        agents, gone = _parts(revisions)
        assessed = await self._jaegis.assess(change.tenant, agents, gone)
        now = self._clock.wall()
        passing, least = sum(one.passed for one in assessed), self._jaegis.quality.passing
        whole = Verdict(
            stage="approval",
            check=self.name,
            outcome="passed" if passing == len(assessed) else "failed",
            detail=f"{passing} of {len(assessed)} definitions are good enough ({least:g} of 100)",
            next_step="" if passing == len(assessed) else "a person decides, or mend what the agents' verdicts name",
            at=now,
        )
        return [whole, *(self._verdict(one, now) for one in assessed)]

    def _verdict(self, one: Assessment, now: float) -> Verdict:
        unmet = sorted(
            (finding for finding in one.findings if finding.score < 1 and finding.weight > 0),
            key=lambda finding: (finding.criterion not in one.lacking, finding.weight * (finding.score - 1)),
        )
        reasons = "; ".join(finding.reason for finding in unmet[:_MOST_REASONS])
        return Verdict(
            stage="approval",
            check=self.name,
            agent=one.agent,
            outcome="passed" if one.passed else "failed",
            detail=f"{one.score:g} of 100, {one.grade}" + (f": {reasons}" if reasons else ""),
            next_step="" if one.passed else "; ".join(finding.next_step for finding in unmet[:_MOST_REASONS]),
            evidence={
                "revision": one.revision,
                "score": one.score,
                "criteria": {finding.criterion: finding.score for finding in one.findings},
                "lacking": list(one.lacking),
                "twins": [twin.agent for twin in one.twins],
            },
            at=now,
        )


class EcosystemReviewer:
    """A `Reviewer`: nothing of the change is odd beside what is live."""

    name = ECOSYSTEM

    def __init__(self, jaegis: Jaegis, clock: Clock) -> None:
        """Ask `jaegis`."""
        self._look = _Look(jaegis, clock, "approval")

    async def review(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Reviewer`."""
        return await self._look.verdicts(change, revisions, blocking_alone=False)


class EcosystemCheck:
    """A `Check`: what the change names is there, and it takes nothing away that others need."""

    name = ECOSYSTEM

    def __init__(self, jaegis: Jaegis, clock: Clock) -> None:
        """Ask `jaegis`."""
        self._look = _Look(jaegis, clock, "build")

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Check`."""
        return await self._look.verdicts(change, revisions, blocking_alone=True)


class _Look:
    """The Agent Creator's findings as verdicts of a stage."""

    def __init__(self, jaegis: Jaegis, clock: Clock, stage: Stage) -> None:
        self._jaegis = jaegis
        self._clock = clock
        self._stage: Stage = stage

    async def verdicts(self, change: Change, revisions: Sequence[Revision], *, blocking_alone: bool) -> list[Verdict]:
        agents, gone = _parts(revisions)
        found = await self._jaegis.validate(change.tenant, agents, gone)
        live = len((await self._jaegis.ecosystem(change.tenant)).members)
        now = self._clock.wall()
        counting = [one for one in found if one.blocking or not blocking_alone]
        by_agent: dict[str, list[Misfit]] = {}
        for one in counting:
            by_agent.setdefault(one.agent, []).append(one)
        outcome: Outcome = "failed" if counting else "passed"
        fits = f"{len(revisions) - len(by_agent)} of {len(revisions)} fit the ecosystem of {live} live agents"
        whole = Verdict(
            stage=self._stage,
            check=ECOSYSTEM,
            outcome=outcome,
            detail=fits,
            next_step="mend what the agents' verdicts name" if counting else "",
            evidence={"live": live, "misfits": len(found)},
            at=now,
        )
        return [whole, *(self._verdict(agent, misfits, now) for agent, misfits in sorted(by_agent.items()))]

    def _verdict(self, agent: str, misfits: Sequence[Misfit], now: float) -> Verdict:
        return Verdict(
            stage=self._stage,
            check=ECOSYSTEM,
            agent=agent,
            outcome="failed",
            detail="; ".join(one.detail for one in misfits[:_MOST_REASONS]),
            next_step="; ".join(one.next_step for one in misfits[:_MOST_REASONS]),
            evidence={
                "codes": sorted({one.code for one in misfits}),
                "paths": [one.path for one in misfits if one.path],
            },
            at=now,
        )


def _parts(revisions: Sequence[Revision]) -> tuple[list[CompiledAgent], list[str]]:
    """The definitions of a change, and the agents that it takes out."""
    agents = [one.compiled for one in revisions if one.compiled is not None]
    return agents, [one.item.agent for one in revisions if one.compiled is None]
