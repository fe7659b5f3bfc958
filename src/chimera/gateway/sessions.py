"""Sessions: what a conversation carries from call to call, loaded before and saved after the call, by version.

Two calls of one session at once both start from the same version; the second to save is told that the session has
changed, and nothing of the first is lost.
"""

import re

import msgspec

from chimera.gateway.errors import InvalidRequest, PayloadTooLarge
from chimera.gateway.ports import SessionStore, StoredSession
from chimera.kernel.clock import Clock
from chimera_host.contract.call import SessionState

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

_encoder = msgspec.json.Encoder()


class Sessions:
    """Loads and saves sessions within a size."""

    def __init__(self, store: SessionStore, clock: Clock, *, most_bytes: int) -> None:
        """Keep sessions of at most `most_bytes` in `store`."""
        self._store = store
        self._clock = clock
        self._most = most_bytes

    async def open(self, tenant: str, agent: str, session: str) -> StoredSession:
        """The session as it stands; an empty one of version 0 where there is none yet."""
        if SESSION_ID.fullmatch(session) is None:
            raise InvalidRequest(
                f"{session[:200]!r} is no session id",
                next_step="use 1 to 128 letters, digits and . _ : - and begin with a letter or digit",
            )
        stored = await self._store.load_session(tenant, agent, session)
        if stored is not None:
            return stored
        return StoredSession(
            tenant=tenant, agent=agent, session=session, version=0, state=SessionState(), updated=self._clock.wall()
        )

    async def save(self, before: StoredSession, state: SessionState) -> None:
        """Commit `state` as the version after `before`."""
        if len(_encoder.encode(state)) > self._most:
            raise PayloadTooLarge(
                f"session {before.session} would hold more than {self._most} bytes",
                next_step="start a new session",
                agent=before.agent,
            )
        after = msgspec.structs.replace(before, version=before.version + 1, state=state, updated=self._clock.wall())
        await self._store.save_session(after)

    async def find(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """The session, if there is one."""
        return await self._store.load_session(tenant, agent, session)

    async def delete(self, tenant: str, agent: str, session: str) -> bool:
        """Erase it; False where there was none."""
        return await self._store.delete_session(tenant, agent, session)
