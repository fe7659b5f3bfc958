"""What the pipeline does next with a change: a pure rule of the change, the policy, what is installed, and the time.

It is asked again after each step, and after a crash; what it answers depends on nothing that is not stored. What it
keeps: production begins only with every check passed on this content, and with the approvals that the policy asks for
outside of freeze windows, or on the emergency path, which spares all but the checks.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from chimera.delivery.approvals import failing_reviewers, standing
from chimera.delivery.freezes import frozen, in_words
from chimera.delivery.model import ENDED, RESTING, Change, Stage, Verdict
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.settings import DeliverySettings
from chimera.delivery.transitions import failing

STAGING_CHECK = "staging"
"""The name under which staging says that all of a change has passed."""
_HOUR, _DAY = 3_600.0, 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """What the pipeline has: checks and reviewers by name, and whether there is staging."""

    checks: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    staging: bool = False


@dataclass(frozen=True, slots=True)
class BeginBuild:
    """Write down that the checks begin."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask these checks, or reviewers, which have said nothing yet."""

    stage: Literal["build", "approval"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinishBuild:
    """Write down that all checks have passed."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The change can't go on."""

    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do but to say why."""

    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody wants it any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class ToStaging:
    """Write down that it goes to staging."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Have staging do the next bit."""


@dataclass(frozen=True, slots=True)
class ToProduction:
    """Write down that it begins to go to production, and who approved it."""

    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drive:
    """Bring it to production, or see how far its rollout is."""


@dataclass(frozen=True, slots=True)
class Clean:
    """Take away what it has in staging."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """It has ended."""


Step: TypeAlias = (
    BeginBuild | Ask | FinishBuild | Fail | Wait | GiveUp | ToStaging | Advance | ToProduction | Drive | Clean | Nothing
)


def next_step(
    change: Change, policy: DeliveryPolicy, installed: Installed, settings: DeliverySettings, now: float
) -> Step:
    """What is to be done with `change` at `now`."""
    if change.state in ENDED or change.state in RESTING:
        return Clean() if change.staged else Nothing()
    if change.state == "open":
        return Clean() if change.staged else BeginBuild()
    if change.state == "building":
        return _build(change, installed, settings, now)
    if change.state == "awaiting-approval":
        return _await(change, policy, installed, settings, now)
    if change.state == "staging":
        return _stage(change, policy, installed, settings, now)
    return Drive()


def _build(change: Change, installed: Installed, settings: DeliverySettings, now: float) -> Step:
    silent = _silent(change, "build", installed.checks)
    if silent and now - change.since > settings.build_hours * _HOUR:
        return Fail(
            f"{', '.join(silent)} did not end within {settings.build_hours:g} hours",
            "see the control plane's log; then send the change again with `chimera change amend`",
        )
    if silent:
        return Ask("build", silent)
    said = tuple(one for one in change.verdicts if one.stage == "build")
    if (found := failing(said)) is not None:
        return _fail(change, found, said)
    return FinishBuild()


def _await(
    change: Change, policy: DeliveryPolicy, installed: Installed, settings: DeliverySettings, now: float
) -> Step:
    if change.emergency is not None:
        return ToProduction((change.emergency.by,))
    found = standing(change, policy, installed.reviewers)
    if not found.approved:
        automatic = policy.approvals.of(change.risk).automatic
        if automatic and (silent := _silent(change, "approval", installed.reviewers)):
            return Ask("approval", silent)
        return _ask_people(change, policy, installed, settings, found.missing, now)
    if installed.staging:
        return ToStaging()
    return _gate(change, policy, installed, settings, now)


def _stage(
    change: Change, policy: DeliveryPolicy, installed: Installed, settings: DeliverySettings, now: float
) -> Step:
    if change.emergency is not None:
        return ToProduction((change.emergency.by,))
    said = tuple(one for one in change.verdicts if one.stage == "staging")
    if (found := failing(said)) is not None:
        return _fail(change, found, said)
    passed = any(one.check == STAGING_CHECK and one.outcome == "passed" for one in said)
    if installed.staging and not passed:
        if now - change.since > settings.staging_hours * _HOUR:
            return Fail(
                f"it did not pass staging within {settings.staging_hours:g} hours",
                f"see `chimera change show {change.id}`, then send it again with `chimera change amend`",
            )
        return Advance()
    return _gate(change, policy, installed, settings, now)


def _gate(change: Change, policy: DeliveryPolicy, installed: Installed, settings: DeliverySettings, now: float) -> Step:
    """The last look before production. The policy may have become stricter since the approval."""
    found = standing(change, policy, installed.reviewers)
    if not found.approved:
        return _ask_people(change, policy, installed, settings, found.missing, now)
    if (window := frozen(policy.freezes, change.risk, now)) is not None:
        why = f": {window.freeze.reason}" if window.freeze.reason else ""
        return Wait(
            f"approved, and waits for the end of the freeze {window.freeze.name} at {in_words(window.until)}{why}",
            f"wait, or if it can't: `chimera change emergency {change.id} --reason …`",
        )
    return ToProduction(found.counted or installed.reviewers)


def _ask_people(
    change: Change,
    policy: DeliveryPolicy,
    installed: Installed,
    settings: DeliverySettings,
    missing: tuple[str, ...],
    now: float,
) -> Wait | GiveUp:
    if now - change.since > settings.approval_days * _DAY:
        return GiveUp(f"nobody approved it within {settings.approval_days:g} days")
    people = "approval" if len(missing) == 1 else f"{len(missing)} approvals"
    roles = "; ".join(dict.fromkeys(missing))
    automatic = policy.approvals.of(change.risk).automatic
    failing_ones = ", ".join(failing_reviewers(change, installed.reviewers)) if automatic else ""
    why = f"not passed by {failing_ones}; " if failing_ones else ""
    return Wait(
        f"{change.risk} risk: {why}it waits for {people} by {roles}",
        f"somebody else: `chimera change approve {change.id}`",
    )


def _silent(change: Change, stage: Stage, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that have said nothing yet on this content."""
    said = {one.check for one in change.verdicts if one.stage == stage}
    return tuple(name for name in names if name not in said)


def _fail(change: Change, found: Verdict, said: tuple[Verdict, ...]) -> Fail:
    more = sum(one.outcome != "passed" for one in said) - 1
    whom = f" of agent {found.agent}" if found.agent else ""
    others = f" (and {more} more)" if more else ""
    what = found.detail or ("it looked at nothing" if found.outcome == "skipped" else "it did not pass")
    step = found.next_step or "mend that"
    return Fail(f"{found.check}{whom}: {what}{others}", f"{step}; then `chimera change amend {change.id} PATHS`")
