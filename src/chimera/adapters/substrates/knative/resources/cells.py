"""Cells as resources: a pure rule from the catalogue's cells, their Knative Services and the Cells that are there.

The operator makes a Cell for each cell that live agents belong to, beside its Knative Service and with the same name,
and never touches its `spec`: that is a person's. `minScale` there goes into the catalogue as hosts that the cell keeps
at least. A Cell whose cell and Service are gone goes too; one that somebody made for no cell is left, and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.labelling import meta
from chimera.adapters.substrates.knative.objects import KnativeService
from chimera.adapters.substrates.knative.plan import troubles
from chimera.adapters.substrates.knative.resources.kinds import CELLS, Cell, CellStatus, Revision
from chimera.adapters.substrates.knative.resources.status import Json, carried, conditions
from chimera.platform.conditions import Condition
from chimera.platform.model import CellSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class CellPlan:
    """Cells to make and to delete by name, the least hosts that are asked for by cell, and statuses by name."""

    make: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    bounds: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, CellStatus] = field(default_factory=dict)


def plan_cells(
    wanted: Mapping[str, CellSpec],
    agents: Mapping[str, int],
    found: Mapping[str, Cell],
    services: Mapping[str, KnativeService],
    hosts: Mapping[str, int],
    now: str,
    *,
    told: Mapping[str, Sequence[Condition]] = {},
) -> CellPlan:
    """What to do; `wanted`, `found`, `services` and `hosts` are by the Service's name, `agents` and `told` by cell.

    `told` are the conditions that the control plane keeps of cells.
    """
    statuses: dict[str, CellStatus] = {}
    bounds: dict[str, int] = {}
    delete: list[str] = []
    for name, cell in found.items():
        spec, service = wanted.get(name), services.get(name)
        if spec is None and service is None and cell.metadata.labels.get(names.MANAGED_BY) == names.MANAGER:
            delete.append(name)
            continue
        if spec is not None and cell.spec.min_scale > 0:
            bounds[spec.cell] = cell.spec.min_scale
        status = _status(cell, spec, service, agents, hosts.get(name, 0), now)
        statuses[name] = msgspec.structs.replace(
            status, conditions=(*status.conditions, *carried(told.get(status.cell, ()), cell.metadata.generation))
        )
    return CellPlan(
        make=tuple(sorted(wanted.keys() - found.keys())), delete=tuple(delete), bounds=bounds, statuses=statuses
    )


def hosts_of(revisions: Iterable[Revision]) -> dict[str, int]:
    """Pods of each Knative Service, of all its revisions."""
    found: dict[str, int] = {}
    for revision in revisions:
        name = revision.metadata.labels.get(names.KNATIVE_SERVICE, "")
        found[name] = found.get(name, 0) + revision.status.actual_replicas
    return found


def cell_manifest(name: str, namespace: str) -> Json:
    """A Cell as it is made: without a `spec`, so that the operator owns none of it."""
    return {"apiVersion": CELLS.api_version, "kind": CELLS.kind, "metadata": meta(namespace, name)}


def _status(
    cell: Cell,
    spec: CellSpec | None,
    service: KnativeService | None,
    agents: Mapping[str, int],
    hosts: int,
    now: str,
) -> CellStatus:
    phase, ready, message = _phase(spec, service, hosts)
    generation = cell.metadata.generation
    before = cell.status
    return CellStatus(
        observed_generation=generation,
        phase=phase,
        cell=spec.cell if spec else before.cell,
        tenant=spec.runtime_class.tenant if spec else before.tenant,
        framework=spec.runtime_class.framework if spec else before.framework,
        revision=(service.status.latest_ready_revision_name or "") if service else "",
        agents=agents.get(spec.cell, 0) if spec else 0,
        replicas=hosts,
        min_replicas=spec.min_hosts if spec else 0,
        max_replicas=spec.max_hosts if spec else 0,
        conditions=conditions([("Ready", ready, phase, message)], generation, before.conditions, now),
    )


def _phase(spec: CellSpec | None, service: KnativeService | None, hosts: int) -> tuple[str, bool, str]:
    if spec is None:
        return "Waiting", False, "No live agent belongs to it."
    if service is None:
        return "Waiting", False, "Its Knative Service isn't there yet; where it stays so, see the control plane's log."
    current = service.status.observed_generation == service.metadata.generation
    told = [(one.type, one.status, one.reason, one.message) for one in service.status.conditions]
    if current and any(kind == "Ready" and value == "True" for kind, value, _, _ in told):
        return ("Ready", True, "It has hosts.") if hosts else ("Asleep", True, "It sleeps; a call wakes it.")
    if current and (trouble := troubles(iter(told))) is not None:
        return "Failed", False, f"{trouble[0]} Next: {trouble[1]}."
    return "Deploying", False, "Its newest revision isn't ready yet."
