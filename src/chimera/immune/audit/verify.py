"""Whether the audit log is what was signed: fed with checkpoints and entries, these rules say what is wrong.

Three things are held against each other: the entries, the chain of their links, and checkpoints signed by a key that
whoever alters the database doesn't have. What each kind of damage contradicts:

    an edited, exchanged or renumbered entry   its own link
    a deleted entry                            the numbers, which have no gaps
    entries cut off at the end                 the head, and checkpoints of more entries than there are
    a log rewritten with all its links         the root of the next checkpoint
    two logs signed as one                     two roots for one size
    another log in its place                   the first checkpoint
    entries removed at the beginning           nothing, if retention removed them: it leaves an entry that says so

Entries since the last checkpoint are vouched for by the chain alone: whoever can write the database can rewrite those.

The first bad place is exact where a link is broken. A rewritten log has no broken link; there the place lies between
the last checkpoint that holds and the first that doesn't, and both ends are said.

Cost: one pass; an entry is hashed three times. Memory holds 32 bytes for each checkpoint, and nothing of entries.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.checkpoint import Checkpoint, check
from chimera.immune.audit.errors import AuditError
from chimera.immune.audit.merkle import Frontier
from chimera.immune.audit.model import EXPIRE, ChainedEntry, Head, decode
from chimera.immune.audit.note import Checker, PublicKey

Kind = Literal["altered", "missing", "truncated", "rewritten", "replaced", "forked", "untrusted", "unsigned"]

MOST_FINDINGS = 20
_EXPIRE = f'"{EXPIRE}"'.encode()


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is wrong: the first entry concerned, and the last where several may be."""

    kind: Kind
    seq: int
    detail: str
    until: int | None = None


class Report(Struct, frozen=True, kw_only=True):
    """What a verification has found.

    Attributes:
        ok: Whether nothing is wrong.
        log: The log's name, that of its key; of several keys all.
        first: The first entry that was checked; 0 where there was none.
        last: The last entry that was checked.
        checked: How many entries were checked.
        signed_through: Entries up to here are vouched for by a checkpoint.
        checkpoints: How many checkpoints are signed by the log's key.
        removed_through: Entries up to here were removed by retention, or passed over as verified before.
        findings: What is wrong, the first `MOST_FINDINGS`.
        more_findings: How many there are beyond them.
    """

    ok: bool
    log: str
    first: int
    last: int
    checked: int
    signed_through: int
    checkpoints: int
    removed_through: int
    findings: tuple[Finding, ...]
    more_findings: int


class Anchors:
    """The checkpoints that the log's key has signed, from whatever places they were kept in."""

    def __init__(
        self, keys: Sequence[PublicKey], checker: Checker, *, at_least: int = 0, at_most: int | None = None
    ) -> None:
        """`keys` are the log's, one or, after a change of keys, several.

        `base` will be the smallest checkpoint of `at_least` entries, or the largest of `at_most`; without either, a
        verification begins at the first entry.
        """
        self.keys = tuple(keys)
        self.roots: dict[int, bytes] = {}
        self.findings: list[Finding] = []
        self.base: Checkpoint | None = None
        self._checker = checker
        self._at_least = at_least
        self._at_most = at_most

    def add(self, checkpoint: Checkpoint, where: str) -> bool:
        """Take a checkpoint in, or a finding about it; whether it is signed. `where` is said of one that isn't."""
        try:
            root = check(checkpoint, self.keys, self._checker).root
        except AuditError as error:
            self.findings.append(Finding(kind="untrusted", seq=checkpoint.size, detail=f"{where}: {error.detail}"))
            return False
        if self.roots.setdefault(checkpoint.size, root) != root:
            self.findings.append(
                Finding(
                    kind="forked",
                    seq=max((size for size in self.roots if size < checkpoint.size), default=0) + 1,
                    until=checkpoint.size,
                    detail=f"{where}: two different logs of {checkpoint.size} entries are signed by the same key",
                )
            )
        if self._begins_better(checkpoint.size):
            self.base = checkpoint
        return True

    def _begins_better(self, size: int) -> bool:
        if self._at_most is not None:
            return size <= self._at_most and (self.base is None or size > self.base.size)
        return 0 < self._at_least <= size and (self.base is None or size < self.base.size)


