"""Sessions: what a conversation carries from call to call, changed by version.

Two calls of one session at once both start from the same version; the second to save is told that the session has
changed, and nothing of the first is lost. A save is seen by every read that begins after it was acknowledged, through
any gateway, since there is no cache between them and the database.

A session that has ended counts as gone at once, whenever its row is removed.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from chimera.gateway.errors import NotFound, PayloadTooLarge, SessionConflict
from chimera.gateway.settings import StateSettings
from chimera.gateway.state import rules
from chimera.gateway.state.errors import PreconditionRequired, SessionChanged, SubjectMismatch
from chimera.gateway.state.model import SessionKey, SessionSummary, StoredSession
from chimera.gateway.state.ports import SessionFilter, SessionStore
from chimera.kernel.clock import Clock
from chimera_host.contract.call import Message, SessionState

_encoder = msgspec.json.Encoder()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody changes of a session from outside; what isn't given stays.

    `state` replaces the whole state; `values` is a JSON Merge Patch (RFC 7396) of its values, `messages` are added to
    it. `version` or one of the headers (`if_match`, `if_none_match`) says what it is a change of.
    """

    state: SessionState | None = None
    values: dict[str, Any] | None = None
    messages: tuple[Message, ...] = ()
    subject: str | None = None
    ttl: float | None = None
    version: int | None = None
    if_match: str | None = None
    if_none_match: str | None = None


class Sessions:
    """Loads and saves sessions within a size."""

    def __init__(self, store: SessionStore, clock: Clock, *, most_bytes: int, settings: StateSettings) -> None:
        """Keep sessions of at most `most_bytes` in `store`."""
        self._store = store
        self._clock = clock
        self._most = most_bytes
        self._settings = settings

    # -- for calls -----------------------------------------------------------------------------------------------------

    async def open(self, tenant: str, agent: str, session: str, subject: str | None = None) -> StoredSession:
        """The session as it stands; an empty one of version 0 where there is none yet.

        Raises `SubjectMismatch` where it is another person's than `subject`.
        """
        rules.check_session_id(session)
        rules.check_subject(subject)
        stored = await self.find(tenant, agent, session)
        if stored is None:
            return self._fresh(SessionKey(tenant=tenant, agent=agent, session=session), subject)
        return _of_person(stored, subject)

    def following(self, before: StoredSession, state: SessionState) -> StoredSession:
        """The version after `before`, with `state`; raises `PayloadTooLarge`."""
        if len(_encoder.encode(state)) > self._most:
            raise PayloadTooLarge(
                f"session {before.session} would hold more than {self._most} bytes",
                next_step="start a new session",
                agent=before.agent,
            )
        now = self._clock.wall()
        return replace(
            before,
            version=before.version + 1,
            state=state,
            updated=now,
            expires=rules.expiry(now, before.ttl, self._settings.session_ttl),
        )

    async def save(self, before: StoredSession, state: SessionState, by: str = "") -> StoredSession:
        """Commit `state` as the version after `before`; raises `SessionConflict`."""
        after = self.following(before, state)
        await self._store.save_session(after, by)
        return after

    # -- for whoever manages them --------------------------------------------------------------------------------------

    async def find(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """The session, if there is one that hasn't ended."""
        stored = await self._store.load_session(tenant, agent, session)
        return None if stored is None or rules.is_over(stored.expires, self._clock.wall()) else stored

    async def get(self, tenant: str, agent: str, session: str) -> StoredSession:
        """The same; raises `NotFound`."""
        found = await self.find(tenant, agent, session)
        if found is None:
            raise NotFound(
                f"agent {agent[:100]!r} has no session {session[:100]!r}",
                next_step="a session begins with the first call that names it",
                agent=agent,
            )
        return found

    async def change(self, key: SessionKey, change: Change, by: str) -> StoredSession:
        """Change a session, or make it.

        Raises `PreconditionRequired` where `change` doesn't say of what it is one, `SessionChanged` (412) where a
        header doesn't match, `SessionConflict` (409) where `version` doesn't, or somebody was faster.
        """
        rules.check_session_id(key.session)
        rules.check_subject(change.subject)
        found = await self.find(key.tenant, key.agent, key.session)
        _check_precondition(key, found, change)
        before = self._fresh(key, change.subject) if found is None else _of_person(found, change.subject)
        if change.ttl is not None:
            before = replace(before, ttl=change.ttl)
        state = change.state or before.state
        values = state.values if change.values is None else rules.merged(state.values, change.values)
        assert isinstance(values, dict)
        return await self.save(before, SessionState(messages=(*state.messages, *change.messages), values=values), by)

    async def delete(self, key: SessionKey, *, if_match: str | None, by: str) -> None:
        """Erase it; raises `NotFound`, or `SessionChanged` where `if_match` is given and doesn't match."""
        found = await self.get(key.tenant, key.agent, key.session)
        if if_match is not None and not rules.matches(if_match, found):
            raise _changed(key, found)
        try:
            expected = None if if_match is None else found
            await self._store.delete_session(key.tenant, key.agent, key.session, expected=expected, by=by)
        except SessionConflict:
            raise _changed(key, await self.find(key.tenant, key.agent, key.session)) from None

    async def page(self, wanted: SessionFilter) -> Sequence[SessionSummary]:
        """Sessions by agent and name."""
        return await self._store.sessions(wanted, self._clock.wall())

    def _fresh(self, key: SessionKey, subject: str | None) -> StoredSession:
        now = self._clock.wall()
        return StoredSession(
            tenant=key.tenant,
            agent=key.agent,
            session=key.session,
            version=0,
            state=SessionState(),
            updated=now,
            created=now,
            incarnation=secrets.token_hex(4),
            subject=subject,
        )


def _of_person(stored: StoredSession, subject: str | None) -> StoredSession:
    if subject is None or stored.subject == subject:
        return stored
    if stored.subject is None:
        return replace(stored, subject=subject)
    raise SubjectMismatch(
        f"session {stored.session!r} belongs to another person than the one that the call names",
        next_step="use a session of this person",
        agent=stored.agent,
    )


def _check_precondition(key: SessionKey, found: StoredSession | None, change: Change) -> None:
    if change.if_match is None and change.if_none_match is None and change.version is None:
        raise PreconditionRequired(
            f"a change of session {key.session!r} must say which version it changes",
            next_step="send If-Match with the ETag that you read, If-None-Match: * for a new one, or `version`",
            agent=key.agent,
        )
    if change.if_match is not None and not rules.matches(change.if_match, found):
        raise _changed(key, found)
    if change.if_none_match is not None and rules.matches(change.if_none_match, found):
        raise _changed(key, found)
    current = 0 if found is None else found.version
    if change.version is not None and change.version != current:
        raise SessionConflict(
            f"session {key.session!r} is at version {current}, not {change.version}",
            next_step="read it again, and change what it holds then",
            agent=key.agent,
            errors=[{"session": key.session, "version": current}],
        )


def _changed(key: SessionKey, found: StoredSession | None) -> SessionChanged:
    version = 0 if found is None else found.version
    at = f"is at version {version}" if found is not None else "is not there"
    return SessionChanged(
        f"session {key.session!r} {at}, not at the one that the request names",
        next_step="read it again, and change what it holds then",
        agent=key.agent,
        errors=[{"session": key.session, "version": version} | ({} if found is None else {"etag": rules.etag(found)})],
    )
