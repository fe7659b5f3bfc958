"""What the control plane reads and writes: agents, their revisions, bundles, and batches on their way in.

A batch is applied in two steps. First its definitions arrive in chunks and become revisions; a revision that nothing
points to changes nothing, so these are plain inserts. Then one transaction points every agent of the batch to its new
revision. Whatever is killed in between, an agent points to a whole revision, and either all of a batch is live or none.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Engine, RowMapping, delete, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from chimera.adapters.storage.gateway import read_cell
from chimera.adapters.storage.schema import agent, batch, batch_item, bundle, cell, counter, revision
from chimera.adapters.storage.writer import Writer
from chimera.agents.compile import CanonicalDefinition, CompiledAgent, read_canonical
from chimera.kernel.ids import new_id
from chimera.platform.cells import cell_spec, unservable_here
from chimera.platform.model import CellSpec
from chimera_host.contract.problem import ProblemError

BATCH_LIFE = 3600.0
_PAGE = 500


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


class StagedItem(Struct, frozen=True, kw_only=True):
    """One definition of a batch: compiled, or the problem that it has. `source` is the digest of its source text."""

    position: int
    source: str
    file: str | None = None
    compiled: CompiledAgent | None = None
    problem: bytes | None = None


class Applied(Struct, frozen=True, kw_only=True):
    """What a commit changed. `refused` counts definitions left out because of their faults."""

    created: int
    updated: int
    unchanged: int
    refused: int
    sequence: int


class Catalogue:
    """The catalogue on one database."""

    def __init__(self, engine: Engine, writer: Writer, *, max_hosts: int) -> None:
        """Read through `engine`, write through `writer`; `max_hosts` is the platform's bound of a shared cell."""
        self._engine = engine
        self._writer = writer
        self._max_hosts = max_hosts

    # -- applying --------------------------------------------------------------------------------------------------

    async def live_sources(self, tenant: str, sources: Sequence[str]) -> dict[str, str]:
        """Of these source digests, those that live agents were applied from, with the agents' names."""
        return await asyncio.to_thread(self._live_sources, tenant, set(sources))

    async def open_batch(self, tenant: str) -> str:
        """Open a batch; ones abandoned for an hour are dropped on the way."""
        name = new_id("batch")
        await self._writer.submit(lambda connection: _open_batch(connection, tenant, name))
        return name

    async def stage(self, tenant: str, batch_id: str, items: Sequence[StagedItem]) -> None:
        """Keep compiled definitions as revisions, and remember them and the faulty ones for the commit."""
        await self._writer.submit(lambda connection: _stage(connection, tenant, batch_id, items))

    async def commit(self, tenant: str, batch_id: str, *, keep_going: bool) -> Applied:
        """Make the batch live in one transaction; a second commit of the same batch answers as the first did."""
        return await self._writer.submit(lambda connection: self._commit(connection, tenant, batch_id, keep_going))

    async def put_bundle(self, tenant: str, digest: str, data: bytes, requirements: str | None) -> None:
        """Keep a source bundle; the same one twice is kept once."""
        row = {
            "tenant": tenant,
            "digest": digest,
            "data": data,
            "requirements": requirements,
            "created": time.time(),
        }
        await self._writer.submit(
            lambda connection: connection.execute(insert(bundle).values(row).on_conflict_do_nothing())
        )

    async def bundle_requirements(self, tenant: str, digest: str) -> tuple[bool, str | None]:
        """Whether a bundle is here, and the digest of its requirements."""
        query = select(bundle.c.requirements).where((bundle.c.tenant == tenant) & (bundle.c.digest == digest))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return row is not None, row.requirements if row is not None else None

    # -- reading ---------------------------------------------------------------------------------------------------

    async def agents(self, tenant: str, filters: Mapping[str, str], after: str, limit: int) -> list[dict[str, Any]]:
        """A page of live agents by name; filters: framework, tag, q (in name, description or tags), cell."""
        return await asyncio.to_thread(self._agents, tenant, filters, after, limit)

    async def agent(self, tenant: str, name: str) -> dict[str, Any] | None:
        """One live agent's row."""
        query = select(agent).where(_is_live(tenant, name))
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _agent_row(row)

    async def canonical(self, tenant: str, digest: str) -> CanonicalDefinition | None:
        """A revision."""
        query = select(revision.c.canonical).where((revision.c.tenant == tenant) & (revision.c.digest == digest))
        with self._engine.connect() as connection:
            data = connection.execute(query).scalar()
        return None if data is None else read_canonical(data)

    async def revisions(self, tenant: str, name: str) -> list[dict[str, Any]]:
        """An agent's revisions, the newest first."""
        query = (
            select(revision.c.digest, revision.c.version, revision.c.created)
            .where((revision.c.tenant == tenant) & (revision.c.agent == name))
            .order_by(revision.c.created.desc())
            .limit(_PAGE)
        )
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    async def delete_agents(self, tenant: str, names: Sequence[str]) -> tuple[int, int]:
        """Delete live agents in one transaction; how many there were, and the new sequence."""
        return await self._writer.submit(lambda connection: _delete(connection, tenant, names))

    async def kept_cells(self) -> list[CellSpec]:
        """Cells of live agents with a minimum above zero."""
        query = (
            select(agent.c.cell).where((agent.c.status == "live") & (agent.c.min_instances > 0)).group_by(agent.c.cell)
        )
        with self._engine.connect() as connection:
            specs = [read_cell(connection, name) for name in connection.execute(query).scalars().all()]
        return [spec for spec in specs if spec is not None]

    async def status(self) -> dict[str, Any]:
        """Counts: live agents by framework, revisions, cells, sequence, size of the database in bytes."""
        return await asyncio.to_thread(self._status)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _live_sources(self, tenant: str, wanted: set[str]) -> dict[str, str]:
        query = select(agent.c.source, agent.c.name).where((agent.c.tenant == tenant) & (agent.c.status == "live"))
        with self._engine.connect() as connection:
            return {source: name for source, name in connection.execute(query) if source in wanted}

    def _agents(self, tenant: str, filters: Mapping[str, str], after: str, limit: int) -> list[dict[str, Any]]:
        where = (agent.c.tenant == tenant) & (agent.c.status == "live") & (agent.c.name > after)
        if "framework" in filters:
            where &= agent.c.framework == filters["framework"].lower()
        if "cell" in filters:
            where &= agent.c.cell == filters["cell"]
        if "tag" in filters:
            where &= ("\n" + agent.c.tags + "\n").contains(f"\n{filters['tag']}\n", autoescape=True)
        if "q" in filters:
            sought = filters["q"]
            where &= (
                agent.c.name.contains(sought, autoescape=True)
                | agent.c.description.contains(sought, autoescape=True)
                | agent.c.tags.contains(sought, autoescape=True)
            )
        query = select(agent).where(where).order_by(agent.c.name).limit(limit)
        with self._engine.connect() as connection:
            return [_agent_row(row) for row in connection.execute(query).mappings()]

    def _status(self) -> dict[str, Any]:
        live = agent.c.status == "live"
        with self._engine.connect() as connection:
            by_framework = connection.execute(
                select(agent.c.framework, func.count()).where(live).group_by(agent.c.framework)
            ).all()
            pages = connection.execute(text("PRAGMA page_count")).scalar() or 0
            page_size = connection.execute(text("PRAGMA page_size")).scalar() or 0
            return {
                "agents": sum(count for _, count in by_framework),
                "agents_by_framework": {framework: count for framework, count in sorted(by_framework)},
                "revisions": connection.execute(select(func.count()).select_from(revision)).scalar(),
                "cells": connection.execute(select(func.count(agent.c.cell.distinct())).where(live)).scalar(),
                "sequence": connection.execute(select(counter.c.value).where(counter.c.name == "sequence")).scalar(),
                "database_bytes": pages * page_size,
            }

    def _commit(self, connection: Connection, tenant: str, batch_id: str, keep_going: bool) -> Applied:
        done = connection.execute(
            select(batch.c.result).where((batch.c.tenant == tenant) & (batch.c.id == batch_id))
        ).one_or_none()
        if done is None:
            raise UnknownBatch(f"no batch {batch_id!r} is open", next_step="apply the definitions again")
        if done.result is not None:
            return msgspec.json.decode(done.result, type=Applied)
        mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == batch_id)
        refused = _check_batch(connection, tenant, batch_id, keep_going)
        live = {
            row.name: row
            for row in connection.execute(
                select(agent.c.name, agent.c.revision, agent.c.source, agent.c.created).where(
                    (agent.c.tenant == tenant) & (agent.c.status == "live")
                )
            )
        }
        staged = connection.execute(
            select(
                batch_item.c.name, batch_item.c.revision, batch_item.c.source, batch_item.c.file, revision.c.canonical
            )
            .join(revision, (revision.c.tenant == tenant) & (revision.c.digest == batch_item.c.revision))
            .where(mine & batch_item.c.problem.is_(None))
            .order_by(batch_item.c.position)
        )
        sequence = connection.execute(select(counter.c.value).where(counter.c.name == "sequence")).scalar() or 0
        now = time.time()
        cells: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        created = updated = unchanged = 0
        for item in staged.yield_per(_PAGE):
            before = live.get(item.name)
            if before is not None and before.revision == item.revision and before.source == item.source:
                unchanged += 1
                continue
            if before is None:
                created += 1
            elif before.revision == item.revision:
                unchanged += 1
            else:
                updated += 1
            sequence += 1
            value = read_canonical(item.canonical)
            spec = cell_spec(value, max_hosts=self._max_hosts)
            cells.setdefault(spec.cell, _cell_row(tenant, spec))
            rows.append(_row_of(value, item, spec, sequence, before.created if before else now, now))
        _write(connection, rows, cells)
        connection.execute(update(counter).where(counter.c.name == "sequence").values(value=sequence))
        result = Applied(created=created, updated=updated, unchanged=unchanged, refused=refused, sequence=sequence)
        connection.execute(
            update(batch)
            .where((batch.c.tenant == tenant) & (batch.c.id == batch_id))
            .values(result=msgspec.json.encode(result))
        )
        connection.execute(delete(batch_item).where(mine))
        return result


