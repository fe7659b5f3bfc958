"""What people see of cells and hosts, wherever hosts run: rows for `chimera get`, `top` and `status`.

Both homes give the same rows. What a home can't know of one is None, never guessed. Times are seconds.
"""

import msgspec
from msgspec import Struct

from chimera_host.contract.call import LoadedReport


class CellRow(Struct, frozen=True, kw_only=True):
    """A cell. `in_flight` are calls on its hosts, `waiting` callers who wait for a host; `error` is its trouble."""

    cell: str
    tenant: str
    framework: str
    isolation: str
    hosts: int
    ready: int
    wanted: int
    reason: str
    in_flight: float
    waiting: int
    error: str | None


class HostRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host, and what it said of itself where it was asked: its loaded agents, its calls, what it evicted.

    `unhealthy` is why it doesn't work, or is about to be replaced. `node` is the machine of a cluster it runs on.
    """

    host: str
    cell: str
    phase: str
    seconds: float
    resident_bytes: int | None
    limit_bytes: int
    unhealthy: str | None
    loaded_agents: int | None = None
    in_flight: int | None = None
    evictions: int | None = None
    node: str | None = None

    def told(self, report: LoadedReport) -> "HostRow":
        """The same row with what the host said of itself."""
        return msgspec.structs.replace(
            self, loaded_agents=report.loaded, in_flight=report.in_flight, evictions=report.evictions
        )


class IncidentRow(Struct, frozen=True, kw_only=True):
    """A host that ended unexpectedly. `agent` did it, where that is known; `suspects` had calls on it."""

    seconds_ago: float
    host: str
    cell: str
    cause: str
    agent: str | None
    suspects: tuple[str, ...]


class ProcessRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process of the platform, with its id and use where this home can see them; `pod` in a cluster.

    `cpu_cores` and `working_set_bytes` are what a cluster's metrics API says of its pod: the cores that it has used of
    late, and the memory that counts against its limit.
    """

    process: str
    pid: int | None
    cpu_seconds: float | None
    proportional_bytes: int | None
    pod: str | None = None
    cpu_cores: float | None = None
    working_set_bytes: int | None = None


class Top(Struct, frozen=True, kw_only=True):
    """Everything at once, with the newest incidents; `missing` says in words what of it can't be had, and why."""

    processes: list[ProcessRow]
    cells: list[CellRow]
    hosts: list[HostRow]
    incidents: list[IncidentRow]
    missing: list[str] = []
