"""The node agent as the gateway sees it: a `HostPool` over HTTP on a Unix socket.

Endpoints come by a long poll, numbered, so looking one up is a dictionary access. What was seen stays valid while the
node agent is away: running hosts go on taking calls. Calls in flight are averaged over time for each cell and sent once
a second in one request for all.

A host that broke a call takes no other from the moment that it is reported: a list of endpoints brings it back only if
it was asked for after the node agent had heard of it, which then lists no host that it hasn't looked at.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from chimera.gateway.errors import NodeUnavailable
from chimera.kernel.clock import Clock
from chimera.platform.model import BROKEN, CellSpec, Endpoint
from chimera_host.contract.problem import Problem, RemoteProblem

log = logging.getLogger(__name__)

BASE = "http://node"
LONG_POLL = 25.0
RETRY = 0.5
TIMEOUT = 10.0


class CellEndpoints(Struct, frozen=True, kw_only=True):
    """Endpoints of the cell that was woken."""

    version: int
    endpoints: list[Endpoint]


class AllEndpoints(Struct, frozen=True, kw_only=True):
    """Endpoints of all cells, at a version."""

    version: int
    cells: dict[str, list[Endpoint]]


_encode = msgspec.json.Encoder().encode
_woken = msgspec.json.Decoder(CellEndpoints)
_all = msgspec.json.Decoder(AllEndpoints)
_problems = msgspec.json.Decoder(Problem)


class InFlightAverages:
    """Time-weighted averages of calls in flight by cell, since the last sample."""

    def __init__(self, now: float) -> None:
        """Begin at `now`."""
        self._since = now
        self._cells: dict[str, list[float]] = {}  # level, area so far, time of the last change

    def set(self, cell: str, level: int, now: float) -> None:
        """From `now` on `cell` has `level` calls."""
        kept = self._cells.get(cell)
        if kept is None:
            self._cells[cell] = [level, 0.0, now]
            return
        kept[1] += kept[0] * (now - kept[2])
        kept[0] = level
        kept[2] = now

    def sample(self, now: float) -> dict[str, float]:
        """The averages up to `now`; begins anew. A cell is named once more after its last call, as empty."""
        span = now - self._since
        self._since = now
        averages: dict[str, float] = {}
        for cell, kept in list(self._cells.items()):
            level, area, changed = kept
            began = max(changed, now - span)
            averages[cell] = round((area + level * (now - began)) / span, 4) if span > 0 else float(level)
            if level == 0 and area == 0:
                del self._cells[cell]
            else:
                kept[1], kept[2] = 0.0, now
        return averages


class NodeClient:
    """A `HostPool` of the node agent's. Made inside the event loop; `run` it, `aclose` it when done."""

    def __init__(self, socket: str, clock: Clock, *, sample: float = 1.0) -> None:
        """Reach the node agent at the Unix socket `socket`; report calls in flight every `sample` seconds."""
        self._clock = clock
        self._sample = sample
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
        )
        self._averages = InFlightAverages(clock.monotonic())
        self._cells: dict[str, list[Endpoint]] = {}
        self._version = 0
        self._broken: dict[str, bool] = {}  # hosts that broke a call; whether the node agent has heard of it
        self._changed: Callable[[str], None] = lambda _: None

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each cell whose endpoints changed."""
        self._changed = callback

    def on_new_side(self, warmer: object) -> None:
        """Nothing: a machine's cells have no revisions."""

    # -- HostPool -------------------------------------------------------------------------------------------------

    def endpoints(self, cell: str) -> Sequence[Endpoint]:
        """Hosts of `cell` that take calls, from the newest report."""
        found = self._cells.get(cell, ())
        return [one for one in found if one.host not in self._broken] if self._broken else found

    async def wake(self, cell: CellSpec, within: float) -> Sequence[Endpoint]:
        """Have a host of `cell` running; raises the node agent's reason where there is none."""
        heard = self._heard()
        body = await self._request(
            "POST", f"/v1/cells/{quote(cell.cell, safe='')}/wake?within={within:.3f}", _encode(cell), within + TIMEOUT
        )
        found = _woken.decode(body)
        if found.version >= self._version:
            self._cells[cell.cell] = found.endpoints
            self._clear({one.host for one in found.endpoints} & heard)
            self._changed(cell.cell)
        return self.endpoints(cell.cell)

    async def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """Tell the node agent that `host` failed a call; one that broke it is left out until it was looked at."""
        body = _encode({"kind": kind, "agent": agent, "call": call})
        if kind in BROKEN:
            self._broken[host] = False
        try:
            await self._request("POST", f"/v1/hosts/{quote(host, safe='')}/report", body, TIMEOUT)
        finally:
            if host in self._broken:
                self._broken[host] = True

    def observe(self, cell: str, in_flight: int) -> None:
        """`cell` has `in_flight` calls now."""
        self._averages.set(cell, in_flight, self._clock.monotonic())

    # -- loops ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow endpoints and report calls in flight, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self._follow), name="node-endpoints")
            group.create_task(self._for_ever(self._tell), name="node-stats")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _for_ever(self, step: Callable[[], Awaitable[None]]) -> None:
        away = False
        while True:
            try:
                await step()
                away = False
            except (NodeUnavailable, RemoteProblem, msgspec.MsgspecError) as error:
                if not away:
                    log.warning("the node agent is away: %s", error)
                away = True
                await asyncio.sleep(RETRY)

    async def _follow(self) -> None:
        path = f"/v1/endpoints?after={self._version}&wait={LONG_POLL:.0f}"
        heard = self._heard()
        try:
            found = _all.decode(await self._request("GET", path, None, LONG_POLL + TIMEOUT))
        except NodeUnavailable:
            self._version = 0  # a node agent that starts again counts from the beginning
            raise
        self._take(found.version, found.cells, heard)

    def _take(self, version: int, cells: Mapping[str, list[Endpoint]], heard: set[str]) -> None:
        before = {cell: list(self.endpoints(cell)) for cell in self._cells.keys() | cells.keys()}
        self._version = version
        self._cells = dict(cells)
        self._clear(heard)
        for cell, endpoints in before.items():
            if endpoints != list(self.endpoints(cell)):
                self._changed(cell)

    def _heard(self) -> set[str]:
        """Broken hosts of which the node agent has heard: what it is asked from now on takes them into account."""
        return {host for host, heard in self._broken.items() if heard}

    def _clear(self, heard: set[str]) -> None:
        """Go by the newest list again for these hosts, unless they broke another call meanwhile."""
        self._broken = {host: told for host, told in self._broken.items() if host not in heard or not told}

    async def _tell(self) -> None:
        await asyncio.sleep(self._sample)
        averages = self._averages.sample(self._clock.monotonic())
        if averages:
            await self._request("POST", "/v1/stats", _encode({"cells": averages}), TIMEOUT)

    async def _request(self, method: str, path: str, body: bytes | None, within: float) -> bytes:
        headers: dict[str, Any] | None = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with (
                asyncio.timeout(within),
                self._session.request(method, BASE + path, data=body, headers=headers) as answer,
            ):
                data = await answer.read()
        except (aiohttp.ClientError, OSError) as error:  # OSError covers the time-out
            raise NodeUnavailable(
                f"the node agent does not answer ({type(error).__name__}: {error})",
                next_step="see `chimera status`; hosts that run go on",
                retry_after=2,
            ) from error
        if answer.status >= 400:
            try:
                raise RemoteProblem(_problems.decode(data))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise NodeUnavailable(f"the node agent answered {answer.status}", retry_after=2) from None
        return data