def _open_batch(connection: Connection, tenant: str, name: str) -> None:
    now = time.time()
    old = select(batch.c.id).where(batch.c.created < now - BATCH_LIFE)
    connection.execute(delete(batch_item).where(batch_item.c.batch.in_(old)))
    connection.execute(delete(batch).where(batch.c.created < now - BATCH_LIFE))
    connection.execute(insert(batch).values(tenant=tenant, id=name, created=now))


def _stage(connection: Connection, tenant: str, batch_id: str, items: Sequence[StagedItem]) -> None:
    is_open = (batch.c.tenant == tenant) & (batch.c.id == batch_id) & batch.c.result.is_(None)
    if connection.execute(select(batch.c.id).where(is_open)).one_or_none() is None:
        raise UnknownBatch(f"no batch {batch_id!r} is open", next_step="apply the definitions again")
    now = time.time()
    revisions = [
        {
            "tenant": tenant,
            "digest": item.compiled.digest,
            "agent": item.compiled.value.agent.name,
            "version": item.compiled.value.agent.version,
            "canonical": item.compiled.canonical,
            "created": now,
        }
        for item in items
        if item.compiled is not None
    ]
    if revisions:
        connection.execute(insert(revision).on_conflict_do_nothing(), revisions)
    rows = [
        {
            "tenant": tenant,
            "batch": batch_id,
            "position": item.position,
            "name": item.compiled.value.agent.name if item.compiled else None,
            "revision": item.compiled.digest if item.compiled else None,
            "source": item.source,
            "file": item.file,
            "problem": item.problem,
        }
        for item in items
    ]
    if rows:
        # A chunk that is sent again after a lost answer replaces itself.
        connection.execute(insert(batch_item).prefix_with("OR REPLACE"), rows)


