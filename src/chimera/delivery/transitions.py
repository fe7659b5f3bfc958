"""How a change request becomes another: one pure rule for each thing that people or the pipeline do to it.

Each rule takes the change, who acts and the time, and gives the change as it is then, with what is told of it; or it
raises why that can't be. Nothing else makes a `Change` out of another.

    open → building → awaiting-approval → staging → rolling-out ⇄ paused → done | rolled-back
             ↓              ↓                ↓           ↓
           failed        rejected          failed      failed | aborted | rolled-back

`failed` and `rejected` go back to `open` with other content. A change that production has nothing of may be aborted or
superseded at any time; one that moves is taken back by its rollout.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec.structs import replace

from chimera.delivery.approvals import Who, check_approver, identity, made_by, roles_of
from chimera.delivery.errors import ApprovalRefused, NoChange, WrongState
from chimera.delivery.model import (
    ENDED,
    IN_FLIGHT,
    MOVING,
    NOT_MOVING,
    RESTING,
    Approval,
    Change,
    ChangeItem,
    Emergency,
    Moved,
    Reason,
    Risk,
    State,
    Told,
    Verdict,
    Wanted,
    content_of,
)
from chimera.delivery.policy import DeliveryPolicy

PIPELINE = "system:pipeline"
_HOUR = 3_600.0
_LEAST_REASON = 10
_NEXT: dict[State, str] = {
    "failed": "correct the definitions and send them with `chimera change amend`",
    "rejected": "talk to whoever rejected it, then send other content with `chimera change amend`",
    "superseded": "make the change again from what is live now",
    "aborted": "open a new change if it is still wanted",
    "rolled-back": "see why it was taken back, then open a new change",
}


# -- what people do ----------------------------------------------------------------------------------------------------


def amend(
    change: Change, items: Sequence[ChangeItem], risk: Risk, reasons: Sequence[Reason], who: Who, now: float
) -> Moved:
    """Other content: what was checked and approved counts no more, and an emergency has to be declared again."""
    if change.state in ENDED or change.state in MOVING:
        raise _wrong(change, "be given other content", "open a new change")
    content = content_of(items)
    if content == change.content and change.state == "rejected":
        raise NoChange(
            f"change {change.id} was rejected with this very content",
            next_step="send other content, or open a new change: it is judged from the beginning",
        )
    if content == change.content and change.state not in RESTING:
        raise NoChange(f"change {change.id} has this content already", next_step="nothing; it goes on")
    people = change.contributors
    if who.person not in (change.author_person, *people):
        people = (*people, who.person)  # who wrote a part of it can't approve it either
    made = replace(
        _to(change, "open", now),
        items=tuple(items),
        content=content,
        risk=risk,
        risk_reasons=tuple(reasons),
        contributors=people,
        verdicts=(),
        emergency=None,
        wanted="go",
        wanted_by="",
    )
    return Moved(change=made, told=_told("amended", who.actor, before=change.content), items=True)


def decide(
    change: Change,
    policy: DeliveryPolicy,
    who: Who,
    decision: Literal["approved", "rejected"],
    content: str,
    comment: str,
    now: float,
) -> Moved:
    """Somebody's word on the `content` that they looked at. A rejection rests the change.

    It is heard until production begins: a policy that has become stricter may ask for more words after staging.
    """
    if change.state not in NOT_MOVING:
        raise _wrong(change, f"be {decision}", "see it with `chimera change show`")
    if content != change.content:
        raise WrongState(
            f"change {change.id} has another content than the one that was looked at",
            next_step=f"look again: `chimera change show {change.id}`",
        )
    check_approver(change, policy, who)
    word = Approval(
        by=who.actor,
        person=who.person,
        decision=decision,
        content=content,
        at=now,
        roles=tuple(sorted(who.roles)),
        comment=comment,
    )
    made = replace(change, approvals=(*change.approvals, word), updated=now, version=change.version + 1)
    if decision == "rejected":
        made = replace(_to(made, "rejected", now, f"rejected by {who.actor}{_said(comment)}"), version=made.version)
    return Moved(change=made, told=_told(decision, who.actor, content=content, comment=comment), approval=word)


def abort(change: Change, who: Who, reason: str, now: float) -> Moved:
    """Give it up; where production has some of it, have that taken back."""
    if change.state not in IN_FLIGHT:
        raise _wrong(change, "be aborted", "nothing")
    if change.state in MOVING:
        return want(change, "abort", who, reason, now)
    made = _to(change, "aborted", now, f"aborted by {who.actor}{_said(reason)}")
    return Moved(change=made, told=_told("aborted", who.actor, reason=reason))


def withdraw(change: Change, who: Who, reason: str, now: float) -> Moved:
    """Whoever made it says otherwise by now, and production has nothing of it."""
    if change.state not in NOT_MOVING:
        raise _wrong(change, "be withdrawn", "see it with `chimera change show`")
    return ended(change, "superseded", reason, now, by=who.actor)


def want(change: Change, wanted: Literal["go", "pause", "abort"], who: Who, reason: str, now: float) -> Moved:
    """What somebody wants of a rollout; the pipeline sees to it. What is being taken back goes on being taken back."""
    if change.state not in MOVING:
        raise _wrong(change, {"go": "be resumed", "pause": "be paused", "abort": "be taken back"}[wanted], _NOT_MOVING)
    if change.wanted == "abort" and wanted != "abort":
        raise WrongState(f"change {change.id} is being taken back", next_step="wait for that, then open a new change")
    made = replace(change, wanted=wanted, wanted_by=who.actor, updated=now, version=change.version + 1)
    return Moved(change=made, told=_told("wanted", who.actor, wanted=wanted, reason=reason))


_NOT_MOVING = "production has nothing of it: abort it, or let it wait for its approval"


def declare_emergency(change: Change, policy: DeliveryPolicy, who: Who, reason: str, now: float) -> Moved:
    """Take the emergency path, by somebody whom the policy trusts with it, and with a reason."""
    if change.state not in IN_FLIGHT or change.state in MOVING:
        raise _wrong(change, "take the emergency path", "open a new change")
    if not who.is_person or not who.roles & set(policy.emergency_roles):
        named = " or ".join(policy.emergency_roles) or "nobody"
        raise ApprovalRefused(
            f"the emergency path is for the role {named}, and {who.actor} doesn't have it",
            next_step="ask somebody who has it, or have the change approved",
        )
    if len(reason.strip()) < _LEAST_REASON:
        raise ApprovalRefused(
            "the emergency path needs a reason in a sentence", next_step="say what is broken and why it can't wait"
        )
    due = now + policy.review_hours * _HOUR
    found = Emergency(by=who.actor, person=who.person, reason=reason.strip(), at=now, review_due=due)
    made = replace(change, emergency=found, updated=now, version=change.version + 1)
    return Moved(change=made, told=_told("emergency", who.actor, reason=found.reason, review_due=due))


def review(
    change: Change,
    policy: DeliveryPolicy,
    who: Who,
    decision: Literal["approved", "rejected"],
    comment: str,
    now: float,
) -> Moved:
    """The look at an emergency afterwards, by somebody who neither made the change nor took the path."""
    taken = change.emergency
    if taken is None or taken.reviewed is not None:
        raise _wrong(change, "be reviewed", "only a change on the emergency path is, and once")
    own = identity(who.person) == identity(taken.person) or made_by(change, who.person)
    if not who.is_person or own:
        raise ApprovalRefused(
            f"{who.person} made this change or sent it on the emergency path",
            next_step="ask somebody else to review it",
        )
    wanted = roles_of(policy.approvals.of(change.risk))
    if not wanted & who.roles:
        raise ApprovalRefused(
            f"a review asks for the role {' or '.join(sorted(wanted))}; {who.actor} has none",
            next_step="ask somebody who has it",
        )
    word = Approval(
        by=who.actor,
        person=who.person,
        decision=decision,
        content=change.content,
        at=now,
        roles=tuple(sorted(who.roles)),
        comment=comment,
    )
    made = replace(change, emergency=replace(taken, reviewed=word), updated=now, version=change.version + 1)
    return Moved(change=made, told=_told("reviewed", who.actor, decision=decision, comment=comment))


# -- what the pipeline does --------------------------------------------------------------------------------------------


def begin_build(change: Change, now: float) -> Moved:
    """The checks begin."""
    return Moved(change=_to(change, "building", now), told=_told("building", PIPELINE))


def built(change: Change, now: float) -> Moved:
    """Every check has passed."""
    return Moved(change=_to(change, "awaiting-approval", now), told=_told("built", PIPELINE))


def failed(change: Change, reason: str, next_step: str, now: float) -> Moved:
    """It can't go on with this content."""
    made = _to(change, "failed", now, reason, next_step or _NEXT["failed"])
    return Moved(change=made, told=_told("failed", PIPELINE, reason=reason))


