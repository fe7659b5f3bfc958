"""The catalogue on the database: agents, their revisions and bundles, and batches on their way in.

Nothing of an agent is kept in memory. How a batch becomes live stands in `chimera.adapters.storage.batches`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Select, func, select, update

from chimera.adapters.storage.batches import NOBODY, BatchStatements, Staged
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.ecosystem import changed_since
from chimera.adapters.storage.facts import Unservable, facts_of
from chimera.adapters.storage.gateway import read_cell
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.resources import (
    agents_in_cells,
    agents_named,
    bounds,
    changed_agents,
    owned_agents,
    put_bounds,
)
from chimera.adapters.storage.schema.catalogue import agent, batch, bundle, cell, cell_bound, history, revision
from chimera.adapters.storage.schema.sides import GREEN, WITHDRAWN, side
from chimera.adapters.storage.sequence import hold_sequence, next_sequence, read_sequence
from chimera.adapters.storage.sides.rollback import Rollbacks
from chimera.adapters.storage.source_rows import pins_of
from chimera.agents.api import AgentSide
from chimera.agents.catalogue import Applied, HistoryEntry, OwnedAgent, Pin, StagedItem, compiler_id
from chimera.agents.compile import CanonicalDefinition, CompiledAgent, read_canonical
from chimera.events.model import Fact
from chimera.jaegis.ecosystem import LiveRevision
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease
from chimera.platform.cells import unservable_here
from chimera.platform.model import CellSpec, RuntimeClass

_MOST_HISTORY = 500
_APART = ("source", "compiler", "status", "subscriptions", "events_since")
"""Columns that are the catalogue's own, and shown to nobody."""
_LISTED = tuple(column for column in agent.c if column.name not in _APART)


