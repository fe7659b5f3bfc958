"""Rollouts as resources: what they select, what they ask of a rollout, and what they are told. Pure rules.

A Rollout stands for how the Agents that it selects reach production, not for one time of it: each time that some of
them want another definition live, it begins one rollout of these. So a folder may be applied in any order, and again.

Whoever wants a rollout to be more careful has his way: the resource pauses and aborts what a person lets run, and lets
run on only what it paused itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from chimera.adapters.substrates.knative.resources.crds import Asked
from chimera.adapters.substrates.knative.resources.kinds import RolloutStatus, Selected, Told
from chimera.adapters.substrates.knative.resources.status import conditions
from chimera.delivery.rollout.model import ENDED, Summary, Wanted

PHASES = {
    "running": "Running",
    "paused": "Paused",
    "promoting": "Promoting",
    "rolling-back": "RollingBack",
    "done": "Done",
    "rolled-back": "RolledBack",
    "aborted": "Aborted",
}
IDLE, HELD, GATHERING, BLOCKED = "Idle", "Held", "Gathering", "Blocked"
INVALID, BY_CHANGES, NO_TENANT, NOT_CLAIMED = "Invalid", "ByChanges", "NoTenant", "NotClaimed"
_WANTED: dict[Asked, Wanted] = {"Running": "run", "Paused": "pause", "Aborted": "abort"}
_LOW = "low"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What is known of a Rollout: the Agents that it governs, and the newest rollout that it began.

    `direct` says whether the tenant takes direct changes. `refusal`, `no_tenant` and `problem` say why nothing of it
    can be done: the namespace is nobody's, it has no tenant, the spec isn't valid or a rollout couldn't begin.
    """

    selected: int = 0
    waiting: int = 0
    refused: int = 0
    newest: Summary | None = None
    direct: bool = True
    refusal: str = ""
    no_tenant: str = ""
    invalid: str = ""
    problem: str = ""


def governing(selected: Selected, name: str, labels: Mapping[str, str]) -> bool:
    """Whether an Agent of the namespace is selected; nothing said selects all."""
    if not selected.names and not selected.match_labels:
        return True
    if name in selected.names:
        return True
    wanted = selected.match_labels
    return bool(wanted) and all(labels.get(label) == value for label, value in wanted.items())


def policy_fault(error: msgspec.ValidationError) -> str:
    """What is wrong with a policy, in the words of the API."""
    return f"policy: {error}"


def asked_of(state: Asked, newest: Summary, actor: str) -> Wanted | None:
    """What the resource is to ask of its rollout now; None where that is as it wants it, or may not be asked."""
    one, wanted = newest.rollout, _WANTED[state]
    if one.state not in ("running", "paused") or one.wanted in (wanted, "abort"):
        return None
    if wanted == "run" and one.asked_by != actor:
        return None  # a person paused it, and lets it run
    return wanted


def rollout_status(
    seen: Seen, state: Asked, generation: int, before: RolloutStatus, tenant: str | None, now: str
) -> RolloutStatus:
    """The status of a Rollout; equal to `before` where nothing is to be told."""
    phase, ready, stalled, message = _told(seen, state)
    told: tuple[Told, ...] = conditions(
        [("Ready", ready, phase, message), ("Stalled", stalled, phase, message if stalled else "Nobody is needed.")],
        generation,
        before.conditions,
        now,
    )
    status = RolloutStatus(
        observed_generation=generation,
        phase=phase,
        tenant=tenant or "",
        selected=seen.selected,
        waiting=seen.waiting,
        conditions=told,
    )
    if (newest := seen.newest) is None:
        return status
    one = newest.rollout
    return msgspec.structs.replace(
        status,
        rollout=one.id,
        started_at=_moment(one.created),
        ended_at=_moment(one.ended),
        agents=one.agents,
        moved=newest.moved,
        wave=one.wave + 1,
        waves=one.waves,
        taken_back=newest.phases.get("rolling-back", 0) + newest.phases.get("rolled-back", 0),
        low_evidence=newest.strengths.get(_LOW, 0),
    )


def without_numbers(status: RolloutStatus) -> RolloutStatus:
    """A status without what changes all the time while a rollout is under way."""
    return msgspec.structs.replace(status, moved=0, taken_back=0, low_evidence=0, selected=0, waiting=0)


def _told(seen: Seen, state: Asked) -> tuple[str, bool, bool, str]:
    """The phase, whether all of it is live, whether somebody is needed, and why with what to do."""
    if seen.refusal:
        return NOT_CLAIMED, False, True, seen.refusal
    if seen.no_tenant:
        return NO_TENANT, False, True, seen.no_tenant
    newest = seen.newest
    if newest is not None and newest.rollout.state not in ENDED:
        return _under_way(newest)
    if seen.invalid:
        return INVALID, False, True, f"{seen.invalid}. Until it is corrected its Agents wait."
    if not seen.direct:
        text = (
            "The tenant's delivery policy takes changes by change requests alone. A change carries these Agents (their "
            "status names it) and rolls them out by the platform's settings: pause or abort it with `chimera change`."
        )
        return BY_CHANGES, False, True, text
    if seen.waiting and state != "Running":
        text = f"{seen.waiting} Agents wait, since spec.state is {state}: set it to Running and they are rolled out."
        return HELD, False, True, text
    if seen.waiting and seen.problem:
        return BLOCKED, False, True, f"{seen.problem} It is tried again by itself."
    if seen.waiting:
        return GATHERING, False, False, f"{seen.waiting} Agents are gathered, and rolled out together."
    if newest is None:
        return IDLE, True, False, "All its Agents are live as they are; the next definitions are rolled out."
    return _over(newest, seen.refused)


def _under_way(newest: Summary) -> tuple[str, bool, bool, str]:
    one = newest.rollout
    paused = one.state == "paused"
    text = one.reason or f"Wave {one.wave + 1} of {one.waves}: {newest.moved} of {one.agents} Agents moved."
    if paused:
        text += " Set spec.state to Running to let it go on; where a person paused it, `chimera rollout resume`."
    return PHASES[one.state], False, paused, f"{text} See `chimera rollout show {one.id}`."


def _over(newest: Summary, refused: int) -> tuple[str, bool, bool, str]:
    one = newest.rollout
    phase = PHASES[one.state]
    if not refused:
        return phase, True, False, f"All its Agents are live as they are. The last rollout was {one.id}."
    why = f": {one.reason}" if one.reason else ""
    text = (
        f"{refused} Agents were not taken into production by {one.id}{why}. Change their definitions, or count "
        f"spec.attempt up to try these again. See `chimera rollout show {one.id}`."
    )
    return phase, False, True, text


def _moment(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
