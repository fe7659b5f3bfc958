"""The catalogue's own words: definitions on their way in, what an apply changed, and how it is refused.

A revision is its content: applying the same content again changes nothing, whatever its version says. A changed
content under an unchanged version is taken (the digest tells the two apart) and counted, so that whoever applies is
told of it; `chimera diff` says which version fits. Applies are serialised: of two that change the same agent the later
one wins, unless it says with `expect` which state it was made from, and then it is refused.
"""

import hashlib
from collections.abc import Sequence
from functools import cache

import msgspec
from msgspec import Struct

from chimera.agents.compile import COMPILER, CompiledAgent
from chimera.agents.template_library import template, template_names
from chimera_host.contract.problem import ProblemError

DIGEST, FEWEST_DIGITS, NO_REVISION = "sha256:", 6, "none"


class UnknownBatch(ProblemError):
    """No open batch has this id."""

    code = "unknown-batch"
    status = 404
    title = "There is no such batch"


class DuplicateNames(ProblemError):
    """Two definitions of one batch have the same name."""

    code = "duplicate-name"
    status = 409
    title = "A name stands twice in one batch"


class BatchHasFaults(ProblemError):
    """Some definitions of a batch are not valid, and it was to be all or nothing."""

    code = "batch-has-faults"
    status = 422
    title = "Some definitions are not valid"


class BundleGone(ProblemError):
    """A definition names a source bundle that is not here any more."""

    code = "bundle-gone"
    status = 409
    title = "A source bundle is not here any more"


class ChangedMeanwhile(ProblemError):
    """An agent of the batch was changed after the state that the batch was made from."""

    code = "changed-meanwhile"
    status = 409
    title = "Agents were changed meanwhile"


class OwnedByResource(ProblemError):
    """An agent that is to be changed belongs to somebody else: a resource of a cluster, or the API."""

    code = "owned-by-resource"
    status = 409
    title = "The agent has another owner"


class OwnedAgent(Struct, frozen=True, array_like=True):
    """An agent's row as its owner sees it; `owner` is the resource `namespace/name`, None for the API."""

    tenant: str
    name: str
    live: bool
    owner: str | None
    source: str
    compiler: str
    revision: str
    version: str
    cell: str
    unservable: str | None
    sequence: int


class NoEarlierRevision(ProblemError):
    """An agent has no such revision to go back to."""

    code = "no-earlier-revision"
    status = 409
    title = "There is no such revision to go back to"


class StagedItem(Struct, frozen=True, kw_only=True):
    """One definition of a batch: compiled, or the problem that it has. `source` is the digest of its source text."""

    position: int
    source: str
    file: str | None = None
    compiled: CompiledAgent | None = None
    problem: bytes | None = None


class Applied(Struct, frozen=True, kw_only=True):
    """What a commit changed, in numbers of agents.

    `refused` were left out because of their faults, `duplicates` are names left out because they stood twice, `owned`
    those that have another owner (all only with `keep_going`); `same_version` are updated without another version
    number. `sequence` is the number of the catalogue's newest change.
    """

    created: int
    updated: int
    unchanged: int
    refused: int
    same_version: int
    sequence: int
    duplicates: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()


class Pin(Struct, frozen=True, kw_only=True):
    """The commit that made a revision live: the source that followed its branch, the repository, and the commit."""

    source: str
    repository: str
    commit: str


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """One change of an agent's live revision; `revision` and `version` are None where it was deleted.

    `change` is the change request that did it, if one did; `pin` is the commit that made it live, where one did.
    """

    sequence: int
    revision: str | None
    version: str | None
    at: float
    by: str | None
    change: str | None = None
    pin: Pin | None = None


def earlier(agent: str, history: Sequence[HistoryEntry], wanted: str | None) -> str:
    """The digest to go back to: the revision before the live one, or of all that were live the one that is wanted.

    `history` is the newest first; `wanted` is a digest or its beginning, at least six digits. A deleted agent goes back
    to what it was.
    """
    known = list(dict.fromkeys(entry.revision for entry in history if entry.revision is not None))
    if wanted is None:
        before = [revision for revision in known if revision != history[0].revision] if history else []
        if not before:
            raise NoEarlierRevision(f"agent {agent} was never another revision", next_step="apply what it should be")
        return before[0]
    digits = wanted.removeprefix(DIGEST)
    found = [revision for revision in known if revision.removeprefix(DIGEST).startswith(digits)]
    if len(digits) < FEWEST_DIGITS or len(found) != 1:
        raise NoEarlierRevision(
            f"{wanted[:80]!r} names no one revision that agent {agent} had",
            next_step=f"see `chimera get revisions {agent}`, and give {FEWEST_DIGITS} digits or more",
        )
    return found[0]


def is_named(revision: str | None, told: str) -> bool:
    """Whether `told` names the revision: by its digest or its beginning, at least six digits; `none` is no revision."""
    if revision is None or told == NO_REVISION:
        return revision is None and told == NO_REVISION
    digits = told.removeprefix(DIGEST)
    return len(digits) >= FEWEST_DIGITS and revision.removeprefix(DIGEST).startswith(digits)


@cache
def compiler_id() -> str:
    """Names everything in this release that decides what a source text compiles to: the compiler and the templates.

    An agent applied by another compiler counts as changed even where its source is the same.
    """
    parts = [COMPILER, {name: template(name) for name in template_names()}]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]


def source_digest(text: bytes, bundle: str | None = None, document: int = 0) -> str:
    """What a client remembers a definition by: its file's bytes, its source folder, its place in the file.

    `bundle` is the digest of the packed source folder, `document` the number of the document in its file, from 0.
    """
    tail = f"\0{bundle or ''}\0{document}".encode()
    return hashlib.sha256(text + tail).hexdigest()
