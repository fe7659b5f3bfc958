"""How Agents reach production that may not go live at once: safety first, then that each of them gets somewhere."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chimera.adapters.substrates.knative.resources.carrying import Carriage, Governor, Want, carry
from chimera.adapters.substrates.knative.resources.plan import Phase
from chimera.delivery.carrying import NOBODY_WANTS, Carried

TENANTS, NAMES, REVISIONS = ("a", "b"), ("one", "two", "three", "four"), ("r1", "r2", "r3")
CHANGE_STATES = ("open", "building", "awaiting-approval", "staging", "rolling-out", "paused")
ROLLOUT_STATES = ("running", "paused", "promoting", "rolling-back")
GOVERNORS = (
    None,
    Governor(resource="team/all"),
    Governor(resource="team/all", state="Paused"),
    Governor(resource="team/all", problem="policy: wrong"),
)


@st.composite
def wants(draw: Any) -> list[Want]:
    found = []
    for tenant in TENANTS:
        governor = draw(st.sampled_from(GOVERNORS))
        for name in draw(st.sets(st.sampled_from(NAMES))):
            before = draw(st.sampled_from((None, *REVISIONS)))
            revision = draw(st.sampled_from((None, *REVISIONS)).filter(lambda one, before=before: one != before))
            key = ("team", name)
            found.append(Want(key=key, tenant=tenant, revision=revision, before=before, governor=governor))
    return found


@st.composite
def rides(draw: Any, wanted: list[Want]) -> list[Carried]:
    """Changes and rollouts under way, an agent in one of them at most; some carry what is wanted."""
    exact = {want.place: want for want in wanted}
    found = []
    for tenant in TENANTS:
        for number in range(draw(st.integers(0, 2))):
            is_change = draw(st.booleans())
            state = draw(st.sampled_from(CHANGE_STATES if is_change else ROLLOUT_STATES))
            names = [name for place, name in enumerate(NAMES) if place % 2 == number]
            for name in draw(st.sets(st.sampled_from(names), min_size=1)):
                want = exact.get((tenant, name))
                mine = want is not None and draw(st.booleans())
                found.append(
                    Carried(
                        tenant=tenant,
                        agent=name,
                        owner="team/" + name,
                        revision=want.revision if mine and want else draw(st.sampled_from((None, *REVISIONS))),
                        before=want.before if mine and want else draw(st.sampled_from((None, *REVISIONS))),
                        way="change" if is_change else "rollout",
                        id=f"{tenant}{number}",
                        state=state,
                        at=0.0,
                        resource=None if is_change else "team/all",
                        attempt=None if is_change else 0,
                    )
                )
    return found


@st.composite
def worlds(draw: Any) -> tuple[list[Want], list[Carried], dict[Any, Carried], dict[Any, str], dict[str, bool]]:
    wanted = draw(wants())
    under_way = draw(rides(wanted))
    refused = {
        want.place: Carried(
            tenant=want.tenant,
            agent=want.key[1],
            owner=want.owner,
            revision=want.revision,
            before=want.before,
            way="change",
            id="old",
            state="rejected",
            at=0.0,
        )
        for want in wanted
        if draw(st.integers(0, 3)) == 0
    }
    live = {want.place: want.before for want in wanted if want.before is not None}
    return wanted, under_way, refused, live, {tenant: draw(st.booleans()) for tenant in TENANTS}


def places(decided: Carriage) -> dict[str, set[Any]]:
    return {
        "direct": {want.place for want in decided.direct},
        "change": {want.place for some in decided.changes.values() for want in some},
        "rollout": {want.place for some in decided.rollouts.values() for want in some},
        "told": set(decided.told),
    }


@given(worlds())
def test_nothing_goes_live_at_once_that_may_not(world: Any) -> None:
    wanted, under_way, refused, live, direct = world
    moving = {(one.tenant, one.agent) for one in under_way if one.is_moving}
    for want in carry(wanted, under_way, refused, live, direct).direct:
        assert direct[want.tenant] and want.place not in refused and want.place not in moving
        assert want.governor is None or want.revision is None


@given(worlds())
def test_each_want_goes_one_way_or_is_told_why_it_waits(world: Any) -> None:
    wanted, under_way, refused, live, direct = world
    decided = carry(wanted, under_way, refused, live, direct)
    found = places(decided)
    for want in wanted:
        ways = [name for name in ("direct", "change", "rollout") if want.place in found[name]]
        is_remade = want.place in found["told"] and ways == ["change"]
        assert len(ways) + (want.place in found["told"]) == 1 or is_remade
        if is_remade:
            assert decided.told[want.place].phase is Phase.CHANGING, "its change makes room for one without others"
    assert found["told"] <= {want.place for want in wanted}


@given(worlds())
def test_what_is_moving_is_touched_by_nothing_new_and_what_is_refused_not_tried(world: Any) -> None:
    wanted, under_way, refused, live, direct = world
    decided = carry(wanted, under_way, refused, live, direct)
    moving = {(one.tenant, one.agent) for one in under_way if one.is_moving}
    busy = {(one.tenant, one.resource) for one in under_way if one.way == "rollout"}
    found = places(decided)
    assert not (found["change"] | found["rollout"]) & moving
    assert not busy & set(decided.rollouts), "one rollout of a Rollout at a time"
    for place in (found["change"] | found["rollout"]) & set(refused):
        assert decided.told[place].phase is Phase.CHANGING
    for (_, resource), some in decided.rollouts.items():
        assert all(w.governor is not None and w.governor.state == "Running" for w in some)
        assert all(w.governor.resource == resource and not w.governor.problem for w in some if w.governor)


@given(worlds())
def test_what_nobody_wants_is_given_up_and_nothing_that_somebody_does(world: Any) -> None:
    wanted, under_way, refused, live, direct = world
    decided = carry(wanted, under_way, refused, live, direct)
    given_up = {(ride.tenant, ride.id) for ride in decided.give_up}
    exact = {(w.place, w.owner, w.revision, w.before) for w in wanted}
    for ride in {(one.tenant, one.id) for one in under_way}:
        items = [one for one in under_way if (one.tenant, one.id) == ride]
        is_wanted = [((o.tenant, o.agent), o.owner, o.revision, o.before) in exact for o in items]
        is_live = [live.get((o.tenant, o.agent)) == o.revision for o in items]
        if any(is_wanted):
            assert ride not in given_up
        elif not any(is_live):
            assert ride in given_up


@given(worlds())
def test_once_done_it_is_done(world: Any) -> None:
    """Where what was decided has happened, the next look decides nothing more, but of those that waited."""
    wanted, under_way, refused, live, direct = world
    decided = carry(wanted, under_way, refused, live, direct)
    opened = places(decided)["change"]
    gone = {(ride.tenant, ride.way, ride.id) for ride in decided.give_up}
    superseded = {(o.tenant, o.id) for o in under_way if o.way == "change" and (o.tenant, o.agent) in opened}
    left = [o for o in under_way if (o.tenant, o.way, o.id) not in gone and (o.tenant, o.id) not in superseded]
    groups = [("change", f"new-{t}", None, some) for t, some in decided.changes.items()]
    groups += [("rollout", f"new-{t}", r, some) for (t, r), some in decided.rollouts.items()]
    for way, name, resource, some in groups:
        left += [
            Carried(
                tenant=w.tenant,
                agent=w.key[1],
                owner=w.owner,
                revision=w.revision,
                before=w.before,
                way=way,  # type: ignore[arg-type]
                id=name,
                state="open" if way == "change" else "running",
                at=0.0,
                resource=resource,
                attempt=0,
            )
            for w in some
        ]
    rest = [w for w in wanted if w.place not in places(decided)["direct"]]
    live |= {w.place: w.revision for w in decided.direct if w.revision is not None}
    again = carry(rest, left, refused, live, direct)
    waited = {place for place, told in decided.told.items() if told.phase is Phase.HELD}
    assert places(again)["change"] | places(again)["rollout"] <= waited, "for something that is given up now"


def test_what_was_given_up_is_refused_by_nobody_and_a_new_attempt_tries_again() -> None:
    no = Carried(
        tenant="a",
        agent="one",
        owner="team/one",
        revision="r2",
        before="r1",
        way="rollout",
        id="x",
        state="rolled-back",
        at=0.0,
        phase="rolled-back",
        resource="team/all",
        attempt=0,
    )
    assert no.is_refused
    assert not replace(no, reason=f"aborted by x: {NOBODY_WANTS}").is_refused
    want = Want(key=("team", "one"), tenant="a", revision="r2", before="r1", governor=Governor(resource="team/all"))
    told = carry([want], [], {want.place: no}, {want.place: "r1"}, {"a": True}).told
    assert told[want.place].phase is Phase.REFUSED and "spec.attempt" in told[want.place].message
    again = Want(
        key=want.key, tenant="a", revision="r2", before="r1", governor=Governor(resource="team/all", attempt=1)
    )
    assert carry([again], [], {want.place: no}, {want.place: "r1"}, {"a": True}).rollouts == {
        ("a", "team/all"): (again,)
    }
