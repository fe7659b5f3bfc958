"""The bodies of the operations on rollouts. Times are seconds since the epoch."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from chimera.delivery.rollout.model import Cases, Member, Phase, Policy, State, Summary, Wanted
from chimera.delivery.rollout.plan import weight_of
from chimera.delivery.rollout.sequential import Counts, difference


class StartRollout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Roll out the definitions of `batch`, which was sent and not committed; `remove` names agents to be taken out.

    Without a batch these go alone.
    `policy` are those settings of this rollout that are to be other than the platform's.
    """

    batch: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    title: Annotated[str, Meta(max_length=200)] = ""
    remove: Annotated[list[str], Meta(max_length=200_000)] = []
    policy: dict[str, Any] = {}


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why somebody wants it so."""

    reason: Annotated[str, Meta(max_length=500)] = ""


class RolloutRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rollout: `moved` of `agents` have their new revision for nearly all calls, or for all of them.

    `phases` counts its agents by phase, `strengths` by how much is known of those that are decided. `resource` is the
    Rollout of a cluster (`namespace/name`) that it belongs to.
    """

    id: str
    title: str
    state: State
    wanted: Wanted
    by: str
    agents: int
    moved: int
    wave: int
    waves: int
    phases: dict[str, int]
    strengths: dict[str, int]
    created: float
    updated: float
    policy: Policy
    version: int
    reason: str = ""
    change: str | None = None
    resource: str | None = None
    ended: float | None = None


class RolloutPage(Struct, frozen=True, kw_only=True):
    """Rollouts, the newest first; `next` is the id to go on after, where there are more."""

    rollouts: list[RolloutRow]
    next: str | None = None


class MemberRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent of a rollout. `weight` is the share of calls that its new revision is to get, in percent.

    `more_failures` are bounds of by how much the share of failed calls is above the old revision's, that hold at all
    times at once with the probability that the policy's `error` leaves.
    """

    agent: str
    wave: int
    phase: Phase
    weight: float
    cases: Cases
    new: Counts
    old: Counts
    more_failures: tuple[float, float] | None = None
    revision: str | None = None
    before: str | None = None
    doubted: bool = False
    strength: str | None = None
    reason: str = ""


class MemberPage(Struct, frozen=True, kw_only=True):
    """Agents of a rollout in the order in which they are begun; `next` is the place to go on after."""

    agents: list[MemberRow]
    next: str | None = None


def row_of(summary: Summary) -> RolloutRow:
    """A rollout as people see it."""
    one = summary.rollout
    fields = {name: getattr(one, name) for name in RolloutRow.__struct_fields__ if hasattr(one, name)}
    fields |= {"wave": one.wave + 1, "moved": summary.moved}
    return RolloutRow(**fields, phases=summary.phases, strengths=summary.strengths)


def member_of(summary: Summary, member: Member) -> MemberRow:
    """An agent of it as people see it."""
    green, blue = member.evidence.green, member.evidence.blue
    served = member.phase in ("shifting", "baking", "waiting")
    weight = 100.0 if member.phase in ("promoting", "done") else 0.0
    return MemberRow(
        agent=member.agent,
        wave=member.wave + 1,
        phase=member.phase,
        weight=weight_of(summary.rollout, member) / 100 if served and member.revision is not None else weight,
        cases=member.cases,
        new=green,
        old=blue,
        more_failures=difference(green, blue, summary.rollout.policy.error) if green.calls and blue.calls else None,
        revision=member.revision,
        before=member.before,
        doubted=member.doubted,
        strength=member.strength,
        reason=member.reason,
    )


def policy_with(policy: Policy, changes: dict[str, Any]) -> Policy:
    """The policy with some settings changed; raises `msgspec.ValidationError`."""
    return msgspec.convert({**msgspec.to_builtins(policy), **changes}, Policy)
