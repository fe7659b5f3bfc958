"""From Agents as resources and the agents that the catalogue has of them to what to do now: a pure rule over all.

Level-triggered: it looks at what is there, whatever happened before. So nothing is written where both sides agree, and
a resource that was deleted while nobody looked is found by its agent, which the catalogue says it owns. There is no
finalizer: a resource's end needs nobody's leave.

An agent has one owner. Of two resources that want the same name in one tenant, the one that has it in the catalogue
keeps it, else the older one gets it. What is applied through the API stays the API's.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from chimera.adapters.substrates.knative.resources.kinds import Key
from chimera.agents.catalogue import OwnedAgent

Place = tuple[str, str]
"""Tenant and name of an agent."""


class Phase(Enum):
    """What became of an Agent."""

    LIVE = "Live"
    INVALID = "Invalid"
    NEEDS_CODE = "NeedsCode"
    CONFLICT = "Conflict"
    UNSERVABLE = "Unservable"
    NO_TENANT = "NoTenant"
    NOT_CLAIMED = "NotClaimed"
    CHANGING = "Changing"
    ROLLING_OUT = "RollingOut"
    HELD = "Held"
    REFUSED = "Refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """An Agent as it is wanted: the digest of its definition, and its tenant (None: its namespace has none).

    `version` is the object's unique id and generation, from which the digest was made. `refused` is why no
    installation of the cluster takes it.
    """

    key: Key
    digest: str
    tenant: str | None
    created: str = ""
    version: tuple[str, int] = ("", 0)
    refused: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Why a definition with this digest was not taken."""

    digest: str
    phase: Phase
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What to tell of an Agent; `row` is its agent in the catalogue, `change` and `rollout` what carries it."""

    phase: Phase
    message: str
    row: OwnedAgent | None = None
    change: str = ""
    rollout: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to apply and delete now, what to tell, what to remember, and when to look again by itself.

    `more` says that there is more to apply or delete than one transaction should hold. `held` are those that something
    else than an apply brings, and are so still; `leaving` are agents that something else takes out.
    """

    apply: tuple[Key, ...] = ()
    delete: tuple[OwnedAgent, ...] = ()
    outcomes: Mapping[Key, Outcome] = field(default_factory=dict)
    missing: Mapping[Place, float] = field(default_factory=dict)
    look_again: float | None = None
    more: bool = False
    held: tuple[Key, ...] = ()
    leaving: Mapping[Place, OwnedAgent] = field(default_factory=dict)


def plan(
    wanted: Mapping[Key, Wanted],
    rows: Mapping[Place, OwnedAgent],
    verdicts: Mapping[Key, Verdict],
    missing: Mapping[Place, float],
    seen: Collection[Key],
    now: float,
    *,
    compiler: str,
    grace: float,
    limit: int,
    held: Mapping[Key, str] = MappingProxyType({}),
    leaving: Collection[Place] = (),
) -> Plan:
    """What to do so that the catalogue has what resources want.

    `rows` are live agents that resources own, `missing` since when a row's resource is refused, or gone and not `seen`.
    `held` are the digests of those that a change or a rollout brings, `leaving` agents that a change takes out.
    """
    holders = _holders(wanted.values(), rows)
    waiting: list[Key] = []
    staying: list[Key] = []
    outcomes: dict[Key, Outcome] = {}
    for key, one in wanted.items():
        place = (one.tenant or "", key[1])
        row = rows.get(place)
        if one.refused:
            outcomes[key] = Outcome(phase=Phase.NOT_CLAIMED, message=one.refused, row=row)
        elif one.tenant is None:
            outcomes[key] = _no_tenant(key)
        elif holders[place] != key:
            outcomes[key] = _taken(key, holders[place])
        elif row is not None and row.owner != _owner(key):
            outcomes[key] = _taken(key, owner_key(row))
        elif (verdict := verdicts.get(key)) is not None and verdict.digest == one.digest:
            outcomes[key] = Outcome(phase=verdict.phase, message=still(verdict.message, row), row=row)
        elif row is not None and (row.source, row.compiler) == (one.digest, compiler):
            outcomes[key] = _live(row)
        elif held.get(key) == one.digest:
            staying.append(key)
        else:
            waiting.append(key)
    going, gone, again = _going(wanted, rows, holders, missing, seen, now, grace)
    parting = {(row.tenant, row.name): row for row in going if (row.tenant, row.name) in leaving}
    going = [row for row in going if (row.tenant, row.name) not in parting]
    return Plan(
        apply=tuple(sorted(waiting)[:limit]),
        delete=tuple(going[:limit]),
        outcomes=outcomes,
        missing=gone,
        look_again=again,
        more=len(waiting) > limit or len(going) > limit,
        held=tuple(staying),
        leaving=parting,
    )


