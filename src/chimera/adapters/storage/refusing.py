"""What refuses a batch as a whole: faults in it, a name twice, agents that were changed meanwhile."""

from sqlalchemy import Connection, func, select

from chimera.adapters.storage.schema.catalogue import agent, batch_item
from chimera.agents.catalogue import BatchHasFaults, ChangedMeanwhile, DuplicateNames

_MOST_NAMED = 20


def count_refused(connection: Connection, tenant: str, batch_id: str, keep_going: bool) -> int:
    """How many definitions of a batch have faults; refuses it for them unless it keeps going."""
    mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == batch_id) & batch_item.c.problem.is_not(None)
    refused = int(connection.execute(select(func.count()).select_from(batch_item).where(mine)).scalar() or 0)
    if refused and not keep_going:
        raise BatchHasFaults(
            f"{refused} definitions are not valid; nothing was applied",
            next_step="correct them, or apply the others with --keep-going",
        )
    return refused


def names_twice(connection: Connection, tenant: str, batch_id: str, keep_going: bool) -> frozenset[str]:
    """Names that stand twice in a batch; refuses it for them unless it keeps going."""
    mine = (batch_item.c.tenant == tenant) & (batch_item.c.batch == batch_id) & batch_item.c.problem.is_(None)
    files = func.aggregate_strings(func.coalesce(batch_item.c.file, "?"), ", ")
    found = connection.execute(
        select(batch_item.c.name, files).where(mine).group_by(batch_item.c.name).having(func.count() > 1)
    ).all()
    if found and not keep_going:
        raise DuplicateNames(
            f"the name {found[0][0]!r} stands twice: {found[0][1]}",
            next_step="give each agent a name of its own",
            errors=[{"message": f"the name {name!r} stands in: {where}"} for name, where in found[:_MOST_NAMED]],
        )
    return frozenset(name for name, _ in found)


def check_unchanged(connection: Connection, tenant: str, batch_id: str, expect: int) -> None:
    """Refuse a batch whose agents were changed after the sequence that it was made from."""
    changed = (
        connection.execute(
            select(agent.c.name)
            .join(batch_item, (batch_item.c.tenant == agent.c.tenant) & (batch_item.c.name == agent.c.name))
            .where((agent.c.tenant == tenant) & (batch_item.c.batch == batch_id) & (agent.c.sequence > expect))
            .limit(_MOST_NAMED)
        )
        .scalars()
        .all()
    )
    if changed:
        raise ChangedMeanwhile(
            f"changed since {expect}: {', '.join(changed)}",
            next_step="see what changed with `chimera diff`, then apply again",
        )