class Catalogue:
    """The catalogue on one database."""

    def __init__(
        self,
        database: Database,
        *,
        max_hosts: int,
        clock: Clock | None = None,
        unservable: Unservable = unservable_here,
    ) -> None:
        """Compile the statements for `database`; `max_hosts` is the platform's bound of a shared cell.

        `unservable` says what this home can't run: one machine and a cluster differ in that.
        """
        self.unservable = unservable
        self._clock = clock or SystemClock()
        self._database = database
        self.max_hosts = max_hosts
        self._batches = BatchStatements(database, self._clock)
        self.rollbacks = Rollbacks(database, max_hosts=max_hosts, clock=self._clock, unservable=unservable)

    # -- applying --------------------------------------------------------------------------------------------------

    async def live_sources(self, tenant: str, sources: Sequence[str]) -> tuple[dict[str, str], int]:
        """Of these source digests, those that live agents were applied from, with the agents' names; the sequence."""
        return await self._database.read(lambda connection: _live_sources(connection, tenant, set(sources)))

    async def open_batch(self, tenant: str, key: str | None = None) -> str:
        """Open a batch, or find the one that was opened with the same idempotency key."""
        return await self._database.write(lambda connection: self._batches.open(connection, tenant, key))

    async def stage(self, tenant: str, batch_id: str, items: Sequence[StagedItem]) -> None:
        """Keep compiled definitions as revisions, and remember them and the faulty ones for the commit."""
        staged = await asyncio.to_thread(self._with_facts, items)
        await self._database.write(lambda connection: self._batches.stage(connection, tenant, batch_id, staged))

    async def commit(
        self,
        tenant: str,
        batch_id: str,
        *,
        keep_going: bool = False,
        expect: int | None = None,
        by: str | None = None,
        held: Lease | None = None,
    ) -> Applied:
        """Make the batch live in one transaction; a second commit of the same batch answers as the first did.

        Who commits under a lease shows it.
        """

        def job(connection: Connection) -> Applied:
            if held is not None:
                hold_sequence(connection)  # first, as the commit does
                check_lease(connection, held)
            return self._batches.commit(connection, tenant, batch_id, keep_going=keep_going, expect=expect, by=by)

        return await self._database.write(job)

    async def apply(
        self,
        tenant: str,
        items: Sequence[StagedItem],
        *,
        keep_going: bool,
        expect: int | None,
        by: str | None,
        owners: Mapping[str, str] = NOBODY,
        held: Lease | None = None,
    ) -> Applied:
        """A small batch from its opening to its commit in one transaction.

        `owners` are the resources that agents come from, by the agents' names; who applies under a lease shows it.
        """
        staged = await asyncio.to_thread(self._with_facts, items)
        batches = self._batches

        def job(connection: Connection) -> Applied:
            hold_sequence(
                connection
            )  # first, as every change does: two that lock in one order don't lock each other out
            if held is not None:
                check_lease(connection, held)
            batch_id = batches.open(connection, tenant, None)
            batches.stage(connection, tenant, batch_id, staged)
            return batches.commit(
                connection, tenant, batch_id, keep_going=keep_going, expect=expect, by=by, owners=owners
            )

        return await self._database.write(job)

    async def deliver(
        self,
        tenant: str,
        items: Sequence[StagedItem],
        removed: Sequence[str],
        *,
        by: str,
        change: str,
        owners: Mapping[str, str] = NOBODY,
        held: Lease | None,
        before: Callable[[Connection], None],
        after: Callable[[Connection], None],
    ) -> int:
        """The definitions and removals of `change` in one transaction, between `before` and `after`; the sequence.

        `owners` as for `apply`.
        """
        staged = await asyncio.to_thread(self._with_facts, items)
        batches = self._batches

        def job(connection: Connection) -> int:
            sequence = hold_sequence(connection)
            if held is not None:
                check_lease(connection, held)
            before(connection)
            if staged:
                batch_id = batches.open(connection, tenant, None)
                batches.stage(connection, tenant, batch_id, staged)
                sequence = batches.commit(connection, tenant, batch_id, by=by, owners=owners, change=change).sequence
            if removed:
                _, sequence = batches.delete_agents(connection, tenant, removed, by, owners, change=change)
            after(connection)
            return sequence

        return await self._database.write(job)

    async def put_bundle(self, tenant: str, digest: str, data: bytes, requirements: str | None) -> None:
        """Keep a source bundle; the same one twice is kept once, and counts as sent now."""
        row = {
            "tenant": tenant,
            "digest": digest,
            "data": data,
            "requirements": requirements,
            "created": self._clock.wall(),
        }
        statement = self._database.insert(bundle).values(row).on_conflict_do_nothing()
        again = update(bundle).where((bundle.c.tenant == tenant) & (bundle.c.digest == digest))
        told = {"digest": digest, "size": len(data)}

        def job(connection: Connection) -> None:
            if connection.execute(again.values(created=row["created"])).rowcount == 1:
                return
            if connection.execute(statement).rowcount != 1:
                return
            fact = Fact(
                id=new_id("evt"),
                type="bundle.stored",
                tenant=tenant,
                subject=f"bundles/{digest}",
                at=self._clock.wall(),
                data=told,
            )
            journal(connection).fact(fact)

        await self._database.write(job)

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        """A source bundle's bytes, or None where it isn't here."""
        query = select(bundle.c.data).where((bundle.c.tenant == tenant) & (bundle.c.digest == digest))
        return await self._scalar(query)

    async def bundle_with_requirements(self, requirements: str) -> bytes | None:
        """A bundle that holds the requirements file with this digest; which one doesn't matter."""
        query = select(bundle.c.data).where(bundle.c.requirements == requirements).limit(1)
        return await self._scalar(query)

    async def delete_agents(
        self,
        tenant: str,
        names: Sequence[str],
        *,
        by: str | None = None,
        owners: Mapping[str, str] = NOBODY,
        held: Lease | None = None,
    ) -> tuple[int, int]:
        """Delete live agents and their sessions in one transaction; how many there were, and the sequence.

        Revisions and metered use stay. `owners` and `held` as for `apply`.
        """

        def job(connection: Connection) -> tuple[int, int]:
            hold_sequence(connection)
            if held is not None:
                check_lease(connection, held)
            return self._batches.delete_agents(connection, tenant, names, by, owners)

        return await self._database.write(job)

    # -- for resources of a cluster ----------------------------------------------------------------------------------

    async def owned_agents(self, after: tuple[str, str], limit: int) -> list[OwnedAgent]:
        """A page of live agents that resources own, by tenant and name."""
        return await self._database.read(lambda connection: owned_agents(connection, after, limit))

    async def changed_agents(self, after: int, limit: int) -> list[OwnedAgent]:
        """Agents of anybody that were changed after a sequence, deleted ones too, in order."""
        return await self._database.read(lambda connection: changed_agents(connection, after, limit))

    async def agents_named(self, tenant: str, names: Sequence[str]) -> list[OwnedAgent]:
        """Live agents by name, whoever owns them."""
        return await self._database.read(lambda connection: agents_named(connection, tenant, names))

    async def agents_in_cells(self) -> dict[str, int]:
        """How many live agents belong to each cell."""
        return await self._database.read(agents_in_cells)

    async def bounds(self) -> dict[str, int]:
        """The least hosts that resources ask for, by cell."""
        return await self._database.read(bounds)

    async def put_bounds(self, wanted: Mapping[str, int], *, held: Lease) -> bool:
        """Keep these least hosts and no others; whether that changed anything, which the sequence then tells."""

        def job(connection: Connection) -> bool:
            sequence = hold_sequence(connection)
            check_lease(connection, held)
            changed = put_bounds(connection, wanted)
            if changed:
                next_sequence(connection, sequence)
            return changed

        return await self._database.write(job)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def agents(self, tenant: str, filters: Mapping[str, str], after: str, limit: int) -> list[dict[str, Any]]:
        """A page of live agents by name; filters: framework, domain, tag, cell, q (in name, description or tags)."""
        return await self._database.read(lambda connection: _agents(connection, tenant, filters, after, limit))

    async def agent(self, tenant: str, name: str) -> dict[str, Any] | None:
        """One live agent's row."""
        query = _listed().where(_is_live(tenant) & (agent.c.name == name))
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return None if row is None else _agent_row(row)

    async def sides(self, tenant: str, name: str) -> list[AgentSide]:
        """What an agent has beside its live revision, the newest first."""
        columns = [side.c[name] for name in AgentSide.__struct_fields__]
        query = select(*columns).where((side.c.tenant == tenant) & (side.c.agent == name))
        query = query.order_by(side.c.since.desc(), side.c.revision)
        found = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [AgentSide(**row) for row in found]

    async def canonical(self, tenant: str, digest: str) -> CanonicalDefinition | None:
        """A revision."""
        query = select(revision.c.canonical).where((revision.c.tenant == tenant) & (revision.c.digest == digest))
        data = await self._scalar(query)
        return None if data is None else read_canonical(data)

    async def compiled(self, tenant: str, digest: str) -> CompiledAgent | None:
        """A revision as an apply takes it, byte for byte as it is kept."""
        query = select(revision.c.canonical).where((revision.c.tenant == tenant) & (revision.c.digest == digest))
        data = await self._scalar(query)
        return None if data is None else CompiledAgent(digest=digest, canonical=data, value=read_canonical(data))

    async def compiled_many(self, tenant: str, digests: Sequence[str]) -> dict[str, CompiledAgent]:
        """Revisions by their digests; those that aren't kept are left out."""

        def job(connection: Connection) -> dict[str, CompiledAgent]:
            wanted = select(revision.c.digest, revision.c.canonical).where(
                (revision.c.tenant == tenant) & revision.c.digest.in_(list(digests))
            )
            return {
                digest: CompiledAgent(digest=digest, canonical=data, value=read_canonical(data))
                for digest, data in connection.execute(wanted)
            }

        return await self._database.read(job)

    async def history(self, tenant: str, name: str) -> list[HistoryEntry]:
        """The changes of an agent's live revision, the newest first (at most 500)."""
        same = (revision.c.tenant == history.c.tenant) & (revision.c.digest == history.c.revision)
        query = (
            select(
                history.c.sequence, history.c.revision, revision.c.version, history.c.at, history.c.by, history.c.change
            )
            .select_from(history.outerjoin(revision, same))
            .where((history.c.tenant == tenant) & (history.c.agent == name))
            .order_by(history.c.sequence.desc())
            .limit(_MOST_HISTORY)
        )

        def look(connection: Connection) -> list[HistoryEntry]:
            pins = pins_of(connection, tenant, name)
            rows = connection.execute(query).mappings()
            return [HistoryEntry(**row, pin=pins.get(row["sequence"])) for row in rows]

        return await self._database.read(look)

    async def pin(self, tenant: str, name: str, sequence: int) -> Pin | None:
        """The commit that this change of an agent came from, if it came from one."""
        return await self._database.read(lambda connection: pins_of(connection, tenant, name, sequence).get(sequence))

    async def changed_since(self, tenant: str, sequence: int, limit: int) -> list[LiveRevision]:
        """Agents of a tenant that were changed after a sequence, with their definitions, deleted ones too, in order."""
        return await self._database.read(lambda connection: changed_since(connection, tenant, sequence, limit))

    async def kept_cells(self) -> list[CellSpec]:
        """Cells of live agents, and of their other sides, with a minimum above zero."""
        return await self._database.read(_kept_cells)

    async def live_cells(self) -> list[CellSpec]:
        """Cells of live agents, and of their other sides, each with the highest minimum of these."""
        return await self._database.read(_live_cells)

    async def sequence(self) -> int:
        """A number that grows with every change of an agent, over all tenants."""
        return await self._database.read(read_sequence)

    async def status(self) -> dict[str, Any]:
        """Counts: live agents by framework, revisions, cells, open batches, sequence, size of the database in bytes."""
        return await self._database.read(self._status)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _with_facts(self, items: Sequence[StagedItem]) -> list[Staged]:
        return [
            (
                item,
                facts_of(item.compiled.value, max_hosts=self.max_hosts, unservable=self.unservable)
                if item.compiled
                else None,
            )
            for item in items
        ]

    async def _scalar(self, query: Select[bytes]) -> bytes | None:
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    def _status(self, connection: Connection) -> dict[str, Any]:
        live = agent.c.status == "live"
        by_framework = connection.execute(
            select(agent.c.framework, func.count()).where(live).group_by(agent.c.framework)
        ).all()
        unfinished = select(func.count()).select_from(batch).where(batch.c.result.is_(None))
        return {
            "agents": sum(count for _, count in by_framework),
            "agents_by_framework": {framework: count for framework, count in sorted(by_framework)},
            "revisions": connection.execute(select(func.count()).select_from(revision)).scalar(),
            "cells": connection.execute(select(func.count(agent.c.cell.distinct())).where(live)).scalar(),
            "open_batches": connection.execute(unfinished).scalar(),
            "sequence": read_sequence(connection),
            "database_bytes": self._database.size(connection),
        }


