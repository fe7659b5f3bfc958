"""What the catalogue keeps of an agent beside its revision: the columns that routes, lists and cells are read from.

They are worked out when a definition is staged, in the thread that compiled it, so that the transaction that makes a
batch live copies rows and works nothing out.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition
from chimera.agents.subscriptions import TakenEvents
from chimera.platform.cells import cell_spec, unservable_here
from chimera.platform.model import CellSpec


class AgentFacts(Struct, frozen=True, kw_only=True, array_like=True):
    """Columns of the table `agent`, and the cell that the agent belongs to."""

    version: str
    framework: str
    description: str
    tags: str
    protocols: str
    model: str
    concurrency: int
    min_instances: int
    tokens_per_day: int | None
    usd_per_day: float | None
    unservable: str | None
    cell: CellSpec
    calls_per_minute: int | None = None
    subscriptions: tuple[TakenEvents, ...] = ()


Unservable = Callable[[CanonicalDefinition], str | None]
"""Why a home can't run an agent, with the next step; None where it can."""


def facts_of(value: CanonicalDefinition, *, max_hosts: int, unservable: Unservable = unservable_here) -> AgentFacts:
    """The facts of a compiled definition; `max_hosts` is the platform's bound of a shared cell."""
    document = value.agent
    return AgentFacts(
        version=document.version,
        framework=document.framework,
        description=document.description,
        tags="\n".join(value.tags),
        protocols=" ".join(value.protocols),
        model=document.model.name,
        concurrency=document.concurrency,
        min_instances=value.min_instances,
        tokens_per_day=value.tokens_per_day,
        usd_per_day=value.usd_per_day,
        calls_per_minute=value.calls_per_minute,
        subscriptions=value.subscriptions,
        unservable=unservable(value),
        cell=cell_spec(value, max_hosts=max_hosts),
    )


def agent_columns(facts: AgentFacts) -> dict[str, Any]:
    """The agent's columns by name; `cell` is the cell's id."""
    columns = {name: getattr(facts, name) for name in _COLUMNS}
    columns["cell"] = facts.cell.cell
    columns["subscriptions"] = msgspec.json.encode(facts.subscriptions) if facts.subscriptions else None
    return columns


def cell_columns(tenant: str, spec: CellSpec) -> dict[str, Any]:
    """A row of the table `cell`. Its minimum is not in it: that is the highest of its live agents'."""
    return {
        "id": spec.cell,
        "tenant": tenant,
        "runtime_class": msgspec.json.encode(spec.runtime_class),
        "target": spec.target,
        "idle_timeout": spec.idle_timeout,
        "max_hosts": spec.max_hosts,
    }


_COLUMNS = tuple(name for name in AgentFacts.__struct_fields__ if name not in ("cell", "subscriptions"))
