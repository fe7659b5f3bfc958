"""How Agents reach production that may not go live at once: by a change request, or by a Rollout. A pure rule.

Where the tenant's delivery policy takes no direct changes, whatever resources want (definitions, and agents taken out
with their resources) goes into a change request. Elsewhere an Agent that a Rollout governs is rolled out. All others
are applied at once.

Level-triggered: it looks at what resources want, at what carries agents now and at what became of what did. So a
definition is carried once, whoever was killed in between; what was refused isn't tried again by itself; what nobody
wants any more is given up, and a change that has some such items makes room for one without them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chimera.adapters.substrates.knative.resources.kinds import Key
from chimera.adapters.substrates.knative.resources.plan import Phase, Place
from chimera.delivery.carrying import Carried, Way
from chimera.delivery.rollout.model import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Governor:
    """A Rollout that governs an Agent: `resource` is `namespace/name`; `problem` is why it can't begin anything."""

    resource: str
    state: str = "Running"
    attempt: int = 0
    policy: Policy = field(default_factory=Policy)
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What a resource wants of its agent: `revision` live, or it gone (None). `before` is what is live now."""

    key: Key
    tenant: str
    revision: str | None
    before: str | None
    governor: Governor | None = None

    @property
    def place(self) -> Place:
        """Tenant and name of the agent."""
        return self.tenant, self.key[1]

    @property
    def owner(self) -> str:
        """The resource as the catalogue names it."""
        return "/".join(self.key)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What to tell of an Agent that isn't live yet: its phase, why, and what carries it."""

    phase: Phase
    message: str
    way: Way | None = None
    id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ride:
    """A change or a rollout that is under way, by its tenant and id."""

    tenant: str
    way: Way
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Carriage:
    """What to apply at once, to open as changes, to roll out (by tenant and Rollout), to give up, and what to tell."""

    direct: tuple[Want, ...] = ()
    changes: Mapping[str, tuple[Want, ...]] = field(default_factory=dict)
    rollouts: Mapping[tuple[str, str], tuple[Want, ...]] = field(default_factory=dict)
    give_up: tuple[Ride, ...] = ()
    told: Mapping[Place, Told] = field(default_factory=dict)


def carry(
    wants: Iterable[Want],
    under_way: Sequence[Carried],
    refused: Mapping[Place, Carried],
    live: Mapping[Place, str],
    direct: Mapping[str, bool],
) -> Carriage:
    """What to do about all that resources want.

    `refused` is the newest that ended of what carried just this want, where it was refused; `direct` says of tenants
    whether agents may be changed without a change request; `live` are the live revisions of agents that resources own.
    """
    there: dict[Place, list[Carried]] = {}
    for one in under_way:
        there.setdefault((one.tenant, one.agent), []).append(one)
    busy = {(one.tenant, one.resource): one.id for one in under_way if one.way == "rollout" and one.resource}
    told: dict[Place, Told] = {}
    free: list[Want] = []
    changes: dict[str, dict[Place, Want]] = {}
    rollouts: dict[tuple[str, str], list[Want]] = {}
    carried: dict[Place, tuple[Want, Carried]] = {}
    for want in wants:
        place, rides = want.place, there.get(want.place, ())
        mine = next((one for one in rides if carries(one, want)), None)
        moving = next((one for one in rides if one.is_moving), None)
        if mine is not None:
            carried[place] = (want, mine)
            told[place] = _on_its_way(mine)
        elif (no := refused.get(place)) is not None and not _another_attempt(no, want):
            told[place] = _refused(no)
        elif moving is not None:
            told[place] = _held(
                f"The {moving.way} {moving.id} has the agent; this is taken up when it is over.", moving
            )
        elif not direct[want.tenant]:
            changes.setdefault(want.tenant, {})[place] = want
        elif want.governor is None or want.revision is None:
            free.append(want)
        elif why := _not_now(want.governor, busy.get((want.tenant, want.governor.resource))):
            told[place] = _held(why)
        else:
            rollouts.setdefault((want.tenant, want.governor.resource), []).append(want)
    give_up = _tidy(under_way, carried, changes, live, direct)
    return Carriage(
        direct=tuple(free),
        changes={tenant: tuple(found.values()) for tenant, found in changes.items()},
        rollouts={key: tuple(found) for key, found in rollouts.items()},
        give_up=give_up,
        told=told,
    )


def carries(one: Carried, want: Want) -> bool:
    """Whether it carries just this, made from what is live now."""
    return (one.owner, one.revision, one.before) == (want.owner, want.revision, want.before)


def _tidy(
    under_way: Sequence[Carried],
    carried: Mapping[Place, tuple[Want, Carried]],
    changes: dict[str, dict[Place, Want]],
    live: Mapping[Place, str],
    direct: Mapping[str, bool],
) -> tuple[Ride, ...]:
    """What nobody wants any more; a change with some such items is made anew from the others, and gives way."""
    rides: dict[Ride, list[Carried]] = {}
    for one in under_way:
        rides.setdefault(Ride(tenant=one.tenant, way=one.way, id=one.id), []).append(one)
    given_up: list[Ride] = []
    for ride, items in rides.items():
        kept: list[Want] = []
        lost = False
        for one in items:
            place = (one.tenant, one.agent)
            wanted = carried.get(place)
            if wanted is not None and wanted[1].id == one.id:
                kept.append(wanted[0])
            elif live.get(place) != one.revision or place in changes.get(ride.tenant, ()):
                lost = True
        if not lost:
            continue
        settled = any(live.get((one.tenant, one.agent)) == one.revision for one in items)
        if not kept and not settled:
            if items[0].wanted != "abort":
                given_up.append(ride)
        elif kept and not items[0].is_moving and not direct.get(ride.tenant, True):
            changes.setdefault(ride.tenant, {}).update((want.place, want) for want in kept)
    return tuple(given_up)


def _another_attempt(no: Carried, want: Want) -> bool:
    """Whether a Rollout governs it now that hasn't tried this yet."""
    governor = want.governor
    if no.way != "rollout" or governor is None or want.revision is None:
        return False
    return (governor.resource, governor.attempt) != (no.resource, no.attempt)


def _not_now(governor: Governor, busy: str | None) -> str:
    name = governor.resource.partition("/")[2]
    if governor.problem:
        return f"The Rollout {name} can't begin: {governor.problem}"
    if governor.state != "Running":
        return f"The Rollout {name} governs it and is {governor.state} (spec.state): set that to Running."
    if busy is not None:
        return f"The rollout {busy} of the Rollout {name} is under way; this is taken up when it is over."
    return ""


def _on_its_way(one: Carried) -> Told:
    phase = Phase.CHANGING if one.way == "change" else Phase.ROLLING_OUT
    text = f"The {one.way} {one.id} carries it to production: see `chimera {one.way} show {one.id}`."
    return Told(phase=phase, message=text, way=one.way, id=one.id)


def _refused(one: Carried) -> Told:
    state = one.phase if one.state == "done" else one.state
    why = f": {one.reason}" if one.reason else ""
    again = "change the definition"
    if one.way == "rollout" and one.resource:
        again += f", or count spec.attempt of the Rollout {one.resource.partition('/')[2]} up"
    text = f"The {one.way} {one.id} carried it and is {state}{why}. It isn't tried again by itself: {again}."
    return Told(phase=Phase.REFUSED, message=text, way=one.way, id=one.id)


def _held(message: str, by: Carried | None = None) -> Told:
    return Told(phase=Phase.HELD, message=message, way=by.way if by else None, id=by.id if by else "")