class Verifier:
    """One pass over the entries, in the order of their places."""

    def __init__(self, anchors: Anchors, *, resumed: bool = False) -> None:
        """Begin after the base of `anchors`. `resumed` says that the entries before it were verified another time."""
        base = anchors.base
        self._anchors = anchors
        self._resumed = resumed
        self._findings = list(anchors.findings)
        self._tree: Frontier | None = Frontier() if base is None else base.resume()
        self._base = self._seq = 0 if base is None else base.size
        self._last = GENESIS if base is None else base.last
        self._holds = self._base
        self._first = self._checked = self._expired = 0

    @property
    def checked(self) -> int:
        """Entries checked so far."""
        return self._checked

    def feed(self, entries: Iterable[ChainedEntry]) -> None:
        """The next entries; those that the base covers are passed over."""
        for one in entries:
            if one.seq > self._base:
                self._check(one)

    def finish(self, head: Head | None) -> Report:
        """What was found, once all entries were fed. `head` is the end of the log as it keeps it; None: not known."""
        if head is not None:
            self._check_head(head)
        newest = max(self._anchors.roots, default=0)
        if newest > self._seq:
            self._find("truncated", self._seq + 1, f"a checkpoint of {newest} entries is signed", until=newest)
        if self._seq and not self._anchors.roots:
            self._find("unsigned", self._first or 1, "no checkpoint vouches for any entry", until=self._seq)
        if self._base > self._expired and not self._resumed:
            self._find("missing", 1, "they are gone, and no entry says that retention removed them", until=self._base)
        findings = sorted(self._findings, key=lambda finding: finding.seq)
        return Report(
            ok=not findings,
            log=", ".join(key.name for key in self._anchors.keys),
            first=self._first,
            last=self._seq,
            checked=self._checked,
            signed_through=self._holds,
            checkpoints=len(self._anchors.roots),
            removed_through=self._base,
            findings=tuple(findings[:MOST_FINDINGS]),
            more_findings=max(0, len(findings) - MOST_FINDINGS),
        )

    def _check(self, one: ChainedEntry) -> None:
        entry = bytes(one.entry)
        made: bytes | None = link(self._last, one.seq, entry)
        if one.seq != self._seq + 1:
            self._find("missing", self._seq + 1, "there is no such entry", until=one.seq - 1)
            # Nobody knows the link before this entry, nor the tree.
            made, self._tree = None, None
        elif made != one.hash:
            self._find("altered", one.seq, "it is not what was linked here: edited, or moved from another place")
        wrong = _contradiction(one, entry)
        if wrong:
            self._find("altered", one.seq, wrong)
        if _EXPIRE in entry:
            self._expired = max(self._expired, _expired_through(entry))
        self._seq, self._last = one.seq, one.hash
        self._first = self._first or one.seq
        self._checked += 1
        if self._tree is not None:
            self._tree.append(one.hash)
            if one.seq in self._anchors.roots:
                self._check_root(self._tree, self._anchors.roots[one.seq])

    def _check_root(self, tree: Frontier, signed: bytes) -> None:
        if tree.root() == signed:
            self._holds = tree.size
            return
        kind: Kind = "rewritten" if self._holds else "replaced"
        what = "the entries up to here are not those that were signed"
        self._find(kind, self._holds + 1, what, until=tree.size)
        self._tree = None  # all later roots differ too

    def _check_head(self, head: Head) -> None:
        if head.seq > self._seq:
            self._find("truncated", self._seq + 1, "the log's head counts more entries", until=head.seq)
        elif head.seq < self._seq:
            self._find("altered", head.seq + 1, "there are more entries than the log's head counts", until=self._seq)
        elif head.hash != self._last:
            self._find("altered", head.seq, "the log's head has another link than its last entry")

    def _find(self, kind: Kind, seq: int, detail: str, until: int | None = None) -> None:
        self._findings.append(Finding(kind=kind, seq=seq, detail=detail, until=None if until == seq else until))


def _contradiction(one: ChainedEntry, entry: bytes) -> str | None:
    """What an entry says against its own columns."""
    try:
        record = decode(entry)
    except msgspec.MsgspecError as error:
        return f"it is no entry of a format that this release knows: {error}"
    if one.columns is not None and one.columns != (record.tenant, record.at, record.actor, record.action):
        return "the columns that it is found by don't say what it says"
    return None


def _expired_through(entry: bytes) -> int:
    try:
        record = decode(entry)
    except msgspec.MsgspecError:
        return 0
    through = record.detail.get("through")
    return through if record.action == EXPIRE and isinstance(through, int) else 0
