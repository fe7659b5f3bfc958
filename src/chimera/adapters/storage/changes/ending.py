"""Changes that ended long ago, for upkeep: they go with all that belongs to them, and revisions that only they knew."""

from typing import Any

from sqlalchemy import Connection, Select, select

from chimera.adapters.storage.changes.contents import forget_revisions
from chimera.adapters.storage.removing import delete_keys
from chimera.adapters.storage.schema.delivery import change as table
from chimera.adapters.storage.schema.delivery import change_item


def of_open_changes() -> Select[Any]:
    """Tenants and revisions that changes in flight name."""
    both = (table.c.tenant == change_item.c.tenant) & (table.c.id == change_item.c.change)
    query = select(change_item.c.tenant, change_item.c.revision).select_from(change_item.join(table, both))
    return query.where(table.c.ended.is_(None) & change_item.c.revision.is_not(None))


def expire_changes(connection: Connection, before: float, limit: int) -> int:
    """Remove changes that ended by `before`, `limit` at most, how many; none that staging still has something of."""
    old = (table.c.ended <= before) & (table.c.staged == 0)
    query = select(table.c.tenant, table.c.id).where(old).order_by(table.c.ended).limit(limit)
    found = [tuple(row) for row in connection.execute(query.with_for_update(skip_locked=True)).all()]
    for tenant, id_ in found:
        its = (change_item.c.tenant == tenant) & (change_item.c.change == id_) & change_item.c.revision.is_not(None)
        digests = connection.execute(select(change_item.c.revision).where(its)).scalars().all()
        delete_keys(connection, (table.c.tenant, table.c.id), [(tenant, id_)])
        forget_revisions(connection, tenant, [str(digest) for digest in digests])
    return len(found)
