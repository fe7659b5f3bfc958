"""A tenant's delivery policy: which risk needs whose approval, when nothing goes live, what is replayed.

It is data that an administrator puts, as JSON or YAML of exactly these types; a tenant without one has the default. Two
kinds of freeze: once (`starts` and `ends` are dates with a time) and every week (`days`, and times of day, an end
that is not after the start means the next day). Both are on the clocks of `zone`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from chimera.agents.spec import DataClass
from chimera.delivery.model import Risk

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RoleName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
FREEZE_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DATE_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$"
TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"


class Need(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Approvals by `count` different people who each have one of `roles`."""

    roles: Annotated[tuple[RoleName, ...], Meta(min_length=1, max_length=10)] = ("approver", "admin")
    count: Annotated[int, Meta(ge=1, le=10)] = 1


class ApprovalRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a change of some risk needs. Nobody fills two places; whoever made the change fills none.

    With `automatic` it is approved where every reviewer of the platform passes it; where one doesn't, or there is none,
    people decide.
    """

    needs: Annotated[tuple[Need, ...], Meta(max_length=10)] = (Need(),)
    automatic: bool = False


class Approvals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule for each risk."""

    low: ApprovalRule = ApprovalRule(automatic=True)
    medium: ApprovalRule = ApprovalRule()
    high: ApprovalRule = ApprovalRule(needs=(Need(count=2),))

    def of(self, risk: Risk) -> ApprovalRule:
        """The rule for `risk`."""
        return {"low": self.low, "medium": self.medium, "high": self.high}[risk]


class Freeze(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A time in which no change of `least_risk` or more begins to go to production; one that has begun goes on."""

    name: Annotated[str, Meta(pattern=FREEZE_NAME)]
    starts: Annotated[str, Meta(max_length=16, examples=["2026-12-23T18:00", "16:00"])]
    ends: Annotated[str, Meta(max_length=16, examples=["2027-01-04T08:00", "08:00"])]
    zone: Annotated[str, Meta(min_length=1, max_length=64, examples=["Europe/Zurich"])] = "UTC"
    days: Annotated[tuple[Day, ...], Meta(max_length=7)] = ()
    least_risk: Risk = "low"
    reason: Annotated[str, Meta(max_length=500)] = ""


class ReplayPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of earlier inputs staging may put to new revisions: of agents whose data is of one of `data_classes`.

    What belongs to a person (it was said with a `subject`) only with `people`. Agents that code of their own answers
    for only with `own_code`: nobody can keep it from reaching out by itself.
    """

    data_classes: Annotated[tuple[DataClass, ...], Meta(max_length=4)] = ("public", "internal")
    people: bool = False
    own_code: bool = False


class DeliveryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How agents of a tenant are changed.

    `direct`: definitions may be applied without a change request. `emergency_roles` may take the emergency path;
    somebody else looks at such a change within `review_hours`. `replay`: what staging may replay.
    """

    direct: bool = True
    approvals: Approvals = Approvals()
    freezes: Annotated[tuple[Freeze, ...], Meta(max_length=100)] = ()
    emergency_roles: Annotated[tuple[RoleName, ...], Meta(max_length=10)] = ("admin",)
    review_hours: Annotated[float, Meta(gt=0, le=8760)] = 72.0
    replay: ReplayPolicy = ReplayPolicy()


def roles_named(policy: DeliveryPolicy) -> frozenset[str]:
    """Every role that `policy` names."""
    rules = (policy.approvals.low, policy.approvals.medium, policy.approvals.high)
    return frozenset(policy.emergency_roles) | {role for rule in rules for need in rule.needs for role in need.roles}
