"""How a batch of definitions becomes live, as statements inside the writer's transactions.

A batch is applied in two steps. First its definitions arrive in chunks and become revisions; a revision that nothing
points to changes nothing, so these are plain inserts. Then one transaction points every agent of the batch to its
revision. Whatever is killed in between, an agent points to a whole revision, and either all of a batch is live or none.
The database's write lock puts batches in an order, whoever sends them.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, select, update

from chimera.adapters.storage.agent_changes import history_row, last_event, tell_agent, tell_batch
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.bus import BusRows
from chimera.adapters.storage.facts import AgentFacts, agent_columns, cell_columns
from chimera.adapters.storage.refusing import check_unchanged, count_refused, names_twice
from chimera.adapters.storage.resources import agents_named, refuse_owned
from chimera.adapters.storage.schema.catalogue import agent, batch, batch_item, bundle, cell, history, revision
from chimera.adapters.storage.schema.delivery import change_item
from chimera.adapters.storage.schema.rollouts import rollout_member
from chimera.adapters.storage.schema.sides import side
from chimera.adapters.storage.sequence import hold_sequence, write_sequence
from chimera.adapters.storage.sides.ending import end_sides, forget_sides
from chimera.adapters.storage.state.sessions import erase_agents
from chimera.agents.catalogue import (
    Applied,
    BundleGone,
    StagedItem,
    UnknownBatch,
    compiler_id,
)
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id

BATCH_LIFE = 3600.0
"""Seconds after its last chunk in which a batch must be committed."""

_PAGE = 500
_MOST_DROPPED = 100
NOBODY: Mapping[str, str] = MappingProxyType({})
EVENTS = "events"
"""The protocol of agents that events may start."""
_TOUCHED = ("source", "compiler", "file", "updated")

Staged = tuple[StagedItem, AgentFacts | None]


class _Item(msgspec.Struct, frozen=True, array_like=True):
    """A valid definition of a batch, and what the catalogue holds of its agent (None where it has no row)."""

    position: int
    name: str
    revision: str
    source: str
    file: str | None
    facts: bytes
    live_status: str | None
    live_revision: str | None
    live_version: str | None
    live_source: str | None
    live_compiler: str | None
    live_file: str | None
    live_cell: str | None
    live_unservable: str | None
    live_owner: str | None
    live_created: float | None
    live_since: int | None

    @property
    def is_live(self) -> bool:
        return self.live_status == "live"


class _Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Which batch becomes live, and who makes it so: the principal, the agents' resources, the change request."""

    tenant: str
    batch: str
    by: str | None
    owners: Mapping[str, str]
    change: str | None