def _live_sources(connection: Connection, tenant: str, wanted: set[str]) -> tuple[dict[str, str], int]:
    query = select(agent.c.source, agent.c.name).where(_is_live(tenant) & (agent.c.compiler == compiler_id()))
    sequence = read_sequence(connection)
    return {source: name for source, name in connection.execute(query) if source in wanted}, sequence


def _agents(
    connection: Connection, tenant: str, filters: Mapping[str, str], after: str, limit: int
) -> list[dict[str, Any]]:
    where = _is_live(tenant) & (agent.c.name > after)
    if "framework" in filters:
        where &= agent.c.framework == filters["framework"].lower()
    if "cell" in filters:
        where &= agent.c.cell == filters["cell"]
    if "domain" in filters:
        where &= _has_tag(f"domain:{filters['domain']}")
    if "tag" in filters:
        where &= _has_tag(filters["tag"])
    if "q" in filters:
        sought = filters["q"]
        where &= (
            agent.c.name.icontains(sought, autoescape=True)
            | agent.c.description.icontains(sought, autoescape=True)
            | agent.c.tags.icontains(sought, autoescape=True)
        )
    query = _listed().where(where).order_by(agent.c.name).limit(limit)
    return [_agent_row(row) for row in connection.execute(query).mappings()]


def _inhabitants() -> Any:
    """The cells of all revisions that may get calls, live or beside, each with its minimum."""
    live = select(agent.c.cell, agent.c.min_instances).where((agent.c.status == "live") & agent.c.unservable.is_(None))
    warm = (side.c.role != WITHDRAWN) & side.c.unservable.is_(None)
    return live.union_all(select(side.c.cell, side.c.min_instances).where(warm)).subquery("inhabitant")


