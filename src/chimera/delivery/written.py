"""What is written of a step of the pipeline, and of how a rollout is: pure."""

from typing import assert_never

from msgspec.structs import replace

from chimera.delivery import transitions
from chimera.delivery.course import (
    BeginBuild,
    Fail,
    FinishBuild,
    GiveUp,
    Nothing,
    ToProduction,
    ToStaging,
    Wait,
)
from chimera.delivery.model import Change, Moved, Outcome, Verdict
from chimera.delivery.ports import RolloutView
from chimera_host.contract.problem import ProblemError

_SERVER_ERROR = 500


def of_step(
    change: Change,
    step: BeginBuild | FinishBuild | Fail | Wait | GiveUp | ToStaging | ToProduction | Nothing,
    now: float,
) -> Moved | Change | None:
    """What is written of a step that is nothing but that; None where it is written already."""
    match step:
        case BeginBuild():
            return transitions.begin_build(change, now)
        case FinishBuild():
            return transitions.built(change, now)
        case Fail():
            return transitions.failed(change, step.reason, step.next_step, now)
        case Wait():
            return transitions.wait(change, step.reason, step.next_step, now)
        case GiveUp():
            return transitions.ended(change, "aborted", step.reason, now)
        case ToStaging():
            return transitions.stage(change, now)
        case ToProduction():
            return transitions.roll_out(change, now, approved_by=list(step.by))
        case Nothing():
            return None
        case _:
            assert_never(step)


def of_rollout(change: Change, view: RolloutView, now: float) -> Moved | Change | None:
    """What a change becomes by how its rollout is; None where that is written down already."""
    match view.state:
        case "done" | "rolled-back" | "aborted":
            return transitions.ended(change, view.state, view.detail, now)
        case "failed":
            return transitions.failed(change, view.detail or "the rollout failed", view.next_step, now)
        case "paused" if change.state == "rolling-out" and (change.wanted == "pause" or view.asked == "run"):
            # It stands still as was asked, or by its own judgement; in either case somebody has to let it go on.
            stopped = transitions.paused(change, view.detail, now)
            return replace(stopped, change=replace(stopped.change, wanted="pause"))
        case "rolling-out" if change.state == "paused":
            return transitions.resumed(change, now)
    return transitions.wait(change, view.detail or f"{view.moved} of {view.agents} agents", view.next_step, now)


def may_pass(error: ProblemError) -> bool:
    """Whether asking again later may go well: the database is away, or another process has the lease."""
    return error.status >= _SERVER_ERROR or error.retry_after is not None or error.code == "lease-lost"


def silent(name: str, outcome: Outcome, detail: str, next_step: str) -> Verdict:
    """What is written of a check that said nothing itself."""
    return Verdict(stage="build", check=name, outcome=outcome, detail=detail, next_step=next_step)
