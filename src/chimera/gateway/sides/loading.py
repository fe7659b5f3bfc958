"""Loading green where blue is loaded, before it gets any call; and keeping warm what was live, for the way back.

One gateway does it at a time, under a lease. A pass asks each host of the cells concerned once what it has loaded, has
green loaded on the hosts that have blue (in a cell of its own: on as many of that one's hosts, which is woken for it),
asks these hosts again, and writes down for all agents at once how many hold it. Where blue is loaded nowhere nothing is
loaded: there the switch is a pointer. Green may take the place of what a host used least; what is kept warm may not.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chimera.gateway.calls import CallTable
from chimera.gateway.errors import HostFailed
from chimera.gateway.hosts import HostClient, HostGone
from chimera.gateway.ports import HostPool
from chimera.gateway.routes import RouteTable
from chimera.gateway.sides.ports import Loads, SideStore
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.platform import routing
from chimera.platform.model import Endpoint, Route
from chimera_host.contract.call import LoadRequest
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Agents that one host loads at a time."""
LOOK = 5.0
"""Seconds between two passes while agents have green sides; a new one begins a pass at once."""
TOUCH = 120.0
"""Seconds after which what is kept warm counts as used again; hosts give up what was idle for five minutes."""
WAKE = 60.0


@dataclass(kw_only=True, slots=True)
class _Pass:
    """What hosts hold, by host; and why revisions could not be loaded."""

    holds: dict[str, set[str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    asked_again: set[str] = field(default_factory=set)


class Loader:
    """Loads ahead for all agents that have other sides."""

    def __init__(
        self,
        store: SideStore,
        *,
        routes: RouteTable,
        pool: HostPool,
        hosts: HostClient,
        calls: CallTable,
        clock: Clock,
        platform_url: str | None = None,
    ) -> None:
        """Tell `store` what was loaded; hosts ask for revisions at `platform_url`, where they don't know another."""
        self._store = store
        self._routes = routes
        self._pool = pool
        self._hosts = hosts
        self._calls = calls
        self._clock = clock
        self._platform_url = platform_url
        self._touched: dict[tuple[str, str], float] = {}
        self._told: dict[tuple[str, str, str, str | None], Loads] = {}
        self._news = asyncio.Event()
        routes.on_change(self._changed)

    def _changed(self, route: Route) -> None:
        if route.others:
            self._news.set()

    async def run(self, held: Lease) -> None:
        """Work while this process holds the lease."""
        self._told.clear()
        while True:
            self._news.clear()
            try:
                await self.look(held)
            except ProblemError as error:
                log.warning("green sides could not be loaded ahead", extra={"problem": error.detail})
            try:
                async with asyncio.timeout(LOOK):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def look(self, held: Lease) -> int:
        """One pass; for how many agents something new was written down."""
        now = self._clock.wall()
        sided = self._routes.sided()
        there = {(one.tenant, one.revision) for live in sided for one in live.others}
        self._touched = {key: at for key, at in self._touched.items() if key in there}
        pairs = [(live, one) for live in sided for one in live.others if self._wanted(one, now)]
        if not pairs:
            return 0
        state = _Pass()
        cells = {cell for live, one in pairs for cell in (live.cell, one.cell)}
        await self._ask(state, [host for cell in cells for host in self._pool.endpoints(cell)])
        places = {_key(one): await self._places(live, one, state) for live, one in pairs}
        await self._load_all(state, [(one, host) for _, one in pairs for host in places[_key(one)]])
        await self._ask(state, [host for its in places.values() for host in its if host.host in state.asked_again])
        news, before, self._told = [], self._told, {}
        for live, one in pairs:
            if one.side == "kept":
                self._touched[one.tenant, one.revision] = now
                continue
            told = self._loads(live, one, places[_key(one)], state)
            # A side that is there again, of another rollout, is another row, of which nothing was written down yet.
            key = (*_key(one), one.rollout)
            if before.get(key) == told:
                self._told[key] = told
            else:
                news.append((key, told))
        if news:
            await self._store.loaded([told for _, told in news], held=held)
            self._told.update(news)
        return len(news)

    def _wanted(self, one: Route, now: float) -> bool:
        if one.unservable is not None or (one.until is not None and one.until <= now):
            return False
        return one.side == "green" or now - self._touched.get((one.tenant, one.revision), 0.0) >= TOUCH

    async def _places(self, live: Route, one: Route, state: _Pass) -> Sequence[Endpoint]:
        """The hosts where `one` is to be loaded."""
        holders = [host for host in self._pool.endpoints(live.cell) if live.revision in state.holds.get(host.host, ())]
        if one.cell == live.cell or not holders:
            return holders
        there = {host.host: host for host in self._pool.endpoints(one.cell)}
        if not there:
            try:
                woken = await self._pool.wake(await self._routes.cell(one.cell), WAKE)
            except ProblemError as error:
                state.problems[one.revision] = error.detail
                return ()
            there = {host.host: host for host in woken}
            await self._ask(state, there.values())
        ranked = routing.ranked(f"{one.tenant}/{one.agent}", there)
        return [there[name] for name in ranked[: len(holders)]]

    async def _ask(self, state: _Pass, hosts: Iterable[Endpoint]) -> None:
        async def one(host: Endpoint) -> None:
            try:
                report = await self._hosts.loaded(host)
            except (HostGone, HostFailed, ProblemError) as error:
                log.info("a host does not say what it has", extra={"host": host.host, "error": str(error)})
                return
            state.holds[host.host] = {str(each["revision"]) for each in report.agents if "revision" in each}

        await asyncio.gather(*(one(host) for host in {host.host: host for host in hosts}.values()))

    async def _load_all(self, state: _Pass, wanted: Sequence[tuple[Route, Endpoint]]) -> None:
        gates = {host.host: asyncio.Semaphore(AT_ONCE) for _, host in wanted}

        async def one(route: Route, host: Endpoint) -> None:
            if route.side == "green" and route.revision in state.holds.get(host.host, ()):
                return
            request = LoadRequest(
                tenant=route.tenant,
                agent=route.agent,
                revision=route.revision,
                platform_url=self._platform_url,
                make_room=route.side == "green",
            )
            async with gates[host.host]:
                try:
                    with self._calls.lent(route.revision, host=host.host, cell=route.cell):
                        await self._hosts.load(host, request)
                except (HostGone, ProblemError) as error:
                    state.problems[route.revision] = str(getattr(error, "detail", error))
                    log.info("not loaded ahead", extra={"agent": route.agent, "error": str(error)})
            state.asked_again.add(host.host)

        await asyncio.gather(*(one(route, host) for route, host in wanted))

    def _loads(self, live: Route, one: Route, places: Sequence[Endpoint], state: _Pass) -> Loads:
        holding = sum(one.revision in state.holds.get(host.host, ()) for host in places)
        wanted = len(places)
        if not places and one.revision in state.problems:
            wanted = 1  # its cell did not start
        problem = state.problems.get(one.revision) if holding < wanted else None
        if holding < wanted and problem is None:
            problem = "hosts gave it up again for others: they have no room for what is called there"
        return Loads(
            tenant=live.tenant,
            agent=live.agent,
            revision=one.revision,
            wanted=wanted,
            holding=holding,
            problem=problem,
        )


def _key(one: Route) -> tuple[str, str, str]:
    return one.tenant, one.agent, one.revision