def _kept_cells(connection: Connection) -> list[CellSpec]:
    asked = select(cell_bound.c.cell).where(cell_bound.c.least > 0)
    there = _inhabitants()
    query = select(there.c.cell).where((there.c.min_instances > 0) | there.c.cell.in_(asked)).distinct()
    specs = [read_cell(connection, name) for name in connection.execute(query).scalars().all()]
    return [spec for spec in specs if spec is not None]


def _live_cells(connection: Connection) -> list[CellSpec]:
    asked = bounds(connection)
    there = _inhabitants()
    query = (
        select(cell.c.id, cell.c.runtime_class, cell.c.target, cell.c.idle_timeout, cell.c.max_hosts)
        .add_columns(func.max(there.c.min_instances).label("least"))
        .join(there, there.c.cell == cell.c.id)
        .group_by(cell.c.id, cell.c.runtime_class, cell.c.target, cell.c.idle_timeout, cell.c.max_hosts)
        .order_by(cell.c.id)
    )
    return [
        CellSpec(
            cell=row.id,
            runtime_class=msgspec.json.decode(row.runtime_class, type=RuntimeClass),
            min_hosts=max(row.least, asked.get(row.id, 0)),
            max_hosts=row.max_hosts,
            target=row.target,
            idle_timeout=row.idle_timeout,
        )
        for row in connection.execute(query)
    ]


def _listed() -> Select[Any]:
    """Agents as they are shown, each with its green side."""
    same = (side.c.tenant == agent.c.tenant) & (side.c.agent == agent.c.name) & (side.c.role == GREEN)
    columns = side.c.revision.label("green"), func.coalesce(side.c.weight, 0).label("weight")
    return select(*_LISTED, *columns).select_from(agent.outerjoin(side, same))


def _is_live(tenant: str) -> Any:
    return (agent.c.tenant == tenant) & (agent.c.status == "live")


def _has_tag(tag: str) -> Any:
    return ("\n" + agent.c.tags + "\n").contains(f"\n{tag}\n", autoescape=True)


def _agent_row(row: RowMapping) -> dict[str, Any]:
    found = dict(row)
    found["tags"] = found["tags"].split("\n") if found["tags"] else []
    found["protocols"] = found["protocols"].split()
    return found
