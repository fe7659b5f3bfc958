"""What a push may change: the rules of a bare repository's protected branch.

The protected branch moves forward only, to a commit that was pushed to another branch before, so that everybody could
look at it. Approvals and checks are signed tags that name the exact commit. Who pushes one doesn't matter, whose key
signed it does: whoever pushes can forge neither, and can't pass one on to another commit.

A tag of an approval is `approvals/COMMIT/WHO`, of a check `checks/COMMIT/NAME`. Its first line is its word: `approved`
or `withdrawn`, `success` or `failure`. A later word replaces an earlier one, and no word is ever deleted: else one that
was taken back could be brought again by whoever kept it. Of all that a person says of a commit, by any of
their names, the newest counts.

All other branches are free. References that Git or people would take for the protected branch are refused, and so are
those outside branches and tags (`refs/replace` among them, by which Git shows other content for a commit). So are those
that follow another one: Git's hook is told the name that was pushed to, and what it follows is what changes.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chimera.delivery.git.policy import RepositoryPolicy
from chimera.delivery.git.signers import Person

HEADS, TAGS = "refs/heads/", "refs/tags/"
APPROVALS, CHECKS = "approvals", "checks"
WORDS = {APPROVALS: ("approved", "withdrawn"), CHECKS: ("success", "failure")}
MOST_COMMITS = 5_000
MOST_SHOWN = 10

Signature = Literal["good", "missing", "unknown", "bad"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """A reference that a push changes; None where it isn't there before, or shall not be after."""

    ref: str
    old: str | None
    new: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeCommit:
    """A commit on its way, and who made it: as it says, and by whose key it is signed."""

    id: str
    subject: str
    merge: bool
    author: str
    committer: str
    co_authors: frozenset[str]
    signed_off: frozenset[str]
    signature: Signature
    signer: Person | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """What a signed tag says of a commit; `problem` is why it doesn't count."""

    ref: str
    commit: str
    name: str
    word: str
    at: int
    signer: Person | None
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """All that is known of a push of the protected branch to `update.new`.

    `branches` are other branches that stood at that commit before the push. `more` says that there are more commits
    than are looked at. `faults` are what validation found.
    """

    update: Update
    is_commit: bool
    forward: bool
    branches: tuple[str, ...] = ()
    commits: tuple[MadeCommit, ...] = ()
    more: bool = False
    words: tuple[Word, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a reference may not change so, and what to do instead."""

    ref: str
    text: str
    next_step: str
    details: tuple[str, ...] = field(default=())


def judge_reference(policy: RepositoryPolicy, update: Update) -> Refusal | None:
    """The rules of names, for every reference of a push."""
    protected = HEADS + policy.branch
    if update.ref == protected:
        if update.new is None:
            return Refusal(ref=update.ref, text="the protected branch can't be deleted", next_step="leave it")
        return None
    if not update.ref.startswith((HEADS, TAGS)):
        return Refusal(
            ref=update.ref,
            text="only branches and tags may be pushed here",
            next_step=f"push to {HEADS}… or {TAGS}…",
        )
    short = update.ref.removeprefix(HEADS).removeprefix(TAGS)
    # HEAD as well: in clones that have no origin/HEAD of their own, it would become what `origin` stands for.
    taken = {_folded(name) for name in (policy.branch, f"heads/{policy.branch}", protected, "HEAD")}
    if _folded(short) in taken:
        return Refusal(
            ref=update.ref,
            text=f"its name would be taken for the protected branch {policy.branch}",
            next_step="choose another name",
        )
    kind = _kind(update.ref)
    if kind is not None and update.new is None:
        return Refusal(
            ref=update.ref,
            text="what was said of a commit can't be deleted",
            next_step=f"push a newer tag that says {WORDS[kind][1]!r}",
        )
    return None


def judge_following(policy: RepositoryPolicy, update: Update, followed: Mapping[str, str]) -> Refusal | None:
    """Whether a change of this reference changes it alone.

    `followed` has what this one and the protected branch follow, where they do: what Git changes in their place.
    """
    protected = HEADS + policy.branch
    target = followed.get(protected)
    if target is not None and update.ref in (protected, target):
        return Refusal(
            ref=update.ref,
            text=f"the protected branch {policy.branch} follows {target}, so that both would change",
            next_step="have it mended where the repository is; `chimera repo protect --check` says how",
        )
    target = followed.get(update.ref)
    if target is not None:
        return Refusal(
            ref=update.ref, text=f"it follows {target}, which would change in its place", next_step=f"push to {target}"
        )
    return None


def judge_word(policy: RepositoryPolicy, before: Word | None, after: Word) -> Refusal | None:
    """Whether a tag may say `after`, where it said `before`."""
    problem = after.problem or word_problem(policy, after)
    if not problem and before is not None and not before.problem and after.at <= before.at:
        problem = "it is not newer than what was said before"
    if not problem:
        return None
    return Refusal(ref=after.ref, text=f"it doesn't count: {problem}", next_step="sign it anew; see the guide 'Git'")


def word_problem(policy: RepositoryPolicy, word: Word) -> str:
    """Why a word doesn't count; empty where it does."""
    kind = _kind(word.ref)
    if word.problem:
        return word.problem
    if kind is None or word.ref != f"{TAGS}{kind}/{word.commit}/{word.name}":
        return "its name is not approvals/COMMIT/WHO or checks/COMMIT/NAME"
    if word.word not in WORDS[kind]:
        return f"it says {word.word[:40]!r}, and not {' or '.join(map(repr, WORDS[kind]))}"
    if word.signer is None:
        return "no key in the list of signers signed it"
    if kind == APPROVALS and word.name.lower() not in word.signer.names:
        return f"{word.signer} signed it for {word.name}"
    if kind == CHECKS and not word.signer.names & {name.lower() for name in policy.checks.get(word.name, ())}:
        return f"{word.signer} may not speak for the check {word.name!r}"
    return ""


def judge_proposal(policy: RepositoryPolicy, proposal: Proposal) -> list[Refusal]:
    """Everything that keeps the protected branch from going to this commit."""
    ref, new = proposal.update.ref, proposal.update.new
    assert new is not None
    if not proposal.is_commit:
        return [Refusal(ref=ref, text="a branch names a commit, and this is none", next_step="push a commit")]
    if not proposal.forward:
        return [
            Refusal(
                ref=ref,
                text="the protected branch only moves forward, and this would take commits away",
                next_step=f"fetch it, and rebase or merge: git fetch && git rebase {policy.branch}",
            )
        ]
    if proposal.more:
        return [
            Refusal(ref=ref, text=f"more than {MOST_COMMITS:,} commits at once", next_step="push them in smaller steps")
        ]
    found: list[Refusal] = []
    if not proposal.branches:
        found.append(
            Refusal(
                ref=ref,
                text="it can't be pushed to directly: nobody could look at this commit before",
                next_step=f"push it to another branch first: git push origin {new[:12]}:refs/heads/my-change",
            )
        )
    found += _commits(policy, ref, proposal.commits)
    found += _approvals(policy, ref, new, proposal)
    found += _checks(policy, ref, new, proposal)
    if proposal.faults:
        found.append(
            Refusal(
                ref=ref,
                text="definitions of this commit are not valid",
                next_step="mend them; `chimera validate` finds the same",
                details=_some(proposal.faults),
            )
        )
    return found


def _commits(policy: RepositoryPolicy, ref: str, commits: Sequence[MadeCommit]) -> Iterator[Refusal]:
    if policy.signed_off:
        bad = [one for one in commits if not one.merge and one.committer not in one.signed_off]
        if bad:
            yield Refusal(
                ref=ref,
                text="commits are not signed off by who committed them",
                next_step="git rebase --signoff, and push again",
                details=_some([f"{one.id[:12]} {one.subject}: by {one.committer}" for one in bad]),
            )
    if policy.signed_commits:
        wrong = [f"{one.id[:12]} {one.subject}: {problem}" for one in commits if (problem := _signature(one))]
        if wrong:
            yield Refusal(
                ref=ref,
                text="commits are not signed by a key of who committed them",
                next_step="git config gpg.format ssh, git config user.signingkey KEY, then git rebase --gpg-sign",
                details=_some(wrong),
            )


def _signature(commit: MadeCommit) -> str:
    if commit.signature == "missing":
        return "it has no SSH signature"
    if commit.signature == "bad":
        return "its signature doesn't fit"
    if commit.signer is None:
        return "its key is not in the list of signers"
    if commit.committer not in commit.signer.names:
        return f"{commit.signer} signed what {commit.committer} committed"
    return ""


def makers(commits: Sequence[MadeCommit]) -> frozenset[str]:
    """Everybody who had a hand in the commits, by every name that is known of them."""
    names: set[str] = set()
    for one in commits:
        names |= {one.author, one.committer, *one.co_authors}
        if one.signer is not None:
            names |= one.signer.names
    return frozenset(names)


def _approvals(policy: RepositoryPolicy, ref: str, commit: str, proposal: Proposal) -> Iterator[Refusal]:
    made = makers(proposal.commits)
    said: dict[Person, Word] = {}
    dropped: list[str] = []
    for word in proposal.words:
        if _kind(word.ref) != APPROVALS or word.commit != commit:
            continue
        problem = word_problem(policy, word)
        if not problem and word.signer is not None and word.signer.names & made:
            problem = "it is their own change"
        if problem:
            dropped.append(f"{word.name}: {problem}")
        elif word.signer is not None:
            said[word.signer] = max(said.get(word.signer, word), word, key=_newness)
    approved = sum(word.word == WORDS[APPROVALS][0] for word in said.values())
    if approved < policy.approvals:
        yield Refusal(
            ref=ref,
            text=f"it has {approved} of {policy.approvals} approvals of this very commit",
            next_step=f"have others approve it: chimera repo approve {commit[:12]}",
            details=_some(dropped),
        )


def _newness(word: Word) -> tuple[int, bool]:
    """The order of what a person says, by any of their names; of words of one second, the one that takes back wins."""
    return word.at, word.word != WORDS[APPROVALS][0]


def _checks(policy: RepositoryPolicy, ref: str, commit: str, proposal: Proposal) -> Iterator[Refusal]:
    said = {
        word.name: word
        for word in proposal.words
        if _kind(word.ref) == CHECKS and word.commit == commit and not word_problem(policy, word)
    }
    missing: list[str] = []
    for name in sorted(policy.checks):
        if name not in said:
            missing.append(f"{name}: nobody who may has said how it went")
        elif said[name].word != WORDS[CHECKS][0]:
            missing.append(f"{name}: it failed")
    if missing:
        yield Refusal(
            ref=ref,
            text="checks of this commit have not succeeded",
            next_step="wait for them, or mend what they found",
            details=_some(missing),
        )


def _kind(ref: str) -> str | None:
    first = ref.removeprefix(TAGS).partition("/")[0] if ref.startswith(TAGS) else ""
    return first if first in WORDS else None


def _folded(name: str) -> str:
    """A name as a file system that ignores case and composition keeps it."""
    return unicodedata.normalize("NFC", name).casefold()


def _some(texts: Sequence[str]) -> tuple[str, ...]:
    more = len(texts) - MOST_SHOWN
    return (*texts[:MOST_SHOWN], *((f"and {more:,} more",) if more > 0 else ()))