def failing(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first verdict that stops a change: what failed before what was skipped."""
    for outcome in ("failed", "skipped"):
        for one in verdicts:
            if one.outcome == outcome:
                return one
    return None


def wait(change: Change, reason: str, next_step: str, now: float) -> Change | None:
    """The change with another reason why it waits; None where it says that already. Nothing is told of it."""
    if (change.reason, change.next_step) == (reason, next_step):
        return None
    return replace(change, reason=reason, next_step=next_step, updated=now, version=change.version + 1)


def stage(change: Change, now: float) -> Moved:
    """It goes to staging."""
    return Moved(change=replace(_to(change, "staging", now), staged=True), told=_told("staging", PIPELINE))


def cleaned(change: Change, now: float) -> Change:
    """Staging has nothing of it any more. Nothing is told of it."""
    return replace(change, staged=False, updated=now, version=change.version + 1)


def roll_out(change: Change, now: float, **detail: Any) -> Moved:
    """It begins to go to production."""
    return Moved(change=_to(change, "rolling-out", now), told=_told("rolling-out", PIPELINE, **detail))


def resumed(change: Change, now: float) -> Moved:
    """Its rollout goes on again."""
    return Moved(
        change=_to(change, "rolling-out", now), told=_told("rolling-out", PIPELINE, resumed_by=_asker(change, "go"))
    )


def paused(change: Change, reason: str, now: float) -> Moved:
    """Its rollout stands still."""
    made = _to(change, "paused", now, reason, f"`chimera change resume {change.id}`, or abort it")
    return Moved(change=made, told=_told("paused", _asker(change, "pause"), reason=reason))


def ended(
    change: Change,
    state: Literal["done", "rolled-back", "aborted", "superseded"],
    reason: str,
    now: float,
    *,
    by: str = PIPELINE,
) -> Moved:
    """It has come to its end, `by` whom; an abort by whoever wanted it."""
    made = _to(change, state, now, reason, _NEXT.get(state, ""))
    who = _asker(change, "abort") if state == "aborted" else by
    return Moved(change=made, told=_told(state, who, reason=reason))


def _asker(change: Change, wanted: Wanted) -> str:
    """Who is told to have done what is `wanted`: whoever asked for that, else the pipeline."""
    return change.wanted_by if change.wanted == wanted and change.wanted_by else PIPELINE


def _to(change: Change, state: State, now: float, reason: str = "", next_step: str | None = None) -> Change:
    return replace(
        change,
        state=state,
        reason=reason,
        next_step=_NEXT.get(state, "") if next_step is None else next_step,
        since=now,
        updated=now,
        version=change.version + 1,
    )


def _told(what: str, by: str, **detail: Any) -> Told:
    return Told(fact=f"change.{what}", by=by, detail={name: value for name, value in detail.items() if value != ""})


def _said(text: str) -> str:
    return f": {text}" if text else ""


def _wrong(change: Change, what: str, next_step: str) -> WrongState:
    return WrongState(f"change {change.id} is {change.state} and can't {what}", next_step=next_step)
