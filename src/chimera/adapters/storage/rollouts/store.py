"""The ports `RolloutStore` and `Definitions` on the database.

A pass of the leader is one transaction, which begins with the check of its lease. What people want is written by
another, to columns of its own; it looks at the state under the row's lock, so that nobody aborts what is being made
live.
"""

import asyncio
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Select, bindparam, func, insert, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.removing import is_one_of
from chimera.adapters.storage.rollouts.rows import (
    PEOPLES,
    member_row,
    read_member,
    read_summary,
    rollout_row,
    tell,
)
from chimera.adapters.storage.schema.catalogue import revision
from chimera.adapters.storage.schema.quota import usage
from chimera.adapters.storage.schema.rollouts import rollout as table
from chimera.adapters.storage.schema.rollouts import rollout_member
from chimera.adapters.storage.sequence import hold_sequence
from chimera.agents.compile import CanonicalDefinition, read_canonical
from chimera.delivery.rollout.errors import RolloutConflict, RolloutState, UnknownRollout
from chimera.delivery.rollout.model import LEADER, OVER, Member, Rollout, Summary, Wanted, counted
from chimera.delivery.rollout.plan import Event, check_wanted
from chimera.kernel.leases import Lease

_CHUNK = 500
_RECENT = 7
"""Days of use by which an agent counts as busy."""
_TOLD = {"run": "asked-to-run", "pause": "asked-to-pause", "abort": "asked-to-abort"}
_MOVING = ("phase", "step", "since", "doubted", "strength", "reason", "evidence")


