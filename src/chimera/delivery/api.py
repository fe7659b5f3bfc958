"""The bodies of the API of changes and delivery policies, as types: what is decoded and encoded, and documented."""

from collections import Counter
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chimera.delivery.model import (
    Approval,
    Change,
    ChangeItem,
    ChangeRow,
    Emergency,
    Origin,
    Outcome,
    Reason,
    Risk,
    Stage,
    State,
    Verdict,
    Wanted,
)
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.ports import StoredDeliveryPolicy

SHOWN = 100
"""Items and verdicts that stand in a change as it is shown; all of them are in pages of their own."""
MOST_NAMES = 200_000

Comment = Annotated[str, Meta(max_length=2_000)]
Name = Annotated[str, Meta(max_length=63)]
ShortName = Annotated[str, Meta(min_length=1, max_length=512)]


class OpenChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change to be opened: the definitions of an open `batch`, and agents to take out of service (`remove`).

    `supersede` has your older changes of the same agents give way. With `emergency`, a reason in a sentence, it takes
    the emergency path. `commit`, `repository` and `contributors` say where it comes from in Git, and who else made it
    (`git:ADDRESS`): they can't approve it either.
    """

    title: Annotated[str, Meta(min_length=1, max_length=200)]
    description: Annotated[str, Meta(max_length=20_000)] = ""
    batch: Annotated[str, Meta(max_length=40)] | None = None
    remove: Annotated[list[Name], Meta(max_length=MOST_NAMES)] = []
    supersede: bool = False
    emergency: Comment = ""
    commit: Annotated[str, Meta(pattern=r"^[0-9a-f]{7,64}$")] | None = None
    repository: Annotated[str, Meta(max_length=2_000)] | None = None
    contributors: Annotated[list[ShortName], Meta(max_length=200)] = []


class Content(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change is to do instead: the definitions of an open batch, and agents to take out of service."""

    batch: Annotated[str, Meta(max_length=40)] | None = None
    remove: Annotated[list[Name], Meta(max_length=MOST_NAMES)] = []


class Word(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An approval or a rejection. `content` is the digest of what was looked at, as the change showed it."""

    content: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
    comment: Comment = ""


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it is wanted."""

    reason: Comment = ""


class Review(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody else thinks of a change that took the emergency path."""

    decision: Literal["approved", "rejected"]
    comment: Comment = ""


class ChangePage(Struct, frozen=True, kw_only=True):
    """Changes, the newest first; the next page begins `after` the id in `next`, which is null on the last."""

    changes: list[ChangeRow]
    next: str | None


class CheckSummary(Struct, frozen=True, kw_only=True):
    """How often a check gave each outcome."""

    stage: Stage
    check: str
    passed: int
    failed: int
    skipped: int


class ChangeView(Struct, frozen=True, kw_only=True):
    """A change. `items` and `verdicts` (those first that stop it) are the first hundred; `agents` counts the items."""

    id: str
    tenant: str
    title: str
    description: str
    author: str
    contributors: tuple[str, ...]
    origin: Origin
    commit: str | None
    repository: str | None
    state: State
    reason: str
    next_step: str
    risk: Risk
    risk_reasons: tuple[Reason, ...]
    content: str
    agents: int
    items: tuple[ChangeItem, ...]
    checks: tuple[CheckSummary, ...]
    verdicts: tuple[Verdict, ...]
    approvals: tuple[Approval, ...]
    emergency: Emergency | None
    wanted: Wanted
    created: float
    updated: float
    since: float
    version: int


class ItemPage(Struct, frozen=True, kw_only=True):
    """The agents of a change, by name."""

    items: tuple[ChangeItem, ...]
    next: str | None


class VerdictPage(Struct, frozen=True, kw_only=True):
    """What was said of a change, those first that stop it; the next page begins after so many as `next` says."""

    verdicts: tuple[Verdict, ...]
    next: str | None


class PolicyView(StoredDeliveryPolicy, frozen=True, kw_only=True):
    """A delivery policy with its version; 0 is the default, which nobody has put."""


class PutPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A delivery policy. `expect` is the version that it replaces."""

    policy: DeliveryPolicy
    expect: Annotated[int, Meta(ge=0)] | None = None


def view_of(change: Change) -> ChangeView:
    """A change as the API shows it."""
    given = {
        name: getattr(change, name)
        for name in ChangeView.__struct_fields__
        if name not in ("agents", "items", "checks", "verdicts")
    }
    return ChangeView(
        **given,
        agents=len(change.items),
        items=change.items[:SHOWN],
        checks=_summary(change),
        verdicts=gravest_first(change)[:SHOWN],
    )


def gravest_first(change: Change) -> tuple[Verdict, ...]:
    """Its verdicts, those first that stop it."""
    return tuple(sorted(change.verdicts, key=lambda one: _GRAVITY[one.outcome]))


_GRAVITY: dict[Outcome, int] = {"failed": 0, "skipped": 1, "passed": 2}


def _summary(change: Change) -> tuple[CheckSummary, ...]:
    counts = Counter((one.stage, one.check, one.outcome) for one in change.verdicts)
    checks = dict.fromkeys((one.stage, one.check) for one in change.verdicts)
    return tuple(
        CheckSummary(
            stage=stage,
            check=check,
            passed=counts[stage, check, "passed"],
            failed=counts[stage, check, "failed"],
            skipped=counts[stage, check, "skipped"],
        )
        for stage, check in checks
    )
