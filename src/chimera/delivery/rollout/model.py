"""A rollout and its members, as they are stored and shown. Times are seconds since the epoch.

A **rollout** brings the items of one change to production. People want it to run, to rest or to end (`wanted`); what it
does is its `state`. A **member** is one agent of it:

    pending ── loading ── shifting ── baking ── waiting ── promoting ── done
                  └──────────┴──────────┴──────────┴──────────┴── rolling-back ── rolled-back

A member that waits gets nearly all calls on its new revision already, and is watched on, until all members are
decided: what belongs together becomes live together, in one transaction, or is taken back together. A member that was
never begun is `skipped` where the rollout ends without it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chimera.delivery.rollout.judging import Strength
from chimera.delivery.rollout.sequential import Evidence, Objective, Tolerance

Phase = Literal[
    "pending",
    "loading",
    "shifting",
    "baking",
    "waiting",
    "promoting",
    "done",
    "rolling-back",
    "rolled-back",
    "skipped",
]
UNDER_WAY: frozenset[Phase] = frozenset({"loading", "shifting", "baking"})
"""On the way to a decision."""
MOVED: frozenset[Phase] = UNDER_WAY | {"waiting", "promoting"}
"""With a green side that may get calls."""
OVER: frozenset[Phase] = frozenset({"done", "rolled-back", "skipped"})
State = Literal["running", "paused", "promoting", "rolling-back", "done", "rolled-back", "aborted"]
ENDED: frozenset[State] = frozenset({"done", "rolled-back", "aborted"})
Wanted = Literal["run", "pause", "abort"]
Cases = Literal["passed", "failed", "none"]

LEADER = "system:rollouts"
"""Who does, in facts and the audit log, what nobody asked for."""
_Share = Annotated[float, Meta(gt=0, le=100)]


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a rollout goes (the settings of `rollout`, as they are for this one)."""

    canary: Annotated[int, Meta(ge=1)] = 1
    waves: tuple[Annotated[float, Meta(ge=0, le=1)], ...] = (0.1, 0.5)
    max_parallel: Annotated[int, Meta(ge=1)] = 200
    max_unavailable: Annotated[int, Meta(ge=1)] = 10
    steps: Annotated[tuple[_Share, ...], Meta(min_length=1, max_length=100)] = (10.0, 50.0, 90.0)
    step_seconds: Annotated[float, Meta(ge=0)] = 60.0
    bake_seconds: Annotated[float, Meta(ge=0)] = 300.0
    longest_bake: Annotated[float, Meta(ge=0)] = 1800.0
    load_seconds: Annotated[float, Meta(gt=0)] = 300.0
    hold_seconds: Annotated[float, Meta(ge=0)] = 3600.0
    error: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    least_calls: Annotated[int, Meta(ge=0)] = 50
    least_to_condemn: Annotated[int, Meta(ge=1)] = 5
    tolerance: Annotated[float, Meta(ge=0, le=0.5)] = 0.005
    slow_tolerance: Annotated[float, Meta(ge=0, le=0.5)] = 0.02
    tolerate: Annotated[int, Meta(ge=0)] = 0

    @property
    def allowed(self) -> Tolerance:
        """By how much green may be above blue."""
        return Tolerance(self.tolerance, self.slow_tolerance)


class Member(Struct, frozen=True, kw_only=True):
    """One agent of a rollout.

    `revision` is what it becomes (None: it is taken out of service), `before` what was live (None: it is new). `step`
    is the number of its weight in the policy's `steps`, -1 before the first; `since` is when it came into its phase or
    step. `doubted`: the evidence is against it and not enough. `strength` is how well it is known that it is no worse,
    once that is decided. `reason` says why it is where it is. `owner` is the resource of a cluster that brings it.
    """

    agent: str
    revision: str | None
    before: str | None
    group: str
    wave: int
    objective: Objective = Objective()
    cases: Cases = "none"
    phase: Phase = "pending"
    step: int = -1
    since: float = 0.0
    doubted: bool = False
    strength: Strength | None = None
    reason: str = ""
    evidence: Evidence = Evidence()
    owner: str | None = None


class Rollout(Struct, frozen=True, kw_only=True):
    """One rollout. `through` is the place up to which observations are in its members' evidence.

    `wave` is the one under way, of `waves`. `asked_by` is who wanted what is wanted, and `asked` why. `reason` says why
    it is in its state. `change` is the change request that it belongs to, None where one was started alone; `content`
    the digest of its items. `key` is the digest of the Idempotency-Key that it was asked for with. `resource` is the
    Rollout of a cluster that it belongs to (`namespace/name`), and `attempt` the one of that. `version` grows with each
    write.
    """

    id: str
    tenant: str
    title: str
    by: str
    policy: Policy
    waves: int
    agents: int
    created: float
    updated: float
    change: str | None = None
    content: str = ""
    key: str | None = None
    resource: str | None = None
    attempt: int | None = None
    state: State = "running"
    wanted: Wanted = "run"
    asked_by: str = ""
    asked: str = ""
    reason: str = ""
    wave: int = 0
    through: int = 0
    ended: float | None = None
    version: int = 1


class Item(Struct, frozen=True, kw_only=True):
    """An agent to be rolled out: its new revision (None: out of service), and the live one (None: it is new).

    `owner` is the resource of a cluster that brings it, if one does.
    """

    agent: str
    revision: str | None
    before: str | None
    cases: Cases = "none"
    owner: str | None = None


class Summary(Struct, frozen=True, kw_only=True):
    """A rollout with how many of its members are in each phase, and how many were decided with how much evidence."""

    rollout: Rollout
    phases: dict[str, int] = {}
    strengths: dict[str, int] = {}

    @property
    def moved(self) -> int:
        """Members that have their new revision for all their calls, or wait for that."""
        return sum(self.phases.get(phase, 0) for phase in ("waiting", "promoting", "done"))


def counted(rollout: Rollout, members: Sequence[Member]) -> Summary:
    """The summary of a rollout."""
    phases: Counter[str] = Counter(one.phase for one in members)
    strengths: Counter[str] = Counter(one.strength for one in members if one.strength is not None)
    return Summary(rollout=rollout, phases=dict(phases), strengths=dict(strengths))