def _going(
    wanted: Mapping[Key, Wanted],
    rows: Mapping[Place, OwnedAgent],
    holders: Mapping[Place, Key],
    missing: Mapping[Place, float],
    seen: Collection[Key],
    now: float,
    grace: float,
) -> tuple[list[OwnedAgent], dict[Place, float], float | None]:
    """Agents that no resource wants any more, those that go later and since when, and when the next of these is due."""
    going: list[OwnedAgent] = []
    gone: dict[Place, float] = {}
    again: list[float] = []
    for place, row in rows.items():
        owner = owner_key(row)
        if holders.get(place) == owner:
            continue
        claim = wanted.get(owner)
        if (claim is None and owner not in seen) or (claim is not None and claim.refused):
            gone[place] = missing.get(place, now)
            if now < gone[place] + grace:
                again.append(gone[place] + grace)
                continue
        going.append(row)
    return going, gone, min(again, default=None)


def owner_key(row: OwnedAgent) -> Key:
    """The resource that owns an agent."""
    namespace, _, name = (row.owner or "").partition("/")
    return namespace, name


def _owner(key: Key) -> str:
    return "/".join(key)


def _holders(wanted: Iterable[Wanted], rows: Mapping[Place, OwnedAgent]) -> dict[Place, Key]:
    claims: dict[Place, Wanted | list[Wanted]] = {}
    for one in wanted:
        if one.tenant is None:
            continue
        place = (one.tenant, one.key[1])
        before = claims.get(place)
        if before is None:
            claims[place] = one
        elif isinstance(before, list):
            before.append(one)
        else:
            claims[place] = [before, one]
    return {place: _first(claim, rows.get(place)) for place, claim in claims.items()}


def _first(claim: Wanted | list[Wanted], row: OwnedAgent | None) -> Key:
    if isinstance(claim, Wanted):
        return claim.key
    for one in claim:
        if row is not None and row.owner == _owner(one.key):
            return one.key
    return min(claim, key=lambda one: (one.created, one.key)).key


def _live(row: OwnedAgent) -> Outcome:
    if row.unservable is not None:
        return Outcome(phase=Phase.UNSERVABLE, message=row.unservable, row=row)
    return Outcome(phase=Phase.LIVE, message="It answers calls.", row=row)


def still(message: str, row: OwnedAgent | None) -> str:
    """The message, and what is in service meanwhile."""
    return message if row is None else f"{message}\nThe revision {row.revision} stays in service."


def _no_tenant(key: Key) -> Outcome:
    return Outcome(
        phase=Phase.NO_TENANT,
        message=f"The namespace {key[0]} has no tenant: name one in the setting operator.tenants.",
    )


def _taken(key: Key, holder: Key) -> Outcome:
    return Outcome(
        phase=Phase.CONFLICT,
        message=f"The agent {key[1]} belongs to the Agent in the namespace {holder[0]}. Give this one another name or "
        "its namespace another tenant (operator.tenants), or delete the other.",
    )


def applied_elsewhere(key: Key, digest: str) -> Verdict:
    """What to remember of an Agent whose agent is the API's."""
    return Verdict(
        digest=digest,
        phase=Phase.CONFLICT,
        message=f"The agent {key[1]} was applied through the API, which therefore owns it. Delete it there "
        f"(`chimera delete {key[1]}`, which takes its sessions with it), and this resource takes over; or delete this.",
    )
