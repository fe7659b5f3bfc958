"""Finding a host for a call, and holding the call while there is none.

A call waits in one of two cases: its cell sleeps (the cell is woken, once for all who wait) or all its hosts are full
(the first in line takes the next free place). Both count against one bounded number of held calls. Waiting is
level-triggered: whoever wakes looks at the hosts again, so a lost notice costs a second, never a call.
"""

import asyncio
from collections.abc import Collection

from chimera.gateway.admission import Admission
from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.errors import CellUnavailable
from chimera.gateway.ports import HostPool
from chimera.gateway.routes import RouteTable
from chimera.platform import routing
from chimera.platform.model import CellSpec, Endpoint

LOOK_AGAIN = 1.0
RESERVE = 0.9
"""Calls from outside fill this share of a host; the rest is for agents that agents call, which would else deadlock."""


class Placer:
    """Chooses hosts, wakes cells, holds calls."""

    def __init__(
        self,
        *,
        pool: HostPool,
        routes: RouteTable,
        calls: CallTable,
        admission: Admission,
        host_concurrency: int,
        hold: float,
    ) -> None:
        """Hold a call at most `hold` seconds; a host takes `host_concurrency` calls."""
        self._pool = pool
        self._routes = routes
        self._calls = calls
        self._admission = admission
        self._most = host_concurrency
        self._most_from_outside = max(1, int(host_concurrency * RESERVE))
        self._hold = hold
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._line: dict[str, dict[asyncio.Event, None]] = {}

    async def place(self, call: InFlightCall, avoid: Collection[str]) -> Endpoint:
        """A host for `call` that isn't one of `avoid`; the call counts as running there from then on."""
        cell = call.route.cell
        if call.depth or not self._line.get(cell):
            found = self._choose(call, avoid)
            if found is not None:
                return found
        self._admission.hold()
        try:
            return await self._wait(call, avoid)
        finally:
            self._admission.unhold()

    def freed(self, cell: str) -> None:
        """A call of `cell` ended, or its hosts changed: let the first in line, who isn't looking already, look."""
        for turn in self._line.get(cell, ()):
            if not turn.is_set():
                turn.set()
                return

    async def aclose(self) -> None:
        """Stop waking."""
        for task in tuple(self._waking.values()):
            task.cancel()
        await asyncio.gather(*self._waking.values(), return_exceptions=True)

    def _choose(self, call: InFlightCall, avoid: Collection[str]) -> Endpoint | None:
        usable = [one for one in self._pool.endpoints(call.route.cell) if one.host not in avoid]
        weights = {endpoint.side: endpoint.weight for endpoint in usable}
        if len(weights) < 2:
            return self._choose_of(call, usable)
        for side in routing.sides(call.call, weights):
            if (found := self._choose_of(call, [one for one in usable if one.side == side])) is not None:
                return found
        return None

    def _choose_of(self, call: InFlightCall, endpoints: Collection[Endpoint]) -> Endpoint | None:
        by_host = {endpoint.host: endpoint for endpoint in endpoints}
        loads = {host: self._calls.on_host(host) for host in by_host}
        most = self._most if call.depth else self._most_from_outside
        host = routing.choose(f"{call.route.tenant}/{call.route.agent}", loads, most=most)
        if host is None:
            return None
        self._calls.place(call, host)
        return by_host[host]

    def _usable(self, cell: str, avoid: Collection[str]) -> bool:
        return any(endpoint.host not in avoid for endpoint in self._pool.endpoints(cell))

    async def _wait(self, call: InFlightCall, avoid: Collection[str]) -> Endpoint:
        loop = asyncio.get_running_loop()
        cell = call.route.cell
        until = min(call.deadline, loop.time() + self._hold)
        turn = asyncio.Event()
        line = self._line.setdefault(cell, {})
        line[turn] = None
        try:
            while (left := until - loop.time()) > 0:
                if self._usable(cell, avoid):
                    await _wait_for(turn, min(left, LOOK_AGAIN))
                else:
                    await self._wake(await self._routes.cell(cell), left)
                if (found := self._choose(call, avoid)) is not None:
                    turn.set()  # what is left of the room is for the next in line
                    return found
                if not self._usable(cell, avoid):
                    await _wait_for(turn, min(left, LOOK_AGAIN / 10))
        finally:
            del line[turn]
            if turn.is_set():
                self.freed(cell)
            if not line and self._line.get(cell) is line:
                del self._line[cell]
        raise CellUnavailable(
            f"no host of cell {cell} took the call of agent {call.route.agent} in {self._hold:.0f} s",
            next_step="see `chimera top` for how busy its hosts are; try again later",
            retry_after=5,
            agent=call.route.agent,
        )

    async def _wake(self, cell: CellSpec, left: float) -> None:
        task = self._waking.get(cell.cell)
        if task is None:
            task = asyncio.create_task(self._wake_for_all(cell), name=f"wake-{cell.cell}")
            task.add_done_callback(_seen)
            self._waking[cell.cell] = task
        try:
            async with asyncio.timeout(left):
                await asyncio.shield(task)
        except TimeoutError:
            raise CellUnavailable(
                f"cell {cell.cell} did not start within {left:.0f} s",
                next_step="see `chimera get conditions`, and `chimera logs --process hosts` for what its hosts printed",
                retry_after=5,
            ) from None

    async def _wake_for_all(self, cell: CellSpec) -> None:
        try:
            await self._pool.wake(cell, self._hold)
        finally:
            del self._waking[cell.cell]


def _seen(task: "asyncio.Task[None]") -> None:
    """Whoever waited got the error; all of them may have left before."""
    if not task.cancelled():
        task.exception()


async def _wait_for(turn: asyncio.Event, seconds: float) -> None:
    """Wait for one's turn, or for `seconds`: a lost notice costs no more than that."""
    timer = asyncio.get_running_loop().call_later(seconds, turn.set)
    try:
        await turn.wait()
        turn.clear()
    finally:
        timer.cancel()
