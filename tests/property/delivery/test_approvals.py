"""Approvals: nobody's own, nobody's twice, nobody's of another content; and as many as can count do."""

from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.approvals import counting, fill, made_by, standing
from chimera.delivery.model import Approval, Change, Verdict
from chimera.delivery.policy import ApprovalRule, Approvals, DeliveryPolicy, Need

ROLES = ("approver", "admin", "security")
PEOPLE = [f"user:https://idp.example|{name}" for name in ("anna", "ben", "cara", "dora")]
roles = st.lists(st.sampled_from(ROLES), unique=True, max_size=3).map(tuple)


def change(**fields: Any) -> Change:
    known: dict[str, Any] = {
        "id": "chg_1",
        "tenant": "default",
        "title": "A change",
        "author": PEOPLE[0],
        "author_person": PEOPLE[0],
        "items": (),
        "content": "sha256:new",
        "risk": "high",
        "state": "awaiting-approval",
        "created": 0.0,
        "updated": 0.0,
        "since": 0.0,
    }
    return Change(**(known | fields))


@st.composite
def approvals(draw: st.DrawFn) -> tuple[Approval, ...]:
    found = []
    for at in range(draw(st.integers(0, 6))):
        person = draw(st.sampled_from(PEOPLE))
        found.append(
            Approval(
                by=draw(st.sampled_from([person, "key:k1"])),
                person=person,
                decision=draw(st.sampled_from(["approved", "approved", "rejected"])),
                content=draw(st.sampled_from(["sha256:new", "sha256:new", "sha256:old"])),
                at=float(at),
                roles=draw(roles),
            )
        )
    return tuple(found)


needs = st.lists(st.builds(Need, roles=roles.filter(bool), count=st.integers(1, 2)), min_size=1, max_size=3).map(tuple)


@given(approvals(), needs)
def test_only_others_words_on_this_content_count(words: tuple[Approval, ...], wanted: tuple[Need, ...]) -> None:
    of = change(approvals=words)
    counted = counting(of)
    assert all(one.content == of.content and one.person != of.author_person for one in counted)
    assert len({one.person for one in counted}) == len(counted)
    found = standing(of, DeliveryPolicy(approvals=Approvals(high=ApprovalRule(needs=wanted))), ())
    people = {one.person for one in counted if one.decision == "approved"}
    assert len(found.counted) <= len(people)
    if found.approved:
        assert len(people) >= sum(need.count for need in wanted)


@given(approvals(), needs)
def test_another_content_begins_anew(words: tuple[Approval, ...], wanted: tuple[Need, ...]) -> None:
    policy = DeliveryPolicy(approvals=Approvals(high=ApprovalRule(needs=wanted)))
    assert not standing(change(approvals=words, content="sha256:another"), policy, ()).approved


@given(st.lists(roles.filter(bool), max_size=4), st.lists(roles, max_size=4))
def test_places_are_filled_as_well_as_can_be(places: list[tuple[str, ...]], voices: list[tuple[str, ...]]) -> None:
    found = fill(places, voices)
    assert len(set(found.values())) == len(found)
    assert all(set(places[place]) & set(voices[voice]) for place, voice in found.items())
    short, long = (places, voices) if len(places) <= len(voices) else (voices, places)
    best = max(
        sum(bool(set(one) & set(other)) for one, other in zip(short, order, strict=False))
        for order in permutations(long, len(short))
    )
    assert len(found) == best


@given(
    st.sets(st.sampled_from(["quality", "creator"])), st.sets(st.sampled_from(["quality", "creator"])), st.booleans()
)
def test_reviewers_approve_only_together_and_only_where_they_may(
    installed: set[str], passed: set[str], automatic: bool
) -> None:
    verdicts = tuple(Verdict(stage="approval", check=name, outcome="passed") for name in sorted(passed))
    policy = DeliveryPolicy(approvals=Approvals(low=ApprovalRule(automatic=automatic)))
    found = standing(change(risk="low", verdicts=verdicts), policy, installed)
    assert found.approved == (automatic and bool(installed) and installed <= passed)


@given(st.sampled_from(["skipped", "failed"]))
def test_a_reviewer_that_skipped_or_failed_leaves_it_to_people(outcome: Any) -> None:
    verdicts = (
        Verdict(stage="approval", check="quality", outcome="passed"),
        Verdict(stage="approval", check="quality", outcome=outcome, agent="one"),
    )
    assert not standing(change(risk="low", verdicts=verdicts), DeliveryPolicy(), ["quality"]).approved


ACCOUNTS = [
    f"user:{issuer}|{who}@example.org" for issuer in ("https://a", "https://b") for who in ("ann", "Ann", "ben")
]


@given(st.lists(st.tuples(st.sampled_from(ACCOUNTS), roles.filter(bool)), max_size=6), needs)
def test_accounts_with_one_address_are_one_person(
    said: list[tuple[str, tuple[str, ...]]], wanted: tuple[Need, ...]
) -> None:
    words = tuple(
        Approval(by=who, person=who, decision="approved", content="sha256:new", at=0.0, roles=its) for who, its in said
    )
    of = change(approvals=words, author=ACCOUNTS[5], author_person=ACCOUNTS[5])
    counted = counting(of)
    assert len(counted) <= 1, "ben made it, and all others are ann"
    assert not any("ben" in one.person for one in counted)
    found = standing(of, DeliveryPolicy(approvals=Approvals(high=ApprovalRule(needs=wanted))), ())
    assert found.approved <= (sum(need.count for need in wanted) <= 1)


def test_accounts_without_an_address_are_their_own() -> None:
    same = [f"user:{issuer}|1001" for issuer in ("https://a", "https://b")]
    words = tuple(Approval(by=who, person=who, decision="approved", content="sha256:new", at=0.0) for who in same)
    assert len(counting(change(approvals=words))) == 2
    assert made_by(change(author="user:a|x@y", author_person="user:a|x@y"), "user:b|X@Y")
    assert not made_by(change(author="key:x@y", author_person="key:x@y"), "user:b|x@y")


def test_a_committer_is_an_author_too() -> None:
    of = change(contributors=("git:Ben@example.org", PEOPLE[2]))
    assert made_by(of, "user:https://idp.example|ben@example.org")
    assert made_by(of, PEOPLE[2])
    assert not made_by(of, PEOPLE[3])
