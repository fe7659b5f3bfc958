"""What the platform needs from where hosts run: to start and stop them, and to say what there is."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from msgspec import Struct

from chimera.platform.logs import LogQuery
from chimera.platform.model import CellSpec, Endpoint
from chimera.platform.report import CellRow, HostRow, IncidentRow, Top


class RunningCall(Struct, frozen=True, kw_only=True):
    """A call that a host was running, as its black box tells after its death. `seconds` is how long it had run."""

    agent: str
    call: str
    seconds: float


class HostExit(Struct, frozen=True, kw_only=True):
    """How a host ended: exit code or signal in words, and the calls that were running."""

    host: str
    cell: str
    cause: str
    expected: bool
    calls: tuple[RunningCall, ...] = ()


class HostLauncher(Protocol):
    """Starts hosts of cells on this machine. Raises `HostStartFailed` with the reason and the next step."""

    def on_exit(self, callback: Callable[[HostExit], None]) -> None:
        """Call `callback` in the event loop each time a host ends, whatever the cause."""

    async def start(self, cell: CellSpec, host: str) -> Endpoint:
        """Start a host; its socket takes connections when this returns, though it may still be starting."""

    async def ready(self, host: str) -> bool:
        """Whether the host answers its readiness probe."""

    async def alive(self, host: str) -> bool:
        """Whether the host answers its liveness probe in time."""

    async def stop(self, host: str, grace: float) -> None:
        """Ask it to drain and end; after `grace` seconds it is killed. Returns when it is gone."""

    def memory(self) -> dict[str, int]:
        """Resident bytes of each running host."""

    async def close(self) -> None:
        """Stop everything that was started."""


class Report(Protocol):
    """What people see of the hosts of a home (`platform.report`), and what its processes log."""

    async def cells(self) -> Sequence[CellRow]:
        """All cells that hosts were asked of."""

    async def hosts(self) -> Sequence[HostRow]:
        """All hosts that are there."""

    async def incidents(self) -> Sequence[IncidentRow]:
        """Hosts that ended unexpectedly, the newest first."""

    async def top(self) -> Top:
        """Processes, cells, hosts with what they have loaded, the newest incidents."""

    async def logs(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """The newest lines, oldest first, each a JSON object; then, where it follows, new ones until `gone`."""
