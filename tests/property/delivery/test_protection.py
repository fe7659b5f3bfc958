"""The rules of a protected branch: whatever is pushed, what passes has all that the policy asks for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.git.policy import RepositoryPolicy
from chimera.delivery.git.protection import (
    MadeCommit,
    Proposal,
    Update,
    Word,
    judge_following,
    judge_proposal,
    judge_reference,
    judge_word,
    makers,
)
from chimera.delivery.git.signers import Person

COMMIT, OTHER = "a" * 40, "b" * 40
PEOPLE = tuple(Person(names=frozenset({f"{name}@x", f"{name}@y"})) for name in ("ann", "bob", "cid", "ci"))
addresses = st.sampled_from([f"{name}@{host}" for name in ("ann", "bob", "cid", "dora") for host in "xy"])
signers = st.none() | st.sampled_from(PEOPLE)
policies = st.builds(
    RepositoryPolicy,
    approvals=st.integers(0, 2),
    signed_off=st.booleans(),
    signed_commits=st.just(True),
    checks=st.sampled_from([{}, {"ci": ("ci@x",)}]),
)
commits = st.builds(
    MadeCommit,
    id=st.just(COMMIT),
    subject=st.just("x"),
    merge=st.booleans(),
    author=addresses,
    committer=addresses,
    co_authors=st.frozensets(addresses, max_size=1),
    signed_off=st.frozensets(addresses, max_size=3),
    signature=st.sampled_from(["good", "good", "missing", "unknown", "bad"]),
    signer=signers,
)


@st.composite
def words(draw: st.DrawFn) -> Word:
    kind = draw(st.sampled_from(["approvals", "checks"]))
    commit = draw(st.sampled_from([COMMIT, COMMIT, OTHER]))
    name = draw(addresses) if kind == "approvals" else draw(st.sampled_from(["ci", "lint"]))
    word = draw(st.sampled_from(["approved", "withdrawn", "success", "failure", "lgtm"]))
    problem = draw(st.sampled_from(["", "", "its signature doesn't fit"]))
    ref = f"refs/tags/{kind}/{commit}/{name}"
    return Word(
        ref=ref, commit=commit, name=name, word=word, at=draw(st.integers(0, 3)), signer=draw(signers), problem=problem
    )


proposals = st.builds(
    Proposal,
    update=st.just(Update(ref="refs/heads/main", old=OTHER, new=COMMIT)),
    is_commit=st.booleans() | st.just(True),
    forward=st.booleans() | st.just(True),
    branches=st.sampled_from([(), ("refs/heads/topic",), ("refs/heads/topic",)]),
    commits=st.lists(commits, max_size=3).map(tuple),
    more=st.sampled_from([False, False, True]),
    words=st.lists(words(), max_size=5, unique_by=lambda word: word.ref).map(tuple),
    faults=st.sampled_from([(), (), ("agents/x.yaml: wrong",)]),
)


@given(policy=policies, proposal=proposals)
def test_what_passes_has_all_that_is_asked_for(policy: RepositoryPolicy, proposal: Proposal) -> None:
    refused = judge_proposal(policy, proposal)
    if refused:
        assert all(one.text and one.next_step for one in refused)
        return
    assert proposal.is_commit and proposal.forward and proposal.branches
    assert not proposal.faults and not proposal.more
    for one in proposal.commits:
        assert one.signature == "good"
        assert one.signer is not None and one.committer in one.signer.names
        assert one.merge or not policy.signed_off or one.committer in one.signed_off
    made = {name for one in proposal.commits for name in (one.author, one.committer, *one.co_authors)}
    ours = [word for word in proposal.words if word.commit == COMMIT and not word.problem and word.signer]
    approvers = {
        word.signer
        for word in ours
        if word.word == "approved" and word.name in word.signer.names and not word.signer.names & made  # type: ignore[union-attr]
    }
    assert len(approvers) >= policy.approvals
    for name in policy.checks:
        assert any(word.name == name and word.word == "success" and "ci@x" in word.signer.names for word in ours)  # type: ignore[union-attr]


@given(policy=policies, proposal=proposals, word=words())
def test_a_word_of_a_maker_changes_nothing(policy: RepositoryPolicy, proposal: Proposal, word: Word) -> None:
    """Liveness is the others' words alone: nobody who had a hand in it opens the way by an approval."""
    if word.signer is None or not word.signer.names & makers(proposal.commits) or "approvals" not in word.ref:
        return
    more = replace(proposal, words=(*proposal.words, word))
    assert {one.text for one in judge_proposal(policy, proposal)} == {one.text for one in judge_proposal(policy, more)}


