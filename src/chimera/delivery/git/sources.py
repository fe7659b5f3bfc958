"""A source: a branch of a repository that the catalogue of a tenant follows, what is wanted of it, and how it stands.

`phase` says how following it goes, whatever the agents do: `current` and `new` are well, the others say in `reason`
what is wrong and in `next_step` what to do. While it isn't well, what was delivered last stays live.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from chimera.delivery.git.policy import is_branch

Phase = Literal["new", "current", "waiting", "broken", "held", "rewritten", "unreachable", "unreadable", "refused"]
STOPPED: frozenset[Phase] = frozenset({"broken", "unreadable"})
"""Phases that another commit alone leads out of: the same one is not read again."""
CONFIRMED: frozenset[Phase] = frozenset({"held", "rewritten"})
"""Phases that another commit leads out of, or somebody's word about this one; it is not read again before."""
MOST_FAULTS = 50
MOST_DRIFT = 100

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
Secret = Annotated[str, Meta(pattern=r"^secret:[A-Za-z][A-Za-z0-9_.-]{0,127}$")]
Share = Annotated[float, Meta(ge=0, le=1)]


class SourceSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wanted. `path` is the folder of definitions in the repository, empty for all of it.

    `credential` and `webhook` name secrets: the repository's password or token, and the key of its webhook. A commit
    that would take more than `prune_count` agents out of service, or more than `prune_share` of those that the source
    has, waits for somebody's word. With `drift` `mend`, agents that somebody else changed are brought back.
    """

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    branch: Annotated[str, Meta(min_length=1, max_length=200)] = "main"
    path: Annotated[str, Meta(max_length=500, pattern=r"^([^/\x00]+(/[^/\x00]+)*)?$")] = "agents"
    interval: Annotated[float, Meta(ge=5, le=86_400)] = 60.0
    username: Annotated[str, Meta(pattern=r"^[\x21-\x39\x3b-\x7e]{1,200}$")] = "git"
    credential: Secret | None = None
    webhook: Secret | None = None
    prune: bool = True
    prune_count: Annotated[int, Meta(ge=0)] = 100
    prune_share: Share = 0.2
    drift: Literal["report", "mend"] = "report"


class Drift(Struct, frozen=True, kw_only=True):
    """An agent that isn't as the delivered commit says: what it should be, what is live (None: nothing), by whom."""

    agent: str
    wanted: str
    live: str | None
    by: str | None
    at: float | None


class SourceState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it stands. `seen` is the newest commit of the branch that was looked at, `commit` the one that is live.

    `confirmed_prune` and `confirmed_rewrite` are commits that somebody let pass. `sequence` is the catalogue's when
    drift was looked for; `compiler` and `wanted` say by what the commit was compiled, and for which wish; `tried` says
    the same of the commit that is given up, or that waits for its change request, and is empty once somebody wants it
    to be looked at anew. `change` is the change request that it waits for, which is one of `seen`.
    """

    phase: Phase = "new"
    reason: str = ""
    next_step: str = ""
    faults: tuple[str, ...] = ()
    seen: str | None = None
    commit: str | None = None
    subject: str = ""
    author: str = ""
    delivered: float | None = None
    looked: float | None = None
    failures: int = 0
    agents: int = 0
    removals: int = 0
    drifted: int = 0
    drift: tuple[Drift, ...] = ()
    sequence: int = -1
    compiler: str = ""
    wanted: str = ""
    tried: str = ""
    confirmed_prune: str | None = None
    confirmed_rewrite: str | None = None
    change: str | None = None


class Source(Struct, frozen=True, kw_only=True):
    """A source as it is kept. `version` grows with each change of `spec` and each word about it."""

    tenant: str
    name: str
    spec: SourceSpec
    state: SourceState
    created: float
    due: float
    version: int


class PutSource(Struct, frozen=True, kw_only=True):
    """What to follow."""

    spec: SourceSpec


class RunSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Look now; a commit may be named whose removals, or whose rewriting of the branch, are meant."""

    allow_prune: str | None = None
    allow_rewrite: str | None = None


class SourceView(Struct, frozen=True, kw_only=True):
    """A source with its state; no secret is in it."""

    name: str
    spec: SourceSpec
    state: SourceState
    created: float
    due: float


class SourcePage(Struct, frozen=True, kw_only=True):
    """Sources by name; the next page begins after `next`."""

    sources: list[SourceView]
    next: str | None = None


class RemovedSource(Struct, frozen=True, kw_only=True):
    """A source that is followed no more; its agents stay live, and are nobody's."""

    name: str
    agents: int


def faults_of(spec: SourceSpec, tenant: str) -> list[str]:
    """What the types don't say about a wish."""
    found: list[str] = []
    if not is_branch(spec.branch):
        found.append(f"branch: {spec.branch!r} is not the name of a branch")
    if any(part in (".", "..") for part in spec.path.split("/")):
        found.append(f"path: {spec.path!r} is not a folder of the repository")
    own = f"secret:git_{tenant}_"
    for field in ("credential", "webhook"):
        reference = getattr(spec, field)
        if reference is not None and not reference.startswith(own):
            found.append(
                f"{field}: a source of this tenant uses secrets whose names begin with {own.partition(':')[2]}"
            )
    return found


def view(source: Source) -> SourceView:
    """A source for people."""
    return SourceView(name=source.name, spec=source.spec, state=source.state, created=source.created, due=source.due)
