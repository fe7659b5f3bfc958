"""From what a home sees to conditions: what they never say, and that they follow what is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.platform.conditions import (
    CELL_ASPECTS,
    HOME,
    REFRESHED,
    Condition,
    Evidence,
    Seen,
    cell_subject,
    judge,
    why_not,
)
from chimera.platform.reasons import ASPECTS, MEANINGS, Aspect, Reason

GOOD = (Reason.AS_WANTED, Reason.IN_PROGRESS)
TROUBLE = [reason for reason in Reason if reason not in GOOD and MEANINGS[reason].aspect is not Aspect.CONNECTED]
BLOCKING = (Aspect.REACHABLE, Aspect.STARTABLE)

evidence = st.builds(Evidence, reason=st.sampled_from(TROUBLE), message=st.sampled_from(["one", "another"]))
seen_cells = st.builds(
    Seen,
    subject=st.just(cell_subject("c")),
    tenant=st.just("default"),
    ready_hosts=st.integers(0, 3),
    accepted=st.booleans(),
    there=st.booleans(),
    evidence=st.lists(evidence, max_size=4).map(tuple),
)


def run(*steps: Seen, every: float = 10.0) -> tuple[Condition, ...]:
    found: tuple[Condition, ...] = ()
    for number, step in enumerate(steps):
        found = judge(step, found, number * every)
    return found


def of(conditions: tuple[Condition, ...], aspect: Aspect) -> Condition:
    return next(one for one in conditions if one.type is aspect)


def cell(*reasons: Reason, ready: int = 0, there: bool = True) -> Seen:
    found = tuple(Evidence(reason=reason, message=f"because of {reason.value}") for reason in reasons)
    return Seen(subject=cell_subject("c"), tenant="default", ready_hosts=ready, evidence=found, there=there)


@given(st.lists(seen_cells, min_size=1, max_size=6))
def test_safety(steps: list[Seen]) -> None:
    found = run(*steps)
    last = steps[-1]
    assert [one.type for one in found] == [Aspect.READY, *CELL_ASPECTS], "each aspect once, the sum first"
    for aspect in CELL_ASPECTS:
        one = of(found, aspect)
        there = {each.reason for each in last.evidence if MEANINGS[each.reason].aspect is aspect}
        assert (one.status == "False") == bool(there), "trouble is told while it is seen, and no longer"
        assert one.status != "False" or one.reason in there
    ready = of(found, Aspect.READY)
    if last.ready_hosts:
        assert ready.status == "True", "a cell with a ready host takes calls, whatever else is wrong"
    for one in found:
        assert (one.status == "True") == (one.reason is Reason.AS_WANTED)
        assert one.status != "False" or (one.next_step and one.message), "cause and next step"
        assert 0 <= one.since <= (len(steps) - 1) * 10


@given(st.lists(seen_cells, min_size=1, max_size=4))
def test_what_is_seen_again_changes_nothing(steps: list[Seen]) -> None:
    assert run(*steps, steps[-1]) == run(*steps)


@given(seen_cells, st.permutations(range(4)))
def test_the_order_of_evidence_does_not_matter(seen: Seen, order: list[int]) -> None:
    found = [seen.evidence[number] for number in order if number < len(seen.evidence)]
    other = Seen(
        subject=seen.subject,
        tenant=seen.tenant,
        ready_hosts=seen.ready_hosts,
        accepted=seen.accepted,
        there=seen.there,
        evidence=tuple(found),
    )
    assert judge(seen, (), 0.0) == judge(other, (), 0.0)


@given(st.lists(seen_cells, max_size=4))
def test_liveness_a_cell_whose_hosts_run_is_well_whatever_was_before(steps: list[Seen]) -> None:
    found = run(*steps, cell(ready=1))
    assert {one.status for one in found} == {"True"}
    assert why_not(found, 1_000.0) is None


@pytest.mark.parametrize("reason", [one for one in TROUBLE if MEANINGS[one].aspect in BLOCKING])
def test_who_waits_hears_the_cause_once_its_patience_is_over_and_not_when_nobody_tries_any_more(reason: Reason) -> None:
    now = run(cell(), cell(reason))
    patience = MEANINGS[reason].patience
    told = why_not(now, patience)
    assert told is not None and told.reason is reason and told.message == f"because of {reason.value}"
    assert patience == 0 or why_not(now, patience - 0.1) is None
    assert why_not(run(cell(), cell(reason), cell()), 1_000.0) is None


def test_a_failed_start_is_remembered_for_people_until_a_host_is_ready() -> None:
    asleep = of(run(cell(Reason.IMAGE_PULL_FAILED), cell()), Aspect.STARTABLE)
    assert (asleep.status, asleep.reason, asleep.message) == (
        "Unknown",
        Reason.IMAGE_PULL_FAILED,
        "because of ImagePullFailed",
    )
    assert of(run(cell(Reason.IMAGE_PULL_FAILED), cell(ready=1), cell()), Aspect.STARTABLE).status == "True"


def test_what_a_home_refuses_keeps_no_caller_from_what_it_took_before() -> None:
    refused = run(cell(Reason.OBJECT_REFUSED))
    assert of(refused, Aspect.ACCEPTED).status == "False" and why_not(refused, 1_000.0) is None
    never = run(cell(Reason.OBJECT_REFUSED, there=False))
    told = why_not(never, 0.0)
    assert told is not None and told.reason is Reason.OBJECT_REFUSED


def test_other_words_for_the_same_reason_are_no_change_for_a_while() -> None:
    def words(text: str) -> Seen:
        return Seen(
            subject=cell_subject("c"),
            tenant="default",
            evidence=(Evidence(reason=Reason.CRASH_LOOP, message=text),),
        )

    first = judge(words("pod one"), (), 0.0)
    assert judge(words("pod two"), first, REFRESHED - 1) == first
    later = of(judge(words("pod two"), first, REFRESHED + 1), Aspect.STARTABLE)
    assert (later.message, later.since) == ("pod two", 0.0)


def test_falling_asleep_and_waking_is_no_change() -> None:
    awake = run(cell(ready=3))
    assert judge(cell(), awake, 50.0) == awake == judge(cell(ready=1), awake, 60.0)


def test_a_home_has_one_condition_and_takes_any_reason_for_it() -> None:
    away = Seen(
        subject=HOME, tenant="default", evidence=(Evidence(reason=Reason.KNATIVE_MISSING, message="no such kind"),)
    )
    (one,) = judge(away, (), 5.0)
    assert (one.type, one.status, one.reason, one.since) == (
        Aspect.CONNECTED,
        "False",
        Reason.KNATIVE_MISSING,
        5.0,
    )
    assert why_not((one,), 0.0) == one, "no cell comes without it"
    (well,) = judge(Seen(subject=HOME, tenant="default"), (one,), 6.0)
    assert well.status == "True"


def test_every_type_and_reason_has_its_words() -> None:
    assert set(ASPECTS) == set(Aspect) and set(MEANINGS) == set(Reason)
    for reason in TROUBLE:
        assert MEANINGS[reason].next_step and MEANINGS[reason].retry_after > 0
