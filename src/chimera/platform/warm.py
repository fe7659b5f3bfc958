"""How many hosts of each cell are kept though nobody calls: what agents ask for, and a pool for each agent type.

An agent type is a runtime class with its template, and hosts of one runtime class run every agent of it: a host that
is kept warm for one type of a cell is warm for all that share the cell. So the pool of a type is that of its cell, and
types that share one share it. A dedicated agent has what it asks for and no pool, since nobody shares it; nor have
environments, which are there for the length of a test.

All that is kept has one bound. What agents ask for comes first, then pools: of declarations, then of owners' code, by
name, so that another cell moves the bound's edge and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from chimera.kernel.ids import is_environment
from chimera.platform.model import CellSpec

DEDICATED = "dedicated"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of one cell: for its agents' own minimum, and in all; `wanted` is that without the bound."""

    least: int
    kept: int
    wanted: int


def keep(cells: Iterable[CellSpec], *, pool: int, most: int, most_hosts: int = 1_000) -> dict[str, Kept]:
    """What is kept of each cell, by its id: `pool` hosts of each that types share, no more than `most` in all."""
    ordered = sorted(cells, key=_order)
    room = most
    least: dict[str, int] = {}
    for cell in ordered:
        least[cell.cell] = granted = min(cell.min_hosts, cell.max_hosts, most_hosts, room)
        room -= granted
    found: dict[str, Kept] = {}
    for cell in ordered:
        own = least[cell.cell]
        bound = max(1, min(cell.max_hosts, most_hosts))
        wanted = min(bound, max(cell.min_hosts, pool if shared(cell) else 0))
        more = min(max(0, wanted - own), room)
        room -= more
        found[cell.cell] = Kept(least=own, kept=own + more, wanted=wanted)
    return found


def shared(cell: CellSpec) -> bool:
    """Whether agents of several types may live in the cell, and stay."""
    return cell.runtime_class.resources.name != DEDICATED and not is_environment(cell.runtime_class.tenant)


def _order(cell: CellSpec) -> tuple[int, str]:
    kinds = ("tenant:", "owner:")
    domain = cell.runtime_class.isolation
    kind = next((number for number, prefix in enumerate(kinds) if domain.startswith(prefix)), len(kinds))
    return kind, cell.cell