class BatchStatements:
    """The statements of applying, compiled once for a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Compile them."""
        self._clock = clock
        self._bus = BusRows(database)
        item, live = batch_item.c, agent.c
        self._insert_batch = database.insert(batch)
        # Sent again, a revision counts as made now: upkeep leaves it alone until the batch is committed.
        put = database.insert(revision)
        self._put_revision = database.prepared_insert(
            revision,
            put.on_conflict_do_update(index_elements=["digest", "tenant"], set_={"created": put.excluded.created}),
        )
        self._put_item = database.prepared_insert(
            batch_item, database.upsert(batch_item, ("tenant", "batch", "position"))
        )
        self._put_history = database.prepared_insert(history)
        self._put_agent = database.prepared_insert(agent, database.upsert(agent, ("tenant", "name")))
        self._put_cell = database.prepared_insert(cell, database.upsert(cell, ("id",)))
        self._touch_agent = database.prepared(
            update(agent)
            .where((live.tenant == bindparam("the_tenant")) & (live.name == bindparam("the_name")))
            .values({name: bindparam(f"new_{name}") for name in _TOUCHED}),
        )
        self._page = database.prepared(
            select(
                *(item.position, item.name, item.revision, item.source, item.file, item.facts),
                *(live.status, live.revision, live.version, live.source, live.compiler),
                *(live.file, live.cell, live.unservable, live.owner, live.created, live.events_since),
            )
            .select_from(batch_item.outerjoin(agent, (live.tenant == item.tenant) & (live.name == item.name)))
            .where(
                (item.tenant == bindparam("the_tenant"))
                & (item.batch == bindparam("the_batch"))
                & (item.position > bindparam("after"))
                & item.problem.is_(None)
            )
            .order_by(item.position)
            .limit(_PAGE),
        )

    def open(self, connection: Connection, tenant: str, key: str | None) -> str:
        """A batch's id: an open one's of the same idempotency key, or a fresh one's. Abandoned ones go on the way."""
        expire_batches(connection, self._clock.wall(), _MOST_DROPPED)
        if key is not None:
            found = connection.execute(
                select(batch.c.id).where((batch.c.tenant == tenant) & (batch.c.key == key))
            ).scalar()
            if found is not None:
                return str(found)
        name = new_id("batch")
        values = {"tenant": tenant, "id": name, "key": key, "expires": self._clock.wall() + BATCH_LIFE}
        connection.execute(self._insert_batch.values(values))
        return name

    def stage(self, connection: Connection, tenant: str, batch_id: str, items: Sequence[Staged]) -> None:
        """Keep revisions, and remember the batch's items. A chunk that is sent again replaces itself."""
        now = self._clock.wall()
        is_open = (batch.c.tenant == tenant) & (batch.c.id == batch_id) & batch.c.result.is_(None)
        touched = connection.execute(update(batch).where(is_open).values(expires=now + BATCH_LIFE))
        if touched.rowcount != 1:
            raise _unknown(batch_id)
        _hold_bundles(connection, tenant, items, now)
        self._put_revision.run_many(
            connection,
            (
                {
                    "tenant": tenant,
                    "digest": item.compiled.digest,
                    "agent": item.compiled.value.agent.name,
                    "version": item.compiled.value.agent.version,
                    "canonical": item.compiled.canonical,
                    "created": now,
                }
                for item, _ in items
                if item.compiled is not None
            ),
        )
        self._put_item.run_many(
            connection,
            (
                {
                    "tenant": tenant,
                    "batch": batch_id,
                    "position": item.position,
                    "name": item.compiled.value.agent.name if item.compiled else None,
                    "revision": item.compiled.digest if item.compiled else None,
                    "source": item.source,
                    "file": item.file,
                    "facts": msgspec.json.encode(facts) if facts else None,
                    "problem": item.problem,
                }
                for item, facts in items
            ),
        )

    def commit(
        self,
        connection: Connection,
        tenant: str,
        batch_id: str,
        *,
        keep_going: bool = False,
        expect: int | None = None,
        by: str | None = None,
        owners: Mapping[str, str] = NOBODY,
        change: str | None = None,
    ) -> Applied:
        """Point the batch's agents to their revisions; a second commit answers what the first one did.

        `owners` are the resources that agents of the batch come from, by the agents' names; `change` is the change
        request that does it, if one does.
        """
        sequence = hold_sequence(connection)
        its = (batch.c.tenant == tenant) & (batch.c.id == batch_id)
        found = connection.execute(select(batch.c.result).where(its)).one_or_none()
        if found is None:
            raise _unknown(batch_id)
        if found.result is not None:
            return msgspec.json.decode(found.result, type=Applied)
        refused = count_refused(connection, tenant, batch_id, keep_going)
        twice = names_twice(connection, tenant, batch_id, keep_going)
        if expect is not None:
            check_unchanged(connection, tenant, batch_id, expect)
        told = _Commit(tenant=tenant, batch=batch_id, by=by, owners=owners, change=change)
        result = self._flip(connection, told, sequence, refused, twice)
        if not keep_going:
            named = {one.name: one.owner for one in agents_named(connection, tenant, result.owned)}
            refuse_owned([(name, named[name]) for name in result.owned])
        tell_batch(connection, tenant, batch_id, self._clock.wall(), by, result)
        connection.execute(update(batch).where(its).values(result=msgspec.json.encode(result)))
        mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == batch_id)
        connection.execute(delete(batch_item).where(mine))
        return result

    def _flip(
        self,
        connection: Connection,
        commit: _Commit,
        sequence: int,
        refused: int,
        twice: frozenset[str],
    ) -> Applied:
        tenant, by = commit.tenant, commit.by
        now, compiler = self._clock.wall(), compiler_id()
        since = last_event(connection)
        takes_events = False
        created = updated = unchanged = same_version = 0
        owned: list[str] = []
        for page in self._pages(connection, tenant, commit.batch):
            rows: list[dict[str, Any]] = []
            changes: list[dict[str, Any]] = []
            cells: dict[str, dict[str, Any]] = {}
            for item in page:
                if item.name in twice:
                    refused += 1
                    continue
                facts = msgspec.json.decode(item.facts, type=AgentFacts)
                row_sequence, owner = None, commit.owners.get(item.name)
                if item.is_live and item.live_owner != owner:
                    # The same content once more changes nothing, so a file of it hurts nobody.
                    if owner is None and _same_agent(item, facts):
                        unchanged += 1
                    else:
                        refused += 1
                        owned.append(item.name)
                    continue
                if _same_agent(item, facts):
                    unchanged += 1
                    if (item.live_source, item.live_compiler, item.live_file) == (item.source, compiler, item.file):
                        continue
                else:
                    sequence += 1
                    row_sequence = sequence
                    created += not item.is_live
                    updated += item.is_live
                    same_version += item.is_live and item.live_version == facts.version
                    changes.append(history_row(tenant, item.name, sequence, item.revision, now, by, commit.change))
                    what = "agent.updated" if item.is_live else "agent.created"
                    tell_agent(connection, what, tenant, item.name, now, by, _told(item, facts, commit), sequence)
                    if facts.cell.cell not in cells:
                        cells[facts.cell.cell] = cell_columns(tenant, facts.cell)
                row = _agent_row(tenant, item, facts, row_sequence, now, compiler, owner)
                rows.append({**row, "events_since": _since(item, facts, since)})
            takes_events = takes_events or any(row["events_since"] is not None for row in rows)
            self._put_cell.run_many(connection, cells.values())
            self._write_agents(connection, rows)
            self._put_history.run_many(connection, changes)
            end_sides(connection, tenant, [(one["agent"], one["revision"]) for one in changes])
        write_sequence(connection, sequence)
        if takes_events:
            self._bus.open(connection, tenant, since, now)
        return Applied(
            created=created,
            updated=updated,
            unchanged=unchanged,
            refused=refused,
            same_version=same_version,
            sequence=sequence,
            duplicates=tuple(sorted(twice)),
            owned=tuple(owned),
        )

    def _write_agents(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        # An agent that runs as before keeps its sequence, so that nobody is told of a reformatted file.
        self._put_agent.run_many(connection, (row for row in rows if row["sequence"] is not None))
        self._touch_agent.run_many(
            connection,
            (
                {
                    "the_tenant": row["tenant"],
                    "the_name": row["name"],
                    **{f"new_{name}": row[name] for name in _TOUCHED},
                }
                for row in rows
                if row["sequence"] is None
            ),
        )

    def _pages(self, connection: Connection, tenant: str, batch_id: str) -> Iterator[list[_Item]]:
        after = -1
        while rows := self._page.all(connection, the_tenant=tenant, the_batch=batch_id, after=after):
            yield [_Item(*row) for row in rows]
            after = rows[-1][0]

    def delete_agents(
        self,
        connection: Connection,
        tenant: str,
        names: Sequence[str],
        by: str | None,
        owners: Mapping[str, str] = NOBODY,
        change: str | None = None,
        erase: bool = True,
    ) -> tuple[int, int]:
        """Delete live agents with all that they keep of conversations; how many there were, and the sequence.

        Without `erase` they keep that, and their sides: whoever takes agents back sees to these. Whoever deletes for
        resources names them (`owners`) and deletes no agent of anybody else. `change` is the change request that does
        it, if one does.
        """
        sequence, now = hold_sequence(connection), self._clock.wall()
        deleted: list[str] = []
        for some in (names[start : start + _PAGE] for start in range(0, len(names), _PAGE)):
            theirs = [one for one in agents_named(connection, tenant, some) if one.owner != owners.get(one.name)]
            refuse_owned([(one.name, one.owner) for one in theirs])
        for name in names:
            done = connection.execute(
                update(agent)
                .where((agent.c.tenant == tenant) & (agent.c.name == name) & (agent.c.status == "live"))
                .values(status="deleted", sequence=sequence + 1, updated=now, source="", owner=None)
            )
            if done.rowcount:
                sequence += 1
                deleted.append(name)
                self._put_history.run(connection, **history_row(tenant, name, sequence, None, now, by, change))
                told = {"owner": owners[name]} if name in owners else {}
                tell_agent(connection, "agent.deleted", tenant, name, now, by, told, sequence)
        if erase:
            erase_agents(connection, tenant, deleted)
            forget_sides(connection, tenant, deleted)
        write_sequence(connection, sequence)
        return len(deleted), sequence


def _hold_bundles(connection: Connection, tenant: str, items: Sequence[Staged], now: float) -> None:
    """See to it that the bundles which definitions name are there, and stay there until the batch is committed."""
    codes = (item.compiled.value.agent.source for item, _ in items if item.compiled is not None)
    for digest in sorted({code.bundle for code in codes if code is not None}):
        its = (bundle.c.tenant == tenant) & (bundle.c.digest == digest)
        if connection.execute(update(bundle).where(its).values(created=now)).rowcount != 1:
            raise BundleGone(f"the bundle {digest[:19]} is not here any more", next_step="send it again, then apply")


def expire_batches(connection: Connection, now: float, limit: int) -> int:
    """Drop batches past their time, with their items, and the revisions that only they knew; `limit` at most, how many.

    A batch goes as a whole, however many items it has: one that lost a few could still be committed without them.
    """
    old = select(batch.c.tenant, batch.c.id).where(batch.c.expires < now).order_by(batch.c.expires).limit(limit)
    found = connection.execute(old.with_for_update()).all()
    for tenant, name in found:
        mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == name) & batch_item.c.revision.is_not(None)
        revisions = connection.execute(select(batch_item.c.revision).where(mine)).scalars().all()
        connection.execute(delete(batch).where((batch.c.tenant == tenant) & (batch.c.id == name)))
        for start in range(0, len(revisions), _PAGE):
            some = (revision.c.tenant == tenant) & revision.c.digest.in_(revisions[start : start + _PAGE])
            connection.execute(delete(revision).where(some & (revision.c.created < now - BATCH_LIFE) & ~is_known()))
    return len(found)


