"""What resources of a cluster say in the catalogue: whose an agent is, and the least hosts of a cell.

An agent has one owner: a resource, named `namespace/name`, or the API (none). Whoever isn't it changes nothing of the
agent. The check is in the transaction of the change, behind the row of the sequence that every change holds, so that
of two owners who come at once one is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from chimera.adapters.storage.database import insert_into
from chimera.adapters.storage.schema.catalogue import agent, cell, cell_bound
from chimera.agents.catalogue import OwnedAgent, OwnedByResource

_MOST_NAMED = 20


def refuse_owned(owned: Sequence[tuple[str, str | None]]) -> None:
    """Refuse a change of agents (names and owners) that belong to others; nothing where there are none."""
    if not owned:
        return
    name, owner = owned[0]
    more = f", and {len(owned) - 1} more" if len(owned) > 1 else ""
    raise OwnedByResource(
        f"{_belongs(name, owner)}{more}; nothing was changed",
        next_step=_step(owner),
        errors=[{"message": _belongs(name, owner)} for name, owner in owned[:_MOST_NAMED]],
    )


def _belongs(name: str, owner: str | None) -> str:
    if owner is None:
        return f"the agent {name!r} was applied through the API"
    namespace, _, resource = owner.partition("/")
    return f"the agent {name!r} belongs to the resource Agent {resource!r} in the namespace {namespace!r}"


def _step(owner: str | None) -> str:
    if owner is None:
        return "delete the agent, or leave the resource out"
    namespace, _, name = owner.partition("/")
    edited = f"kubectl -n {namespace} edit agents.chimera.ecosystem {name}"
    return f"change it there (`{edited}`), or delete the resource, which takes the agent out of service"


def owned_agents(connection: Connection, after: tuple[str, str], limit: int) -> list[OwnedAgent]:
    """A page of live agents that resources own, by tenant and name."""
    tenant, name = after
    later = (agent.c.tenant > tenant) | ((agent.c.tenant == tenant) & (agent.c.name > name))
    query = _agents().where(agent.c.owner.is_not(None) & (agent.c.status == "live") & later)
    return _read(connection, query.order_by(agent.c.tenant, agent.c.name).limit(limit))


def changed_agents(connection: Connection, after: int, limit: int) -> list[OwnedAgent]:
    """Agents that were changed after a sequence, those that are deleted and that nobody owns too, in order."""
    query = _agents().where(agent.c.sequence > after)
    return _read(connection, query.order_by(agent.c.sequence).limit(limit))


def agents_named(connection: Connection, tenant: str, names: Iterable[str]) -> list[OwnedAgent]:
    """Live agents by name."""
    query = _agents().where((agent.c.tenant == tenant) & (agent.c.status == "live") & agent.c.name.in_(list(names)))
    return _read(connection, query)


def _agents() -> Select[Any]:
    live = (agent.c.status == "live").label("live")
    return select(live, *(agent.c[name] for name in OwnedAgent.__struct_fields__ if name != "live"))


def _read(connection: Connection, query: Select[Any]) -> list[OwnedAgent]:
    return [OwnedAgent(**row) for row in connection.execute(query).mappings()]


def agents_in_cells(connection: Connection) -> dict[str, int]:
    """How many live agents belong to each cell."""
    query = select(agent.c.cell, func.count()).where(agent.c.status == "live").group_by(agent.c.cell)
    return {str(name): int(count) for name, count in connection.execute(query)}


def bounds(connection: Connection) -> dict[str, int]:
    """The least hosts that were asked for, by cell."""
    return {row.cell: row.least for row in connection.execute(select(cell_bound))}


def put_bounds(connection: Connection, wanted: Mapping[str, int]) -> bool:
    """Keep `wanted` and nothing else, for cells that there are; whether that changed anything."""
    known = set(connection.execute(select(cell.c.id).where(cell.c.id.in_(list(wanted)))).scalars())
    fresh = {name: least for name, least in wanted.items() if least > 0 and name in known}
    if fresh == bounds(connection):
        return False
    connection.execute(delete(cell_bound))
    if fresh:
        rows = [{"cell": name, "least": least} for name, least in sorted(fresh.items())]
        connection.execute(insert_into(connection, cell_bound), rows)
    return True
