"""What is known of a cell, as typed conditions with cause and next step: the model, and the rule that judges.

A home (one machine, a cluster) says what it sees of each subject: hosts that take calls, and evidence of trouble, each
piece with a reason (`reasons`). `judge` makes the conditions of it. They read as Kubernetes' do: a
condition that is `True` is good, `False` is trouble now, `Unknown` is nothing seen yet, or trouble at the last try that
nobody has repeated since, as when a cell sleeps again after its image could not be pulled. Who waits for a cell is told
of what is `False` alone, so that trouble that was mended meanwhile keeps nobody out.

A condition keeps its time and its words while status and reason stay the same: pods' names and counters in a message
are no change. What is good has one reason for each aspect, whatever the number of hosts, so falling asleep, waking and
scaling change nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from chimera.platform.reasons import MEANINGS, Aspect, Reason

REFRESHED = 300.0
"""Other words for the same reason are taken over after so many seconds."""
RECENT = 600.0
"""For so long a host that was lost keeps its cell from being healthy."""
HOME = "home"
"""The subject of what concerns the home as a whole."""
MOST_MESSAGE = 1_000


Status = Literal["True", "False", "Unknown"]


class Condition(Struct, frozen=True, kw_only=True):
    """One condition. `since` is when status and reason became what they are, in seconds since the epoch."""

    type: Aspect
    status: Status
    reason: Reason
    message: str = ""
    next_step: str = ""
    since: float = 0.0
    told: float = 0.0
    """When the message was written."""


class Evidence(Struct, frozen=True, kw_only=True):
    """A piece of trouble as a home sees it: the reason, the cause in the home's own words, a better next step."""

    reason: Reason
    message: str
    next_step: str = ""


class Seen(Struct, frozen=True, kw_only=True):
    """What a home sees of one subject: `cells/CELL`, or the home itself.

    `ready_hosts` take calls now. `accepted` is False while the home is still to take the cell as it is wanted, `there`
    where it has something of the cell that calls can wake, be it as the cell was wanted before.
    """

    subject: str
    tenant: str
    ready_hosts: int = 0
    accepted: bool = True
    there: bool = True
    evidence: tuple[Evidence, ...] = ()


CELL_ASPECTS = (Aspect.ACCEPTED, Aspect.REACHABLE, Aspect.STARTABLE, Aspect.HEALTHY)
_ORDER = {reason: number for number, reason in enumerate(Reason)}


def cell_subject(cell: str) -> str:
    """The subject of a cell's conditions."""
    return f"cells/{cell}"


def judge(seen: Seen, before: Iterable[Condition], now: float) -> tuple[Condition, ...]:
    """The conditions of what is seen, `Ready` first; equal to `before` where nothing changed that a person would."""
    known = {one.type: one for one in before}
    if seen.subject == HOME:
        return (_kept(_by_evidence(Aspect.CONNECTED, seen) or _good(Aspect.CONNECTED), known, now),)
    parts = [_kept(_part(aspect, seen, known.get(aspect)), known, now) for aspect in CELL_ASPECTS]
    return (_kept(_ready(seen, parts), known, now), *parts)


def why_not(conditions: Iterable[Condition], waited: float) -> Condition | None:
    """What to tell somebody who has waited so many seconds for a host of the cell; None while it may still come."""
    for one in conditions:
        blocks = one.type is Aspect.READY or (one.type is Aspect.CONNECTED and one.reason is Reason.KNATIVE_MISSING)
        if blocks and one.status == "False" and waited >= MEANINGS[one.reason].patience:
            return one
    return None


def _part(aspect: Aspect, seen: Seen, before: Condition | None) -> Condition:
    if (found := _by_evidence(aspect, seen)) is not None:
        return found
    if aspect is Aspect.ACCEPTED and not seen.accepted:
        return _waiting(aspect, "it is being given to the home")
    if aspect is Aspect.STARTABLE and not seen.ready_hosts:
        if before is None:
            return _waiting(aspect, "no host was started yet")
        if before.status != "True":  # nobody tries any more, and nobody knows whether it would work by now
            return Condition(
                type=aspect,
                status="Unknown",
                reason=before.reason,
                message=before.message,
                next_step=before.next_step,
            )
    return _good(aspect)


def _by_evidence(aspect: Aspect, seen: Seen) -> Condition | None:
    found = [one for one in seen.evidence if aspect is Aspect.CONNECTED or MEANINGS[one.reason].aspect is aspect]
    if not found:
        return None
    worst = min(found, key=lambda one: (_ORDER[one.reason], one.message))
    return Condition(
        type=aspect,
        status="False",
        reason=worst.reason,
        message=worst.message[:MOST_MESSAGE],
        next_step=worst.next_step or MEANINGS[worst.reason].next_step,
    )


def _ready(seen: Seen, parts: Sequence[Condition]) -> Condition:
    if seen.ready_hosts:
        return _good(Aspect.READY)
    blocks = (Aspect.REACHABLE, Aspect.STARTABLE) if seen.there else (Aspect.ACCEPTED, Aspect.STARTABLE)
    blocking = [one for one in parts if one.type in blocks and one.status != "True"]
    for status in ("False", "Unknown"):
        for one in blocking:
            if one.status == status:
                return Condition(
                    type=Aspect.READY,
                    status=one.status,
                    reason=one.reason,
                    message=one.message,
                    next_step=one.next_step,
                )
    return _good(Aspect.READY)


def _good(aspect: Aspect) -> Condition:
    return Condition(type=aspect, status="True", reason=Reason.AS_WANTED)


def _waiting(aspect: Aspect, message: str) -> Condition:
    return Condition(type=aspect, status="Unknown", reason=Reason.IN_PROGRESS, message=message)


def _kept(made: Condition, known: dict[Aspect, Condition], now: float) -> Condition:
    before = known.get(made.type)
    if before is None or (before.status, before.reason) != (made.status, made.reason):
        return Condition(
            type=made.type,
            status=made.status,
            reason=made.reason,
            message=made.message,
            next_step=made.next_step,
            since=now,
            told=now,
        )
    if made.message == before.message or now < before.told + REFRESHED:
        return before
    return Condition(
        type=made.type,
        status=made.status,
        reason=made.reason,
        message=made.message,
        next_step=made.next_step,
        since=before.since,
        told=now,
    )
