"""What the operator decides: nobody's agent is touched but its own, and both sides come to agree."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.resources.plan import Phase, Place, Plan, Verdict, Wanted, plan
from chimera.agents.catalogue import OwnedAgent

Key = tuple[str, str]
NAMESPACES, NAMES, TENANTS, DIGESTS = ("a", "b", "c"), ("x", "y", "z"), ("t", "u"), ("1", "2")
KEYS = [(namespace, name) for namespace in NAMESPACES for name in NAMES]

wanted_agents = st.dictionaries(
    st.sampled_from(KEYS),
    st.tuples(st.sampled_from(DIGESTS), st.sampled_from([*TENANTS, None]), st.sampled_from(["1", "2"])),
).map(
    lambda found: {
        key: Wanted(key=key, digest=digest, tenant=tenant, created=created)
        for key, (digest, tenant, created) in found.items()
    }
)
owned_rows = st.dictionaries(
    st.tuples(st.sampled_from(TENANTS), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(DIGESTS), st.sampled_from(["now", "before"])),
).map(lambda found: {place: row(place, *values) for place, values in found.items()})


def row(place: Place, namespace: str, digest: str, compiler: str = "now", unservable: str | None = None) -> OwnedAgent:
    tenant, name = place
    owner = f"{namespace}/{name}"
    return OwnedAgent(tenant, name, True, owner, digest, compiler, f"sha256:{digest}", "1", "c", unservable, 1)


def decide(
    wanted: dict[Key, Wanted],
    rows: dict[Place, OwnedAgent],
    *,
    verdicts: dict[Key, Verdict] | None = None,
    missing: dict[Place, float] | None = None,
    seen: set[Key] | None = None,
    now: float = 0.0,
    grace: float = 0.0,
    limit: int = 100,
) -> Plan:
    return plan(
        wanted, rows, verdicts or {}, missing or {}, seen or set(), now, compiler="now", grace=grace, limit=limit
    )


def carry_out(decided: Plan, wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent]) -> dict[Place, OwnedAgent]:
    """What the catalogue would hold then."""
    left = {place: one for place, one in rows.items() if one not in decided.delete}
    for key in decided.apply:
        place = (wanted[key].tenant or "", key[1])
        assert place not in left or left[place].owner == "/".join(key), "an agent of somebody else"
        left[place] = row(place, key[0], wanted[key].digest)
    return left


@given(wanted_agents, owned_rows)
def test_it_comes_to_rest_with_every_agent_that_one_resource_wants(
    wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent]
) -> None:
    for _ in range(4):
        decided = decide(wanted, rows)
        if not decided.apply and not decided.delete:
            break
        rows = carry_out(decided, wanted, rows)
    assert not decided.apply and not decided.delete, "nothing to do any more"
    places = {(one.tenant, key[1]) for key, one in wanted.items() if one.tenant is not None}
    assert rows.keys() == places, "what is wanted is there, and nothing else"
    for place, one in rows.items():
        namespace, _, name = (one.owner or "").partition("/")
        holder = wanted[namespace, name]
        assert (holder.tenant, name) == place and one.source == holder.digest and one.compiler == "now"
    assert decided.outcomes.keys() == wanted.keys(), "everybody is told"
    told = [key for key, one in decided.outcomes.items() if one.phase is Phase.LIVE]
    assert len(told) == len(rows), "of those who want one name one is told that it has it"


@given(wanted_agents, owned_rows)
def test_who_has_an_agent_keeps_it(wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent]) -> None:
    decided = decide(wanted, rows)
    for place, one in rows.items():
        namespace, _, name = (one.owner or "").partition("/")
        holder = wanted.get((namespace, name))
        if holder is not None and holder.tenant == place[0]:
            assert one not in decided.delete
            assert not [key for key in decided.apply if (wanted[key].tenant, key[1]) == place and key != holder.key]


@given(wanted_agents, owned_rows, st.integers(1, 3))
def test_no_pass_does_more_than_its_bound_and_says_that_there_is_more(
    wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent], limit: int
) -> None:
    whole, some = decide(wanted, rows), decide(wanted, rows, limit=limit)
    assert len(some.apply) <= limit and len(some.delete) <= limit
    assert some.more == (len(whole.apply) > limit or len(whole.delete) > limit)
    assert set(some.apply) <= set(whole.apply)


@given(wanted_agents, owned_rows, st.floats(0, 100), st.floats(1, 100))
def test_an_agent_whose_resource_nobody_saw_waits_for_the_grace(
    wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent], now: float, grace: float
) -> None:
    first = decide(wanted, rows, now=now, grace=grace)
    orphans = {place for place, one in rows.items() if tuple((one.owner or "").split("/")) not in wanted}
    assert first.missing.keys() == orphans and not [one for one in first.delete if (one.tenant, one.name) in orphans]
    if orphans:
        assert first.look_again == now + grace
    later = decide(wanted, rows, now=now + grace, grace=grace, missing=dict(first.missing))
    assert {(one.tenant, one.name) for one in later.delete} >= orphans
    seen = {(namespace, name) for namespace in NAMESPACES for name in NAMES}
    at_once = decide(wanted, rows, now=now, grace=grace, seen=seen)
    assert {(one.tenant, one.name) for one in at_once.delete} >= orphans


@given(wanted_agents, owned_rows)
def test_a_verdict_holds_for_its_digest_alone(wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent]) -> None:
    first = decide(wanted, rows)
    verdicts = {key: Verdict(digest=wanted[key].digest, phase=Phase.INVALID, message="no") for key in first.apply}
    second = decide(wanted, rows, verdicts=verdicts)
    assert not set(second.apply) & set(first.apply)
    assert all(second.outcomes[key].phase is Phase.INVALID for key in first.apply)
    changed = {key: replace(one, digest="3") for key, one in wanted.items()}
    assert set(decide(changed, rows, verdicts=verdicts).apply) >= set(first.apply)


def test_of_two_that_nobody_has_the_older_one_gets_the_name() -> None:
    old = Wanted(key=("b", "x"), digest="1", tenant="t", created="2026-01-01T00:00:00Z")
    young = Wanted(key=("a", "x"), digest="1", tenant="t", created="2026-01-02T00:00:00Z")
    decided = decide({young.key: young, old.key: old}, {})
    assert decided.apply == (old.key,) and decided.outcomes[young.key].phase is Phase.CONFLICT


def test_what_this_home_can_not_run_is_told_with_the_reason() -> None:
    one = Wanted(key=("a", "x"), digest="1", tenant="t")
    decided = decide({one.key: one}, {("t", "x"): row(("t", "x"), "a", "1", unservable="it needs an image")})
    assert decided.outcomes[one.key].phase is Phase.UNSERVABLE and "image" in decided.outcomes[one.key].message


@given(wanted_agents, owned_rows, st.floats(1, 100))
def test_what_no_installation_takes_is_told_so_applied_never_and_kept_for_the_grace(
    wanted: dict[Key, Wanted], rows: dict[Place, OwnedAgent], grace: float
) -> None:
    refused = {key: replace(one, tenant=None, refused="it is another's") for key, one in wanted.items()}
    seen = set(wanted)
    first = decide(refused, rows, seen=seen, grace=grace)
    assert not first.apply
    assert {one.phase for one in first.outcomes.values()} <= {Phase.NOT_CLAIMED}
    assert all(outcome.message == "it is another's" for outcome in first.outcomes.values())
    kept = {place for place, one in rows.items() if tuple((one.owner or "").split("/")) in wanted}
    assert not [one for one in first.delete if (one.tenant, one.name) in kept]
    later = decide(refused, rows, seen=seen, grace=grace, now=grace, missing=dict(first.missing))
    assert {(one.tenant, one.name) for one in later.delete} >= kept
    since = {place: at for place, at in first.missing.items() if place in kept}
    back = decide(wanted, rows, seen=seen, grace=grace, now=grace, missing=since)
    assert back == decide(wanted, rows, seen=seen, grace=grace, now=grace), "and is as it was where it is ours again"