def approval(name: str, word: str, at: int, *, signer: Person = PEOPLE[1]) -> Word:
    ref = f"refs/tags/approvals/{COMMIT}/{name}"
    return Word(ref=ref, commit=COMMIT, name=name, word=word, at=at, signer=signer)


def passes(*said: Word, approvals: int = 1) -> bool:
    update = Update(ref="refs/heads/main", old=OTHER, new=COMMIT)
    proposal = Proposal(update=update, is_commit=True, forward=True, branches=("refs/heads/topic",), words=said)
    return not judge_proposal(RepositoryPolicy(approvals=approvals), proposal)


NAMES = ("bob@x", "bob@y", "Bob@x", "BOB@Y")


@given(
    st.lists(
        st.builds(approval, st.sampled_from(NAMES), st.sampled_from(["approved", "withdrawn"]), st.integers(0, 3)),
        unique_by=lambda word: word.ref,
        min_size=1,
    )
)
def test_the_newest_word_of_a_person_counts_under_whichever_name(said: list[Word]) -> None:
    newest = {word.word for word in said if word.at == max(one.at for one in said)}
    assert passes(*said) is (newest == {"approved"})


def test_a_word_that_does_not_count_takes_nothing_back() -> None:
    kept = approval("bob@x", "approved", 1)
    assert passes(kept, replace(approval("bob@y", "withdrawn", 2), problem="its signature doesn't fit"))
    assert passes(kept, approval("bob@y", "withdrawn", 2, signer=PEOPLE[0])), "ann says nothing for bob"
    assert passes(kept, approval("cid@x", "withdrawn", 2, signer=PEOPLE[2])), "cid speaks for cid"
    assert not passes(kept, approval("bob@y", "approved", 2), approvals=2), "one person is one"


@given(policy=policies, before=words(), after=words())
def test_words_only_move_forward(policy: RepositoryPolicy, before: Word, after: Word) -> None:
    after = replace(after, ref=before.ref, commit=before.commit, name=before.name)
    if judge_word(policy, before, after) is None:
        assert not after.problem
        assert before.problem or after.at > before.at


@given(
    ref=st.sampled_from(["refs/heads/", "refs/tags/", "refs/", ""]).flatmap(
        lambda start: st.sampled_from(
            ["main", "MAIN", "Main", "heads/main", "refs/heads/main", "other", "HEAD", "replace/x"]
        ).map(lambda name: start + name)
    ),
    new=st.sampled_from([None, COMMIT]),
)
def test_no_other_reference_is_taken_for_the_branch(ref: str, new: str | None) -> None:
    refused = judge_reference(RepositoryPolicy(), Update(ref=ref, old=OTHER, new=new))
    if ref == "refs/heads/main":
        assert (refused is None) == (new is not None)
    elif not ref.startswith(("refs/heads/", "refs/tags/")):
        assert refused is not None
    else:
        short = ref.removeprefix("refs/heads/").removeprefix("refs/tags/").lower()
        assert (refused is not None) == (short in ("main", "heads/main", "refs/heads/main", "head"))


REFS = ("refs/heads/main", "refs/heads/master", "refs/heads/topic", "refs/tags/v1")


@given(
    ref=st.sampled_from(REFS),
    new=st.sampled_from([None, COMMIT]),
    followed=st.dictionaries(st.sampled_from(REFS), st.sampled_from(REFS)),
)
def test_only_a_reference_that_stands_for_itself_may_change(
    ref: str, new: str | None, followed: dict[str, str]
) -> None:
    refused = judge_following(RepositoryPolicy(), Update(ref=ref, old=OTHER, new=new), followed)
    assert (refused is not None) == (ref in followed or ref == followed.get("refs/heads/main"))