class StoredRollouts:
    """Rollouts on one database."""

    def __init__(self, database: Database) -> None:
        """Keep them in `database`."""
        self._database = database
        m = rollout_member.c
        its = (m.tenant == bindparam("the_tenant")) & (m.rollout == bindparam("the_rollout"))
        self._put_member = database.prepared_insert(rollout_member)
        self._move_member = database.prepared(
            update(rollout_member)
            .where(its & (m.agent == bindparam("the_agent")))
            .values({name: bindparam(f"new_{name}") for name in _MOVING})
        )

    async def now(self) -> float:
        """See `RolloutStore`."""
        return await self._database.read(self._database.now)

    async def create(self, rollout: Rollout, members: Sequence[Member], *, held: Lease | None = None) -> Rollout:
        """See `RolloutStore`."""
        rows = await asyncio.to_thread(
            lambda: [member_row(rollout, place, member) for place, member in enumerate(members)]
        )

        def job(connection: Connection) -> Rollout:
            hold_sequence(connection)  # of two who begin with the same agents, one sees the other
            if held is not None:
                check_lease(connection, held)
            if (found := _begun_before(connection, rollout)) is not None:
                return found
            _refuse_taken(connection, rollout, members)
            summary = counted(rollout, members)
            connection.execute(insert(table).values(rollout_row(summary)))
            self._put_member.run_many(connection, rows)
            tell(connection, summary, "started", by=rollout.by, at=rollout.created)
            return rollout

        return await self._database.write(job)

    async def active(self) -> Sequence[Rollout]:
        """See `RolloutStore`."""
        query = select(table).where(table.c.ended.is_(None)).order_by(table.c.created)
        return [one.rollout for one in await self._summaries(query)]

    async def get(self, tenant: str, rollout: str) -> Summary:
        """See `RolloutStore`."""
        return await self._database.read(lambda connection: _read(connection, tenant, rollout))

    async def of_change(self, tenant: str, change: str, content: str) -> Summary | None:
        """See `RolloutStore`."""
        c = table.c
        its = (c.tenant == tenant) & (c.change == change) & (c.content == content)
        found = await self._summaries(select(table).where(its))
        return found[0] if found else None

    async def of_key(self, tenant: str, key: str) -> Summary | None:
        """See `RolloutStore`."""
        its = (table.c.tenant == tenant) & (table.c.key == key)
        found = await self._summaries(select(table).where(its))
        return found[0] if found else None

    async def of_resources(self, resources: Sequence[tuple[str, str]]) -> Sequence[Summary]:
        """See `RolloutStore`."""
        if not resources:
            return []
        c = table.c

        def look(connection: Connection) -> Sequence[Summary]:
            these = is_one_of(connection, (c.tenant, c.resource), resources)
            newest = select(func.max(c.id)).where(these).group_by(c.tenant, c.resource)
            return [read_summary(row) for row in connection.execute(select(table).where(c.id.in_(newest)))]

        return await self._database.read(look)

    async def counts(self) -> dict[str, int]:
        """See `RolloutStore`."""
        query = select(table.c.state, func.count()).group_by(table.c.state)
        return {row[0]: row[1] for row in await self._rows(query)}

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Summary]:
        """See `RolloutStore`."""
        query = select(table).where(table.c.tenant == tenant).order_by(table.c.id.desc()).limit(limit)
        return await self._summaries(query.where(table.c.id < after) if after else query)

    async def members(self, tenant: str, rollout: str, after: int = -1, limit: int | None = None) -> Sequence[Member]:
        """See `RolloutStore`."""
        m = rollout_member.c
        its = (m.tenant == tenant) & (m.rollout == rollout) & (m.place > after)
        query = select(rollout_member).where(its).order_by(m.place)
        if limit is not None:
            query = query.limit(limit)
        rows = await self._rows(query)
        if len(rows) < _CHUNK:
            return [read_member(row) for row in rows]
        return await asyncio.to_thread(lambda: [read_member(row) for row in rows])

    async def save(
        self, rollout: Rollout, changed: Sequence[Member], *, told: Sequence[Event], lost: Sequence[Member], held: Lease
    ) -> None:
        """See `RolloutStore`."""
        rows = [_moved_row(rollout, member) for member in changed]

        def job(connection: Connection) -> None:
            check_lease(connection, held)
            now = self._database.now(connection)
            stored = _read(connection, rollout.tenant, rollout.id, lock=True).rollout
            check_wanted(rollout, stored)
            self._move_member.run_many(connection, rows)
            kept = {name: getattr(stored, name) for name in PEOPLES}
            made = replace(rollout, **kept, updated=now, version=stored.version + 1)
            summary = _count(connection, made)
            its = (table.c.tenant == rollout.tenant) & (table.c.id == rollout.id)
            connection.execute(update(table).where(its).values(rollout_row(summary)))
            for event in told:
                tell(connection, summary, event, by=LEADER, at=now)
            if lost:
                tell(connection, summary, "taken-back", by=LEADER, at=now, lost=lost)

        await self._database.write(job)

    async def ask(
        self, tenant: str, rollout: str, wanted: Wanted, *, by: str, reason: str, held: Lease | None = None
    ) -> Summary:
        """See `RolloutStore`."""

        def job(connection: Connection) -> Summary:
            if held is not None:
                check_lease(connection, held)
            found = _read(connection, tenant, rollout, lock=True)
            one = found.rollout
            if one.state not in ("running", "paused"):
                raise RolloutState(
                    f"rollout {rollout} is {one.state} already",
                    next_step="see `chimera rollout show`; `chimera rollback AGENT` takes back what is live",
                )
            if one.wanted == "abort" and wanted != "abort":
                raise RolloutState(f"rollout {rollout} is being aborted", next_step="wait for its end")
            return _ask(connection, found, wanted, by, reason, self._database.now(connection))

        return await self._database.write(job)

    # -- Definitions -----------------------------------------------------------------------------------------------

    async def definitions(self, tenant: str, digests: Sequence[str]) -> Mapping[str, CanonicalDefinition]:
        """See `Definitions`."""
        found: dict[str, CanonicalDefinition] = {}
        r = revision.c
        for start in range(0, len(digests), _CHUNK):
            some = (r.tenant == tenant) & r.digest.in_(digests[start : start + _CHUNK])
            rows = await self._rows(select(r.digest, r.canonical).where(some))
            found.update(await asyncio.to_thread(_canonicals, rows))
        return found

    async def calls(self, tenant: str, agents: Sequence[str]) -> Mapping[str, int]:
        """See `Definitions`."""
        if not agents:
            return {}
        u = usage.c

        def look(connection: Connection) -> dict[str, int]:
            today = datetime.datetime.fromtimestamp(self._database.now(connection), datetime.UTC).date()
            since = (today - datetime.timedelta(days=_RECENT)).isoformat()
            these = is_one_of(connection, (u.tenant, u.agent), [(tenant, agent) for agent in agents])
            query = select(u.agent, func.sum(u.calls)).where(these & (u.day >= since)).group_by(u.agent)
            return {agent: int(calls) for agent, calls in connection.execute(query)}

        return await self._database.read(look)

    async def _rows(self, query: Select[Any]) -> Sequence[Any]:
        return await self._database.read(lambda connection: connection.execute(query).all())

    async def _summaries(self, query: Select[Any]) -> Sequence[Summary]:
        return [read_summary(row) for row in await self._rows(query)]


