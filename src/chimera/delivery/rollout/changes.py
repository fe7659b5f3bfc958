"""The production stage of a change request: a rollout (the pipeline's port `Rollouts`).

An agent's evaluation cases are what its change was validated by in staging; a change that skipped staging, or a
platform without it, has none.
"""

from chimera.delivery.model import Change
from chimera.delivery.ports import RolloutView
from chimera.delivery.rollout.model import Cases, Item, Summary, Wanted
from chimera.delivery.rollout.service import RolloutService
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

_NEXT = "see `chimera rollout show {}`"


class ChangeRollouts:
    """Rolls changes out by `service`."""

    def __init__(self, service: RolloutService) -> None:
        """Begin and ask there."""
        self._service = service

    async def start(self, change: Change, *, held: Lease | None = None) -> None:
        """See `Rollouts`."""
        items = [
            Item(
                agent=one.agent,
                revision=one.revision,
                before=one.before,
                cases=cases_of(change, one.agent),
                owner=one.owner,
            )
            for one in change.items
        ]
        await self._service.start(
            change.tenant,
            items,
            title=change.title,
            by=change.author,
            change=change.id,
            content=change.content,
            held=held,
        )

    async def look(self, change: Change) -> RolloutView | None:
        """See `Rollouts`."""
        found = await self._service.of_change(change.tenant, change.id, change.content)
        return None if found is None else view_of(found)

    async def pause(self, change: Change, *, by: str, reason: str) -> None:
        """See `Rollouts`."""
        await self._ask(change, "pause", by, reason)

    async def resume(self, change: Change, *, by: str) -> None:
        """See `Rollouts`."""
        await self._ask(change, "run", by, "")

    async def abort(self, change: Change, *, by: str, reason: str) -> None:
        """See `Rollouts`."""
        await self._ask(change, "abort", by, reason)

    async def _ask(self, change: Change, wanted: Wanted, by: str, reason: str) -> None:
        found = await self._service.of_change(change.tenant, change.id, change.content)
        if found is None or found.rollout.wanted == wanted:
            return
        try:
            await self._service.ask(change.tenant, found.rollout.id, wanted, by=by, reason=reason)
        except ProblemError as error:
            # It came too late: what became of the rollout, the pipeline sees when it looks.
            if error.code != "rollout-state":
                raise


def cases_of(change: Change, agent: str) -> Cases:
    """What evaluation cases said of an agent in staging."""
    said = [one.outcome for one in change.verdicts if one.stage == "staging" and one.agent in (agent, None)]
    if not said:
        return "none"
    return "passed" if all(outcome == "passed" for outcome in said) else "failed"


def view_of(summary: Summary) -> RolloutView:
    """A rollout as the pipeline sees it."""
    one = summary.rollout
    detail = one.reason
    if one.state == "done" and (low := summary.strengths.get("low")):
        detail = "; ".join(filter(None, (detail, f"low evidence: {low} of {one.agents} agents")))
    match one.state:
        case "done" | "rolled-back" | "aborted" | "paused":
            state = one.state
            return RolloutView(
                state=state,
                agents=one.agents,
                moved=summary.moved,
                detail=detail,
                next_step=_NEXT.format(one.id),
                asked=one.wanted,
            )
        case _:
            return RolloutView(
                state="rolling-out", agents=one.agents, moved=summary.moved, detail=detail, asked=one.wanted
            )