def is_known() -> ColumnElement[bool]:
    """Whether a revision was live once, is beside the live one, or a batch, a change or a rollout has it."""
    was_live = exists().where(
        (history.c.tenant == revision.c.tenant)
        & (history.c.agent == revision.c.agent)
        & (history.c.revision == revision.c.digest)
    )
    named = exists().where((change_item.c.tenant == revision.c.tenant) & (change_item.c.revision == revision.c.digest))
    coming = revision.c.digest.in_(select(batch_item.c.revision).where(batch_item.c.revision.is_not(None)))
    beside = exists().where((side.c.revision == revision.c.digest) & (side.c.tenant == revision.c.tenant))
    m = rollout_member.c
    rolled = exists().where((m.tenant == revision.c.tenant) & (m.revision == revision.c.digest))
    return was_live | named | coming | beside | rolled


def _told(item: _Item, facts: AgentFacts, commit: _Commit) -> dict[str, Any]:
    """What the fact of an agent's change says beside who did it."""
    told = {"revision": item.revision, "version": facts.version, "batch": commit.batch}
    if commit.change is not None:
        told["change"] = commit.change
    if item.is_live:
        told["before"] = item.live_revision or ""
    if item.name in commit.owners:
        told["owner"] = commit.owners[item.name]
    return told


def _same_agent(item: _Item, facts: AgentFacts) -> bool:
    """Whether the agent runs as before: its revision, and where this release places it."""
    return (
        item.is_live
        and item.live_revision == item.revision
        and item.live_cell == facts.cell.cell
        and item.live_unservable == facts.unservable
    )


def _since(item: _Item, facts: AgentFacts, last: int) -> int | None:
    """The place behind which events start the agent: the journal's last one when it began to take events."""
    if EVENTS not in facts.protocols.split():
        return None
    return item.live_since if item.is_live and item.live_since is not None else last


def _agent_row(
    tenant: str, item: _Item, facts: AgentFacts, sequence: int | None, now: float, compiler: str, owner: str | None
) -> dict[str, Any]:
    return {
        **agent_columns(facts),
        "tenant": tenant,
        "name": item.name,
        "revision": item.revision,
        "status": "live",
        "sequence": sequence,
        "source": item.source,
        "compiler": compiler,
        "file": item.file,
        "owner": owner,
        "created": item.live_created if item.is_live else now,
        "updated": now,
    }


def _unknown(batch_id: str) -> UnknownBatch:
    return UnknownBatch(f"no batch {batch_id!r} is open", next_step="apply the definitions again")