def abort_of_change(
    connection: Connection, tenant: str, change: str, *, by: str, reason: str, now: float
) -> Sequence[Summary]:
    """Have the rollouts of a change end, in a transaction of somebody else's; those that are being made live already.

    Call it before anything is told: whoever saves a rollout holds its row, and then the journal.
    """
    its = (table.c.tenant == tenant) & (table.c.change == change) & table.c.ended.is_(None)
    found = [read_summary(row) for row in connection.execute(select(table).where(its).with_for_update())]
    for one in found:
        if one.rollout.state in ("running", "paused") and one.rollout.wanted != "abort":
            _ask(connection, one, "abort", by, reason, now)
    return [one for one in found if one.rollout.state == "promoting"]


def _ask(connection: Connection, found: Summary, wanted: Wanted, by: str, reason: str, now: float) -> Summary:
    one = found.rollout
    made = replace(one, wanted=wanted, asked_by=by, asked=reason, updated=now, version=one.version + 1)
    said = {name: getattr(made, name) for name in (*PEOPLES, "updated", "version")}
    its = (table.c.tenant == one.tenant) & (table.c.id == one.id)
    connection.execute(update(table).where(its).values(said))
    summary = Summary(rollout=made, phases=found.phases, strengths=found.strengths)
    tell(connection, summary, _TOLD[wanted], by=by, at=now)
    return summary


def _canonicals(rows: Sequence[Any]) -> dict[str, CanonicalDefinition]:
    return {row.digest: read_canonical(row.canonical) for row in rows}


def _read(connection: Connection, tenant: str, id_: str, *, lock: bool = False) -> Summary:
    query = select(table).where((table.c.tenant == tenant) & (table.c.id == id_))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownRollout(f"there is no rollout {id_!r}", next_step="list them with `chimera rollout list`")
    return read_summary(row)


def _begun_before(connection: Connection, wanted: Rollout) -> Rollout | None:
    c = table.c
    query = select(table).where(c.tenant == wanted.tenant)
    if wanted.change is not None:
        query = query.where((c.change == wanted.change) & (c.content == wanted.content))
    elif wanted.key is not None:
        query = query.where(c.key == wanted.key)
    elif wanted.resource is not None:
        its = (c.resource == wanted.resource) & (c.content == wanted.content)
        query = query.where(its & (c.attempt == wanted.attempt) & c.ended.is_(None))
    else:
        return None
    row = connection.execute(query).first()
    return None if row is None else read_summary(row).rollout


def _refuse_taken(connection: Connection, rollout: Rollout, members: Sequence[Member]) -> None:
    m = rollout_member.c
    both = (table.c.tenant == m.tenant) & (table.c.id == m.rollout)
    names = is_one_of(connection, (m.tenant, m.agent), [(rollout.tenant, one.agent) for one in members])
    query = select(m.agent, m.rollout).select_from(rollout_member.join(table, both))
    taken = connection.execute(query.where(table.c.ended.is_(None) & m.phase.not_in(sorted(OVER)) & names)).first()
    if taken is not None:
        raise RolloutConflict(f"rollout {taken.rollout} has {taken.agent!r}", next_step="wait for it, or abort it")


def _count(connection: Connection, rollout: Rollout) -> Summary:
    m = rollout_member.c
    its = (m.tenant == rollout.tenant) & (m.rollout == rollout.id)
    query = select(m.phase, m.strength, func.count()).where(its).group_by(m.phase, m.strength)
    phases, strengths = Counter[str](), Counter[str]()
    for phase, strength, count in connection.execute(query):
        phases[phase] += count
        if strength is not None:
            strengths[strength] += count
    return Summary(rollout=rollout, phases=dict(phases), strengths=dict(strengths))


def _moved_row(rollout: Rollout, member: Member) -> dict[str, Any]:
    row = member_row(rollout, 0, member)
    key = {"the_tenant": rollout.tenant, "the_rollout": rollout.id, "the_agent": member.agent}
    return {**key, **{f"new_{name}": row[name] for name in _MOVING}}