def _check_batch(connection: Connection, tenant: str, batch_id: str, keep_going: bool) -> int:
    mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == batch_id)
    refused = connection.execute(
        select(func.count()).select_from(batch_item).where(mine & batch_item.c.problem.is_not(None))
    ).scalar()
    if refused and not keep_going:
        raise BatchHasFaults(
            f"{refused} definitions are not valid; nothing was applied",
            next_step="mend them, or apply the others with --keep-going",
        )
    twice = connection.execute(
        select(batch_item.c.name, func.group_concat(batch_item.c.file, ", "))
        .where(mine & batch_item.c.problem.is_(None))
        .group_by(batch_item.c.name)
        .having(func.count() > 1)
        .limit(20)
    ).all()
    if twice:
        errors = [{"message": f"the name {name!r} stands in: {files}"} for name, files in twice]
        raise DuplicateNames(
            f"the name {twice[0][0]!r} stands twice: {twice[0][1]}",
            next_step="give each agent a name of its own",
            errors=errors,
        )
    return refused or 0


def _delete(connection: Connection, tenant: str, names: Sequence[str]) -> tuple[int, int]:
    sequence = connection.execute(select(counter.c.value).where(counter.c.name == "sequence")).scalar() or 0
    deleted = 0
    for name in names:
        done = connection.execute(
            update(agent)
            .where(_is_live(tenant, name))
            .values(status="deleted", sequence=sequence + 1, updated=time.time(), source="")
        )
        if done.rowcount:
            sequence += 1
            deleted += 1
    connection.execute(update(counter).where(counter.c.name == "sequence").values(value=sequence))
    return deleted, sequence


