"""What a change does, in the catalogue's tables: a batch's definitions, what is live, revisions, others' changes."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from chimera.adapters.storage.batches import is_known
from chimera.adapters.storage.refusing import count_refused, names_twice
from chimera.adapters.storage.removing import is_one_of
from chimera.adapters.storage.schema.catalogue import agent, batch, batch_item, revision
from chimera.adapters.storage.schema.delivery import change as table
from chimera.adapters.storage.schema.delivery import change_item
from chimera.agents.catalogue import UnknownBatch
from chimera.agents.compile import CompiledAgent, read_canonical
from chimera.delivery.conflicts import Other
from chimera.delivery.errors import RevisionGone
from chimera.delivery.model import Change, ChangeItem
from chimera.delivery.ports import LiveAgent, Revision


def batch_contents(connection: Connection, tenant: str, name: str) -> list[ChangeItem]:
    """What a batch would change; definitions that are live as they are change nothing, and are left out."""
    _check_open(connection, tenant, name)
    count_refused(connection, tenant, name, keep_going=False)
    names_twice(connection, tenant, name, keep_going=False)
    b, a = batch_item.c, agent.c
    joined = batch_item.outerjoin(agent, (a.tenant == b.tenant) & (a.name == b.name) & (a.status == "live"))
    query = select(b.name, b.revision, b.file, b.source, a.revision.label("before")).select_from(joined)
    rows = connection.execute(query.where((b.tenant == tenant) & (b.batch == name)).order_by(b.name))
    return [
        ChangeItem(agent=row.name, revision=row.revision, before=row.before, file=row.file, source=row.source)
        for row in rows
        if row.revision != row.before
    ]


def end_batch(connection: Connection, tenant: str, name: str) -> None:
    """Remove a batch whose definitions a change has now; its revisions stay."""
    _check_open(connection, tenant, name)
    connection.execute(delete(batch_item).where((batch_item.c.tenant == tenant) & (batch_item.c.batch == name)))
    connection.execute(delete(batch).where((batch.c.tenant == tenant) & (batch.c.id == name)))


def _check_open(connection: Connection, tenant: str, name: str) -> None:
    its = (batch.c.tenant == tenant) & (batch.c.id == name) & batch.c.result.is_(None)
    if connection.execute(select(batch.c.id).where(its)).one_or_none() is None:
        raise UnknownBatch(f"no batch {name[:100]!r} is open", next_step="send the definitions again")


def live_agents(connection: Connection, tenant: str, names: Sequence[str]) -> dict[str, LiveAgent]:
    """Those of these agents that are live."""
    if not names:
        return {}
    named = is_one_of(connection, (agent.c.tenant, agent.c.name), [(tenant, name) for name in names])
    query = select(agent.c.name, agent.c.revision, agent.c.owner).where(named & (agent.c.status == "live"))
    return {row.name: LiveAgent(revision=row.revision, owner=row.owner) for row in connection.execute(query)}


def read_revisions(connection: Connection, tenant: str, items: Sequence[ChangeItem]) -> list[Revision]:
    """What the digests of `items` stand for. One that was live before may be gone by now, one that shall be may not."""
    wanted = sorted({digest for item in items for digest in (item.revision, item.before) if digest is not None})
    keys = is_one_of(connection, (revision.c.digest, revision.c.tenant), [(digest, tenant) for digest in wanted])
    query = select(revision.c.digest, revision.c.canonical).where(keys)
    found = {row.digest: row.canonical for row in connection.execute(query)} if wanted else {}
    values = {digest: read_canonical(data) for digest, data in found.items()}
    revisions = []
    for item in items:
        compiled = None
        if item.revision is not None:
            if item.revision not in found:
                raise RevisionGone(
                    f"the revision {item.revision[:19]} of agent {item.agent} is not here any more",
                    next_step="send the definitions again with `chimera change amend`",
                )
            compiled = CompiledAgent(digest=item.revision, canonical=found[item.revision], value=values[item.revision])
        before = values.get(item.before) if item.before is not None else None
        revisions.append(Revision(item=item, compiled=compiled, before=before))
    return revisions


def overlapping(connection: Connection, change: Change) -> list[Other]:
    """Other changes in flight that touch agents of `change`, oldest first."""
    if not change.items:
        return []
    i = change_item.c
    touched = is_one_of(connection, (i.tenant, i.agent), [(change.tenant, name) for name in change.names])
    both = (table.c.tenant == i.tenant) & (table.c.id == i.change)
    query = (
        select(table.c.id, table.c.state, table.c.author_person, i.agent)
        .select_from(change_item.join(table, both))
        .where(touched & table.c.ended.is_(None) & (table.c.id != change.id))
        .order_by(table.c.id, i.agent)
    )
    agents: dict[str, list[str]] = {}
    rows = {}
    for row in connection.execute(query):
        agents.setdefault(row.id, []).append(row.agent)
        rows[row.id] = row
    return [
        Other(
            id=row.id,
            state=row.state,
            author_person=row.author_person,
            agents=tuple(agents[row.id]),
        )
        for row in rows.values()
    ]


def forget_revisions(connection: Connection, tenant: str, digests: Sequence[str]) -> int:
    """Remove those of these revisions that nothing names: no history, no batch, no change; how many.

    Whoever sends one of them again holds its row until it stands in a batch, which nobody else sees before: a revision
    whose row is held is left, and a held row is sought before the others are asked for.
    """
    if not digests:
        return 0
    keys = is_one_of(connection, (revision.c.digest, revision.c.tenant), [(digest, tenant) for digest in digests])
    free = connection.execute(select(revision.c.digest).where(keys).with_for_update(skip_locked=True)).scalars().all()
    mine = is_one_of(connection, (revision.c.digest, revision.c.tenant), [(digest, tenant) for digest in free])
    return connection.execute(delete(revision).where(mine & ~is_known())).rowcount if free else 0
