"""Whether a change is approved, and whose word counts: pure rules over its approvals and the tenant's policy.

A word counts that was given on the change's content as it is, by a person who didn't make it. A key counts as the user
who made it, so that nobody approves with a key of theirs; accounts that identity providers know by the same address are
one person's, and so is what Git knows by it. Agents, hosts, teams and parts of the platform approve nothing. Each
person fills one place. The places are filled as well as can be: an admin who could stand for an approver is put where
nobody else fits.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct

from chimera.delivery.errors import ApprovalRefused
from chimera.delivery.model import Approval, Change
from chimera.delivery.policy import ApprovalRule, DeliveryPolicy

PEOPLE = ("user", "key")
"""Kinds of principals that stand for a person."""
GIT = "git:"


class Who(Struct, frozen=True, kw_only=True):
    """Who acts: its name, the person behind it, and its roles in the tenant."""

    actor: str
    person: str
    roles: frozenset[str] = frozenset()

    @property
    def is_person(self) -> bool:
        """Whether somebody stands behind it who can answer for an approval."""
        return all(name.partition(":")[0] in PEOPLE for name in (self.actor, self.person))


class Standing(Struct, frozen=True, kw_only=True):
    """How the approvals of a change stand. `missing` says in words whose are missing."""

    approved: bool
    automatic: bool
    counted: tuple[str, ...]
    missing: tuple[str, ...]


def standing(change: Change, policy: DeliveryPolicy, reviewers: Collection[str]) -> Standing:
    """Whether `change` is approved; `reviewers` are the names of all that may approve by themselves."""
    rule = policy.approvals.of(change.risk)
    if rule.automatic and reviewers and not failing_reviewers(change, reviewers):
        return Standing(approved=True, automatic=True, counted=(), missing=())
    voices = [one for one in counting(change) if one.decision == "approved"]
    places = [need.roles for need in rule.needs for _ in range(need.count)]
    filled = fill(places, [frozenset(one.roles) for one in voices])
    missing = tuple(" or ".join(roles) for place, roles in enumerate(places) if place not in filled)
    return Standing(
        approved=not missing,
        automatic=False,
        counted=tuple(voices[voice].by for voice in sorted(filled.values())),
        missing=missing,
    )


def failing_reviewers(change: Change, reviewers: Collection[str]) -> tuple[str, ...]:
    """Those of `reviewers` that have not passed the change, in order: what failed, or wasn't looked at."""
    said = {
        name: [one for one in change.verdicts if one.stage == "approval" and one.check == name] for name in reviewers
    }
    return tuple(sorted(name for name, its in said.items() if not its or any(one.outcome != "passed" for one in its)))


def counting(change: Change) -> list[Approval]:
    """The last word of each person who may speak, given on this content."""
    last: dict[str, Approval] = {}
    for one in change.approvals:
        if one.content == change.content and not made_by(change, one.person):
            last[identity(one.person)] = one
    return list(last.values())


def identity(person: str) -> str:
    """What two names of one person have in common: the address, where it is one's subject, or stands in a commit.

    A provider's other subjects say nothing beyond it: the name of the account is all that there is.
    """
    kind, _, rest = person.partition(":")
    subject = rest.rpartition("|")[2] if kind == "user" else rest
    if kind in ("user", "git") and "@" in subject:
        return f"mailto:{subject.casefold()}"
    return person


def made_by(change: Change, person: str) -> bool:
    """Whether `person` made the change, or a part of it, under whatever name of theirs.

    A committer of a change from Git is known by an address (`git:ADDRESS`); a user whose subject at their identity
    provider is that address is the same person.
    """
    if identity(person) in {identity(one) for one in (change.author_person, change.author, *change.contributors)}:
        return True
    subject = person.partition(":")[2].rpartition("|")[2].casefold()
    return any(one.startswith(GIT) and one.removeprefix(GIT).casefold() == subject for one in change.contributors)


def check_approver(change: Change, policy: DeliveryPolicy, who: Who) -> None:
    """Raise `ApprovalRefused` where the word of `who` on `change` can't count."""
    if not who.is_person:
        raise ApprovalRefused(
            f"{who.actor} is nobody's: approvals are people's",
            next_step="ask a person with an account, or with a key that they or somebody who is known made",
        )
    if made_by(change, who.person):
        same = "" if who.actor == who.person else f" ({who.actor} is a key of {who.person})"
        raise ApprovalRefused(
            f"{who.person} made this change, and nobody approves their own{same}", next_step="ask somebody else"
        )
    wanted = roles_of(policy.approvals.of(change.risk))
    if not wanted & who.roles:
        raise ApprovalRefused(
            f"a change of {change.risk} risk asks for the role {' or '.join(sorted(wanted))}; {who.actor} has none",
            next_step="ask somebody who has it; `chimera change policy show` shows the rules",
        )


def roles_of(rule: ApprovalRule) -> frozenset[str]:
    """The roles that may speak under `rule`; where it needs nobody, those of the default may still reject."""
    named = frozenset(role for need in rule.needs for role in need.roles)
    return named or frozenset({"approver", "admin"})


def fill(places: Sequence[Collection[str]], voices: Sequence[Collection[str]]) -> dict[int, int]:
    """The place of each voice in as many places as can be filled: by place the voice in it.

    Places name the roles that fit, voices those that they have; it is a maximum matching, by augmenting paths.
    """
    voice_of: dict[int, int] = {}

    def place(voice: int, seen: set[int]) -> bool:
        for number, roles in enumerate(places):
            if number in seen or not set(roles) & set(voices[voice]):
                continue
            seen.add(number)
            if number not in voice_of or place(voice_of[number], seen):
                voice_of[number] = voice
                return True
        return False

    for voice in range(len(voices)):
        place(voice, set())
    return voice_of