def _write(connection: Connection, rows: list[dict[str, Any]], cells: dict[str, dict[str, Any]]) -> None:
    if cells:
        connection.execute(insert(cell).on_conflict_do_nothing(), list(cells.values()))
    if rows:
        statement = insert(agent)
        kept = ("tenant", "name")
        statement = statement.on_conflict_do_update(
            index_elements=list(kept),
            set_={column.name: statement.excluded[column.name] for column in agent.c if column.name not in kept},
        )
        connection.execute(statement, rows)


def _cell_row(tenant: str, spec: CellSpec) -> dict[str, Any]:
    return {
        "id": spec.cell,
        "tenant": tenant,
        "runtime_class": msgspec.json.encode(spec.runtime_class),
        "target": spec.target,
        "idle_timeout": spec.idle_timeout,
        "max_hosts": spec.max_hosts,
    }


def _row_of(
    value: CanonicalDefinition, item: Any, spec: CellSpec, sequence: int, created: float, now: float
) -> dict[str, Any]:
    document = value.agent
    return {
        "tenant": document.tenant,
        "name": document.name,
        "revision": item.revision,
        "version": document.version,
        "status": "live",
        "sequence": sequence,
        "framework": document.framework,
        "cell": spec.cell,
        "description": document.description,
        "tags": "\n".join(value.tags),
        "protocols": " ".join(value.protocols),
        "model": document.model.name,
        "concurrency": document.concurrency,
        "min_instances": value.min_instances,
        "tokens_per_day": value.tokens_per_day,
        "usd_per_day": value.usd_per_day,
        "unservable": unservable_here(value),
        "source": item.source,
        "file": item.file,
        "created": created,
        "updated": now,
    }


def _is_live(tenant: str, name: str) -> Any:
    return (agent.c.tenant == tenant) & (agent.c.name == name) & (agent.c.status == "live")


def _agent_row(row: RowMapping) -> dict[str, Any]:
    found = dict(row)
    found["tags"] = found["tags"].split("\n") if found["tags"] else []
    found["protocols"] = found["protocols"].split()
    return found
