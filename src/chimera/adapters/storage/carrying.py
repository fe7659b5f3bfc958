"""Which changes and rollouts carry agents of a cluster's resources, and what became of those that did.

Both are read for many agents at once: what is under way of all tenants, and what has ended of some agents.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from chimera.adapters.storage.changes.rows import header_of
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import is_one_of
from chimera.adapters.storage.schema.delivery import change, change_item
from chimera.adapters.storage.schema.rollouts import rollout, rollout_member
from chimera.delivery.carrying import Carried
from chimera.delivery.model import Change

_ITEM = (
    change_item.c.tenant,
    change_item.c.change,
    *(change_item.c[n] for n in ("agent", "owner", "revision", "before")),
)
_MEMBER = tuple(rollout_member.c[name] for name in ("tenant", "agent", "owner", "revision", "before", "phase"))
_ROLLOUT = tuple(rollout.c[name] for name in ("id", "state", "reason", "wanted", "resource", "attempt"))


class StoredCarriers:
    """What carries agents that come from resources, on one database; changes are those that `author` opened."""

    def __init__(self, database: Database, author: str) -> None:
        """Read `database`."""
        self._database = database
        self._author = author

    async def under_way(self) -> list[Carried]:
        """All that isn't over, of all tenants."""

        def look(connection: Connection) -> list[Carried]:
            c = change.c
            headers = self._headers(connection, c.ended.is_(None))
            found = _items(connection, headers)
            query = _members().where(rollout.c.ended.is_(None))
            return found + [_member(row) for row in connection.execute(query)]

        return await self._database.read(look)

    async def marks(self) -> frozenset[tuple[str, ...]]:
        """What is another whenever something of what is under way is: of each its tenant and id first."""
        c, r = change.c, rollout.c
        changes = select(c.tenant, c.id, c.version).where((c.author == self._author) & c.ended.is_(None))
        rollouts = select(r.tenant, r.id, r.state, r.wanted).where(r.resource.is_not(None) & r.ended.is_(None))

        def look(connection: Connection) -> frozenset[tuple[str, ...]]:
            found = [*connection.execute(changes).all(), *connection.execute(rollouts).all()]
            return frozenset(tuple(str(value) for value in row) for row in found)

        return await self._database.read(look)

    async def ended(self, tenant: str, agents: Sequence[str]) -> list[Carried]:
        """All that is over of these agents, the newest first."""
        if not agents:
            return []
        keys = [(tenant, name) for name in agents]

        def look(connection: Connection) -> list[Carried]:
            i, m = change_item.c, rollout_member.c
            named = is_one_of(connection, (i.tenant, i.agent), keys) & i.owner.is_not(None)
            ids = select(i.change).where(named).distinct()
            headers = self._headers(connection, (change.c.tenant == tenant) & change.c.id.in_(ids), over=True)
            found = _items(connection, headers, named)
            names = is_one_of(connection, (m.tenant, m.agent), keys)
            query = _members().where(names & rollout.c.ended.is_not(None))
            found += [_member(row) for row in connection.execute(query)]
            return sorted(found, key=lambda one: (one.at, one.id), reverse=True)

        return await self._database.read(look)

    def _headers(self, connection: Connection, where: Any, *, over: bool = False) -> dict[tuple[str, str], Change]:
        mine = (change.c.author == self._author) & where
        if over:
            mine &= change.c.ended.is_not(None)
        rows = connection.execute(select(change).where(mine))
        return {(row.tenant, row.id): header_of(row) for row in rows}


def _items(connection: Connection, headers: dict[tuple[str, str], Change], where: Any = None) -> list[Carried]:
    if not headers:
        return []
    i = change_item.c
    query = select(*_ITEM).where(is_one_of(connection, (i.tenant, i.change), list(headers)) & i.owner.is_not(None))
    rows = connection.execute(query if where is None else query.where(where))
    found = []
    for row in rows:
        header = headers[row.tenant, row.change]
        found.append(
            Carried(
                tenant=row.tenant,
                agent=row.agent,
                owner=row.owner,
                revision=row.revision,
                before=row.before,
                way="change",
                id=header.id,
                state=header.state,
                at=header.since,
                reason=header.reason,
                wanted=header.wanted,
            )
        )
    return found


def _members() -> Any:
    """Members of rollouts that a resource began; those of a change are the change's."""
    m = rollout_member.c
    both = (rollout.c.tenant == m.tenant) & (rollout.c.id == m.rollout)
    query = select(*_MEMBER, *_ROLLOUT, rollout.c.created.label("at")).select_from(rollout_member.join(rollout, both))
    return query.where(rollout.c.resource.is_not(None) & m.owner.is_not(None))


def _member(row: Any) -> Carried:
    return Carried(way="rollout", **row._mapping)
