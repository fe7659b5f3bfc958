"""What delivery moves: a change request, and what is said of it on its way.

A change groups definitions that become live together. Its items name revisions that are stored already and that nothing
points to; until production nothing of it is live. All that is decided about it (risk, verdicts, approvals) is said of
its `content`, the digest of its items: what was decided about another content counts no more.

`failed` and `rejected` rest: the author may send other content, which begins from `open` again. The other ended states
are for good.

Times are seconds since the epoch. Who does something is named as in facts and the audit log (`kind:subject`).
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")
Stage = Literal["build", "approval", "staging", "production"]
Wanted = Literal["go", "pause", "abort"]
Outcome = Literal["passed", "failed", "skipped"]
Origin = Literal["api", "git"]
State = Literal[
    "open",
    "building",
    "failed",
    "awaiting-approval",
    "rejected",
    "staging",
    "rolling-out",
    "paused",
    "done",
    "rolled-back",
    "aborted",
    "superseded",
]
IN_FLIGHT: frozenset[State] = frozenset({"open", "building", "awaiting-approval", "staging", "rolling-out", "paused"})
"""States in which the pipeline works on a change, or waits for somebody."""
RESTING: frozenset[State] = frozenset({"failed", "rejected"})
"""States that other content leads out of."""
ENDED: frozenset[State] = frozenset({"done", "rolled-back", "aborted", "superseded"})
"""States that nothing leads out of."""
MOVING: frozenset[State] = frozenset({"rolling-out", "paused"})
"""States in which production has some of the change."""
NOT_MOVING: frozenset[State] = IN_FLIGHT - MOVING
"""States in which production has nothing of a change, so that it may give way, and that people's words are heard in."""


class ChangeItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One agent of a change.

    `revision` is the digest of what it becomes, None where it is taken out of service; `before` the revision that was
    live when the change was made, None for a new agent. `file` names where the definition stands, `source` is the
    digest of its text (`chimera.agents.catalogue.source_digest`). `owner` is the resource of a cluster that brings it.
    """

    agent: str
    revision: str | None
    before: str | None
    file: str | None = None
    source: str = ""
    owner: str | None = None


class Verdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one check says of a change, or of one agent of it (None: of the change as a whole).

    `failed` stops the change, and so does `skipped`: a check that couldn't look has found nothing out. `detail` is one
    sentence for people, `next_step` what to do where it didn't pass. `evidence` is what it rests on, small: digests,
    figures, names of files.
    """

    stage: Stage
    check: str
    outcome: Outcome
    agent: str | None = None
    detail: str = ""
    next_step: str = ""
    evidence: dict[str, Any] = {}
    at: float = 0.0


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One person's word on a change, with this `content`.

    `person` is who stands behind `by`: the user who made a key, for a key. `roles` are those that they had then.
    """

    by: str
    person: str
    decision: Literal["approved", "rejected"]
    content: str
    at: float
    roles: tuple[str, ...] = ()
    comment: str = ""


class Emergency(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That a change takes the emergency path: who wanted it and why, and the look at it afterwards.

    It waits for no approval, freeze window or staging; the build stage it passes as any other. Somebody else says by
    `review_due` what they think of it.
    """

    by: str
    person: str
    reason: str
    at: float
    review_due: float
    reviewed: Approval | None = None


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a change has its risk: one thing that raises it to `risk`, at `agents` of its agents, named by one."""

    rule: str
    risk: Risk
    text: str
    agent: str | None = None
    agents: int = 1


class Told(Struct, frozen=True, kw_only=True):
    """What is told of a change of a change request: the kind of fact, who did it, and what the audit log adds."""

    fact: str
    by: str
    detail: dict[str, Any] = {}


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change request.

    `author` opened it; `contributors` are others who made it (the committers of a change from Git), who can't approve
    it either. `commit` and `repository` name where it comes from in Git. `reason` says in words why it is in its state.
    `since` is when it came into its state. `wanted` is what people want of its rollout, which the pipeline sees to;
    `staged` is set while staging may hold something of it. `amended` is the digest of the Idempotency-Key that its
    content was sent with, where one was and it isn't the first content. `version` grows with every change of this
    record: whoever writes says which one he has seen.
    """

    id: str
    tenant: str
    title: str
    author: str
    author_person: str
    items: tuple[ChangeItem, ...]
    content: str
    risk: Risk
    state: State
    created: float
    updated: float
    since: float
    origin: Origin = "api"
    description: str = ""
    contributors: tuple[str, ...] = ()
    commit: str | None = None
    repository: str | None = None
    reason: str = ""
    next_step: str = ""
    risk_reasons: tuple[Reason, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    approvals: tuple[Approval, ...] = ()
    emergency: Emergency | None = None
    wanted: Wanted = "go"
    wanted_by: str = ""
    staged: bool = False
    amended: str = ""
    version: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The agents that it touches."""
        return tuple(item.agent for item in self.items)

    @property
    def work_key(self) -> str:
        """Names the work of its stage: whoever goes on finds it again, and nobody where the same content came again."""
        return f"{self.id}\0{self.content}\0{self.since}"


class Moved(Struct, frozen=True, kw_only=True):
    """A change as it has become, and what is told of it; `approval` is new, `items` says that they are others."""

    change: Change
    told: Told
    approval: Approval | None = None
    items: bool = False


class ChangeRow(Struct, frozen=True, kw_only=True):
    """A change as lists show it. `review` says how the look at an emergency stands: none, due, overdue or done."""

    id: str
    title: str
    state: State
    risk: Risk
    author: str
    agents: int
    created: float
    updated: float
    reason: str
    next_step: str
    content: str
    commit: str | None
    repository: str | None
    review: Literal["none", "due", "overdue", "done"]


def review_of(emergency: Emergency | None, now: float) -> Literal["none", "due", "overdue", "done"]:
    """How the look at a change that took the emergency path stands."""
    if emergency is None:
        return "none"
    if emergency.reviewed is not None:
        return "done"
    return "overdue" if now > emergency.review_due else "due"


def content_of(items: Sequence[ChangeItem]) -> str:
    """The digest of what `items` do; the order, and where they were read, don't matter."""
    rows = sorted((item.agent, item.revision or "", item.before or "") for item in items)
    return "sha256:" + hashlib.sha256(msgspec.json.encode(rows)).hexdigest()
