"""People: all that is kept of a person is found, exported and erased, over all agents of a tenant.

Whoever calls an agent for a person says so (`subject`); the session, its runs and all that hangs on them are then that
person's. Erasing leaves an entry in the audit log, without the content and without the person's name.

What was in flight when it was erased may be saved a moment later, as if it had begun afterwards: a conversation that
goes on is not stopped. Erase once more when it has ended.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from chimera.gateway.state import rules
from chimera.gateway.state.model import SessionKey, SubjectCounts
from chimera.gateway.state.ports import Record, SessionFilter, SessionStore, SubjectPart, SubjectStore
from chimera.kernel.clock import Clock

PAGE = 100
BATCH = 50
"""Sessions erased in one transaction: other writers wait no longer than that takes."""


class Subjects:
    """Finds, exports and erases."""

    def __init__(
        self,
        store: SubjectStore,
        sessions: SessionStore,
        clock: Clock,
        parts: Mapping[str, SubjectPart] | None = None,
    ) -> None:
        """Look in `store` and in the other `parts` (by the name of a count) that keep something of people."""
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._parts = dict(parts or {})

    async def count(self, tenant: str, subject: str) -> SubjectCounts:
        """How much is kept."""
        rules.check_subject(subject)
        counts = await self._store.count(tenant, subject)
        others = {name: await part.count(tenant, subject) for name, part in self._parts.items()}
        return msgspec.structs.replace(counts, **others)

    async def session(self, key: SessionKey, by: str) -> list[Record]:
        """All that is kept of one session; the audit log says that it was asked for."""
        await self._store.told_session(key, by)
        return list(await self._store.session_records(key))

    async def export(self, tenant: str, subject: str, by: str) -> AsyncIterator[Record]:
        """Everything, record by record; the audit log says first that it was asked for."""
        await self._store.told("export", tenant, subject, by, await self.count(tenant, subject))
        after = ("", "")
        # At the beginning of time nothing has ended: what isn't removed yet is kept.
        while page := await self._sessions.sessions(
            SessionFilter(tenant=tenant, subject=subject, after=after, limit=PAGE), now=0.0
        ):
            for one in page:
                key = SessionKey(tenant=tenant, agent=one.agent, session=one.session)
                for record in await self._store.session_records(key):
                    yield record
            after = (page[-1].agent, page[-1].session)
        last = ""
        while names := await self._store.runs(tenant, subject, last, PAGE):
            for name in names:
                for record in await self._store.run_records(tenant, name):
                    yield record
            last = names[-1]
        for part in self._parts.values():
            last = ""
            while records := await part.records(tenant, subject, last, PAGE):
                for record in records:
                    yield record
                last = str(records[-1]["id"])

    async def erase(self, tenant: str, subject: str, by: str) -> SubjectCounts:
        """Remove everything, in batches; what that was."""
        rules.check_subject(subject)
        total = SubjectCounts()
        while True:
            erased = await self._store.erase(tenant, subject, BATCH)
            if erased.sessions == 0 and erased.runs == 0:
                break
            total = _sum(total, erased)
        others: dict[str, Any] = {}
        for name, part in self._parts.items():
            others[name] = 0
            while count := await part.erase(tenant, subject, BATCH):
                others[name] += count
        total = msgspec.structs.replace(total, **others)
        await self._store.told("erase", tenant, subject, by, total)
        return total


def _sum(one: SubjectCounts, other: SubjectCounts) -> SubjectCounts:
    names = SubjectCounts.__struct_fields__
    return SubjectCounts(**{name: getattr(one, name) + getattr(other, name) for name in names})
