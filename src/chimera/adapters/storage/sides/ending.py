"""What a change of an agent's live revision does to its sides, in the transaction of the change."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, select

from chimera.adapters.storage.removing import delete_keys, is_one_of
from chimera.adapters.storage.schema.sides import GREEN, side


def end_sides(connection: Connection, tenant: str, changed: Sequence[tuple[str, str]]) -> None:
    """Agents have these revisions live now: their green sides end, and what is live is on no other side."""
    if not changed or not connection.execute(select(exists().where(side.c.tenant == tenant))).scalar():
        return
    names = [(tenant, name) for name, _ in changed]
    delete_keys(connection, (side.c.tenant, side.c.agent), names, side.c.role == GREEN)
    live = [(tenant, name, revision) for name, revision in changed]
    delete_keys(connection, (side.c.tenant, side.c.agent, side.c.revision), live)


def forget_sides(connection: Connection, tenant: str, names: Sequence[str]) -> None:
    """Agents are taken out of service, and with them all sides."""
    if names:
        its = is_one_of(connection, (side.c.tenant, side.c.agent), [(tenant, name) for name in names])
        connection.execute(delete(side).where(its))
