"""What the gateway reads and writes: routes, revisions (the ports of `chimera.gateway.ports`), and sessions.

Look-ups by key take 20 to 60 µs with what they decode on SQLite, and one round trip on PostgreSQL.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, Row, bindparam, exists, func, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.removing import is_one_of
from chimera.adapters.storage.schema.catalogue import agent, bundle, cell, cell_bound, revision
from chimera.adapters.storage.schema.sides import GREEN, WITHDRAWN, side
from chimera.adapters.storage.sequence import read_sequence
from chimera.adapters.storage.state.sessions import SessionStorage
from chimera.agents.subscriptions import TakenEvents
from chimera.gateway.ports import NewAgents
from chimera.platform.model import WHOLE_WEIGHT, CellSpec, Route, RuntimeClass, Withdrawn

_DESCRIPTION = 200


class _Canonical(Struct, frozen=True):
    """The part of a canonical form that hosts get; it is passed on as it is written there."""

    agent: msgspec.Raw


_SUBSCRIPTIONS = msgspec.json.Decoder(tuple[TakenEvents, ...])
_CANONICAL = msgspec.json.Decoder(_Canonical)


class GatewayStorage(SessionStorage):
    """The ports of routes and revisions on one database, and the sessions."""

    def __init__(self, database: Database) -> None:
        """Compile the statements for `database`."""
        super().__init__(database)
        self._document = database.prepared(
            select(revision.c.canonical).where(revision.c.digest == bindparam("the_digest")).limit(1)
        )
        self._bundle = database.prepared(
            select(bundle.c.data).where(bundle.c.digest == bindparam("the_digest")).limit(1)
        )

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        """See `RouteSource`."""
        return await self._database.read(lambda connection: _changed_routes(connection, after, limit))

    async def new_agents(self, seen: int, known: Mapping[tuple[str, str], Route]) -> NewAgents:
        """See `RouteSource`."""
        return await self._database.read(lambda connection: _new_agents(connection, seen, known))

    async def cell(self, cell_id: str) -> CellSpec | None:
        """See `RouteSource`."""
        return await self._database.read(lambda connection: read_cell(connection, cell_id))

    async def document(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        row = await self._database.read(
            lambda connection: self._document.one(connection, the_digest=digest), quick=True
        )
        return None if row is None else bytes(_CANONICAL.decode(row[0]).agent)

    async def bundle(self, digest: str) -> bytes | None:
        """See `RevisionSource`."""
        row = await self._database.read(lambda connection: self._bundle.one(connection, the_digest=digest))
        return None if row is None else row[0]


def _changed_routes(connection: Connection, after: int, limit: int) -> list[Route]:
    query = select(agent).where(agent.c.sequence > after).order_by(agent.c.sequence).limit(limit)
    rows = connection.execute(query).all()
    if not rows:
        return []
    beside: dict[tuple[str, str], list[Row[Any]]] = {}
    of_page = agent.c.sequence.between(rows[0].sequence, rows[-1].sequence)
    same = (side.c.tenant == agent.c.tenant) & (side.c.agent == agent.c.name)
    for row in connection.execute(select(side).join(agent, same).where(of_page).order_by(side.c.since.desc())):
        beside.setdefault((row.tenant, row.agent), []).append(row)
    return [_route(row, beside.get((row.tenant, row.name), ())) for row in rows]


def _route(row: Row[Any], beside: Sequence[Row[Any]]) -> Route:
    return Route(
        **_common(row),
        agent=row.name,
        sequence=row.sequence,
        status=row.status,
        tags=_tags(row),
        subscriptions=() if row.subscriptions is None else _SUBSCRIPTIONS.decode(row.subscriptions),
        events_since=row.events_since or 0,
        others=tuple(_beside(other, row) for other in beside if other.role != WITHDRAWN),
        withdrawn=_withdrawn(beside, row.revision if row.status == "live" else None),
    )


def _new_agents(connection: Connection, seen: int, known: Mapping[tuple[str, str], Route]) -> NewAgents:
    sequence = read_sequence(connection)
    if sequence == seen:
        return NewAgents(sequence=sequence)
    same = (agent.c.tenant == side.c.tenant) & (agent.c.name == side.c.agent)
    query = select(side.c.tenant, side.c.agent, side.c.revision, side.c.rollout).where(side.c.role == GREEN)
    query = query.where(~exists().where(same, agent.c.status == "live"))
    there = {(row.tenant, row.agent): (row.revision, row.rollout) for row in connection.execute(query)}
    before = {key: (one.revision, one.rollout) for key, one in known.items()}
    fresh = [key for key, now in there.items() if before.get(key) != now]
    gone = [key for key in known if key not in there]
    if not fresh and not gone:
        return NewAgents(sequence=sequence)
    beside: dict[tuple[str, str], list[Row[Any]]] = {}
    its = select(side).where(is_one_of(connection, (side.c.tenant, side.c.agent), [*fresh, *gone]))
    for row in connection.execute(its.order_by(side.c.since.desc())):
        beside.setdefault((row.tenant, row.agent), []).append(row)
    changed = [_alone(beside[key], sequence) for key in fresh]
    for key in gone:
        withdrawn = _withdrawn(beside.get(key, ()), None)
        changed.append(replace(known[key], status="deleted", sequence=sequence, withdrawn=withdrawn))
    return NewAgents(sequence=sequence, changed=tuple(changed))


def _alone(beside: Sequence[Row[Any]], sequence: int) -> Route:
    """The green side of an agent that has no live one: it gets all calls, whatever its weight. No event starts it."""
    green = next(row for row in beside if row.role == GREEN)
    return Route(
        **_common(green),
        agent=green.agent,
        sequence=sequence,
        tags=_tags(green),
        side="green",
        weight=WHOLE_WEIGHT,
        rollout=green.rollout,
        withdrawn=_withdrawn(beside, green.revision),
    )


def _tags(row: Row[Any]) -> tuple[str, ...]:
    return tuple(row.tags.split("\n")) if row.tags else ()


def _withdrawn(beside: Sequence[Row[Any]], served: str | None) -> tuple[Withdrawn, ...]:
    """Revisions that were taken back, without the one that is `served` again."""
    return tuple(
        Withdrawn(revision=other.revision, cancelled=bool(other.cancelled))
        for other in beside
        if other.role == WITHDRAWN and other.revision != served
    )


def _beside(other: Row[Any], live: Row[Any]) -> Route:
    """A revision beside the live one. Events start agents by what the live one takes."""
    return Route(
        **_common(other),
        agent=live.name,
        sequence=live.sequence,
        side=other.role,
        weight=other.weight,
        rollout=other.rollout,
        until=other.until,
    )


def _common(row: Row[Any]) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "revision": row.revision,
        "cell": row.cell,
        "framework": row.framework,
        "concurrency": row.concurrency,
        "protocols": tuple(row.protocols.split()),
        "model": row.model,
        "description": row.description[:_DESCRIPTION],
        "max_tokens_per_day": row.tokens_per_day,
        "max_usd_per_day": row.usd_per_day,
        "calls_per_minute": row.calls_per_minute,
        "unservable": row.unservable,
    }


def read_cell(connection: Connection, cell_id: str) -> CellSpec | None:
    """A cell as desired: its class, and the highest minimum of the agents in it or what a person asked for."""
    row = connection.execute(select(cell).where(cell.c.id == cell_id)).one_or_none()
    if row is None:
        return None
    live = (agent.c.cell == cell_id) & (agent.c.status == "live")
    least = connection.execute(select(func.max(agent.c.min_instances)).where(live)).scalar()
    warm = (side.c.cell == cell_id) & (side.c.role != WITHDRAWN)
    beside = connection.execute(select(func.max(side.c.min_instances)).where(warm)).scalar()
    asked = connection.execute(select(cell_bound.c.least).where(cell_bound.c.cell == cell_id)).scalar()
    return CellSpec(
        cell=cell_id,
        runtime_class=msgspec.json.decode(row.runtime_class, type=RuntimeClass),
        min_hosts=max(least or 0, beside or 0, asked or 0),
        max_hosts=row.max_hosts,
        target=row.target,
        idle_timeout=row.idle_timeout,
    )
