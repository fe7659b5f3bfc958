"""Live agents with their definitions, as JAEGIS reads them: those that were changed after a sequence, in pages."""

from sqlalchemy import Connection, select

from chimera.adapters.storage.schema.catalogue import agent, revision
from chimera.agents.compile import read_canonical
from chimera.jaegis.ecosystem import LiveRevision


def changed_since(connection: Connection, tenant: str, sequence: int, limit: int) -> list[LiveRevision]:
    """See `LiveAgents`."""
    same = (revision.c.digest == agent.c.revision) & (revision.c.tenant == agent.c.tenant)
    query = (
        select(agent.c.name, agent.c.sequence, agent.c.revision, agent.c.status, agent.c.owner)
        .add_columns(revision.c.canonical)
        .select_from(agent.outerjoin(revision, same))
        .where((agent.c.tenant == tenant) & (agent.c.sequence > sequence))
        .order_by(agent.c.sequence)
        .limit(limit)
    )
    return [
        LiveRevision(
            name=row.name,
            sequence=row.sequence,
            revision=row.revision,
            value=read_canonical(row.canonical) if row.status == "live" and row.canonical is not None else None,
            owner=row.owner,
        )
        for row in connection.execute(query)
    ]
