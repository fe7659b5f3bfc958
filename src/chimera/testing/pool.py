"""A substrate in memory: hosts that a test adds, cells that wake when it says so."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from chimera.gateway.errors import CellUnavailable
from chimera.platform.model import CellSpec, Endpoint

Waker = Callable[[CellSpec], Awaitable[None]]


class FakeHostPool:
    """A `HostPool`. `on_wake` is called to start a cell's hosts (it adds them); without it a cell can't be woken."""

    def __init__(self, on_wake: Waker | None = None) -> None:
        """Start with no hosts."""
        self.on_wake = on_wake
        self.hosts: dict[str, list[Endpoint]] = {}
        self.woken: list[str] = []
        self.reports: list[tuple[str, str, str]] = []
        self.in_flight: dict[str, int] = {}
        self._changed: Callable[[str], None] = lambda _: None

    def add(self, endpoint: Endpoint) -> None:
        """A host takes calls."""
        self.hosts.setdefault(endpoint.cell, []).append(endpoint)
        self._changed(endpoint.cell)

    def remove(self, host: str) -> None:
        """A host takes no more calls."""
        for cell, endpoints in self.hosts.items():
            self.hosts[cell] = [endpoint for endpoint in endpoints if endpoint.host != host]
            self._changed(cell)

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each cell whose hosts changed."""
        self._changed = callback

    def on_new_side(self, warmer: object) -> None:
        """Nothing: its hosts are of one side."""

    def endpoints(self, cell: str) -> Sequence[Endpoint]:
        """Hosts of a cell."""
        return self.hosts.get(cell, ())

    async def wake(self, cell: CellSpec, within: float) -> Sequence[Endpoint]:
        """Start hosts of a cell."""
        self.woken.append(cell.cell)
        if self.on_wake is None:
            raise CellUnavailable(f"nothing starts cell {cell.cell}", next_step="give the fake `on_wake`")
        async with asyncio.timeout(within):
            await self.on_wake(cell)
        return self.endpoints(cell.cell)

    async def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """Note a report."""
        self.reports.append((host, kind, agent))

    def observe(self, cell: str, in_flight: int) -> None:
        """Note calls in flight."""
        self.in_flight[cell] = in_flight

    async def run(self) -> None:
        """Nothing to follow."""
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Nothing to close."""
