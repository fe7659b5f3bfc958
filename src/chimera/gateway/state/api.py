"""The bodies of the public API of state."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from chimera.gateway.state.model import SessionSummary, StoredRun, StoredSession, SubjectCounts
from chimera.gateway.state.spaces_rules import Declared
from chimera_host.contract.call import Message, SessionState
from chimera_host.contract.state import SharedEntry

MAX_MESSAGES = 10_000
Subject = Annotated[str, Meta(min_length=1, max_length=200)]
Life = Annotated[float, Meta(ge=0, le=3_155_760_000)]
"""Seconds, a hundred years at most; 0: for ever."""


class Unfinished(Struct, frozen=True, kw_only=True):
    """Work of a session that has no answer yet: its run, how many steps are finished, when the last one was.

    `held` says that a gateway works on it, or did so until it fell silent.
    """

    run: str
    steps: int
    updated: float
    held: bool


class SessionAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session as stored. Times are seconds since the epoch; without `expires` it never ends."""

    tenant: str
    agent: str
    session: str
    version: int
    created: float
    updated: float
    state: SessionState
    subject: str | None = None
    ttl: float | None = None
    expires: float | None = None
    unfinished: Unfinished | None = None


class SessionPage(Struct, frozen=True, kw_only=True):
    """Sessions by agent and name; `next` is what to give as `after` for more."""

    sessions: list[SessionSummary]
    next: str | None


class SessionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A session's whole state. `ttl` is its time to live from each save on, in seconds; 0: for ever.

    `version` is the version that this replaces, for callers who don't send If-Match; 0: there is none yet.
    """

    state: SessionState
    subject: Subject | None = None
    ttl: Life | None = None
    version: Annotated[int, Meta(ge=0)] | None = None


class SessionPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What changes of a session: `values` is a JSON Merge Patch (RFC 7396) of its values, `messages` are added."""

    values: dict[str, Any] | None = None
    messages: Annotated[tuple[Message, ...], Meta(max_length=MAX_MESSAGES)] = ()
    subject: Subject | None = None
    ttl: Life | None = None
    version: Annotated[int, Meta(ge=0)] | None = None


class SubjectAnswer(Struct, frozen=True, kw_only=True):
    """How much is kept of a person, or was erased."""

    tenant: str
    subject: str
    kept: SubjectCounts


class SpaceBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a space's owner declares; `version` is the space's as it was read, 0 for a new one."""

    declared: Declared = Declared()
    version: Annotated[int, Meta(ge=0)] = 0


class SpaceAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A space without its keys; `size` in bytes."""

    tenant: str
    space: str
    version: int
    declared: Declared
    entries: int
    size: int
    created: float
    updated: float
    expires: float | None = None


class SpacePage(Struct, frozen=True, kw_only=True):
    """Spaces by name."""

    spaces: list[SpaceAnswer]
    next: str | None


class EntryPage(Struct, frozen=True, kw_only=True):
    """Keys of a space in order."""

    entries: list[SharedEntry]
    next: str | None


def session_answer(found: StoredSession, run: StoredRun | None = None) -> SessionAnswer:
    """What a caller gets."""
    unfinished = None
    if run is not None:
        unfinished = Unfinished(run=run.run, steps=run.steps, updated=run.updated, held=bool(run.holder))
    return SessionAnswer(
        tenant=found.tenant,
        agent=found.agent,
        session=found.session,
        version=found.version,
        created=found.created,
        updated=found.updated,
        state=found.state,
        subject=found.subject,
        ttl=found.ttl,
        expires=found.expires,
        unfinished=unfinished,
    )
