"""Routes in memory: everything the gateway must know of an agent to take a call, read from the catalogue by sequence.

Whoever is told "sequence n" by the control plane asks for `at_least(n)` and reads its own writes; what others changed
arrives with the next poll. The table is read from the database itself, so a gateway starts and goes on while the
control plane is away. One refresh at a time; a failed one leaves the table as it was.

An agent that is rolled out and was never live, or is deleted, has no live route. Its green side is all there is, and
gets its calls: whoever is rolled out with it may call it already. Such agents are read before what is live, and those
that are none any more forgotten after it, so that one that becomes live is there at every moment.
"""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal

from chimera.gateway.errors import AgentNotFound, ProtocolNotOffered
from chimera.gateway.ports import RouteSource
from chimera.platform.model import CellSpec, Route

log = logging.getLogger(__name__)


Protocol = Literal["http", "sse", "openai", "agent", "task", "event", "message"]
"""A way to reach an agent; `agent` is another agent's call, which that one's own `integration_points` allow.

A `task` reaches agents that offer `http`: it is a call whose answer is fetched later. An `event` and a `message` of
another agent reach those that offer `events`.
"""


_OFFERED: dict[Protocol, str] = {"task": "http", "event": "events", "message": "events"}


def offers(route: Route, protocol: Protocol) -> bool:
    """Whether the agent's `communication_protocols` name `protocol`; agents reach agents in any case."""
    return protocol == "agent" or _OFFERED.get(protocol, protocol) in route.protocols


def check_offered(route: Route, protocol: Protocol) -> None:
    """Raise `ProtocolNotOffered` unless the agent's `communication_protocols` name `protocol`."""
    if not offers(route, protocol):
        raise ProtocolNotOffered(
            f"agent {route.agent} can't be reached by {_OFFERED.get(protocol, protocol)}",
            next_step=f"it offers {', '.join(route.protocols) or 'nothing'}: see `communication_protocols`",
            agent=route.agent,
        )


class RouteTable:
    """All live routes."""

    def __init__(self, source: RouteSource, *, page: int) -> None:
        """Read from `source`, `page` routes at once. Empty until the first `refresh`."""
        self._source = source
        self._page = page
        self._routes: dict[tuple[str, str], Route] = {}
        self._cells: dict[str, CellSpec] = {}
        self._names: dict[str, list[str]] = {}
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[int] | None = None
        self._told: list[Callable[[Route], None]] = []
        self._sided: dict[tuple[str, str], None] = {}
        self._new: dict[tuple[str, str], Route] = {}
        self._seen = -1
        self.sequence = 0
        self.loaded = False

    def __len__(self) -> int:
        """How many agents are live."""
        return len(self._routes)

    def find(self, tenant: str, agent: str) -> Route:
        """The live route of an agent, that of its green side where it has no other, or `AgentNotFound`."""
        route = self.known(tenant, agent)
        if route is None:
            raise AgentNotFound(
                f"tenant {tenant} has no agent {agent[:100]!r}",
                next_step="list them with `chimera get agents`; add one with `chimera apply`",
            )
        return route

    def known(self, tenant: str, agent: str) -> Route | None:
        """What `find` finds, where there is something."""
        return self._routes.get((tenant, agent)) or self._new.get((tenant, agent))

    def cells_of(self, agent: str) -> frozenset[str]:
        """The cells of the agents with this name, in all tenants, and of their other sides."""
        tables = (self._routes, self._new)
        named = [route for table in tables for (_, name), route in table.items() if name == agent]
        return frozenset(side.cell for route in named for side in (route, *route.others))

    def sided(self) -> list[Route]:
        """The live routes of agents that have other sides."""
        return [self._routes[key] for key in self._sided]

    def page(self, tenant: str, *, after: str | None, limit: int) -> tuple[list[Route], bool]:
        """At most `limit` live routes that offer `openai`, by name above `after`, and whether there are more."""
        names = self._names.get(tenant)
        if names is None:
            names = sorted(
                name for (owner, name), route in self._routes.items() if owner == tenant and "openai" in route.protocols
            )
            self._names[tenant] = names
        start = 0 if after is None else bisect_right(names, after)
        found = [self._routes[tenant, name] for name in names[start : start + limit]]
        return found, start + limit < len(names)

    async def cell(self, cell: str) -> CellSpec:
        """A cell as desired; kept until routes change."""
        known = self._cells.get(cell)
        if known is None:
            known = await self._source.cell(cell)
            if known is None:
                raise AgentNotFound(f"no cell {cell!r} is known", next_step="apply the agent again")
            self._cells[cell] = known
        return known

    async def refresh(self) -> int:
        """Take over everything that changed; how many routes that was."""
        async with self._lock:
            return await self._read()

    def on_change(self, tell: Callable[[Route], None]) -> None:
        """Call `tell` with each route that changes, before anybody can find it."""
        self._told.append(tell)

    async def fresh(self) -> None:
        """Return when the table shows everything that was committed by now; several at once share a look."""
        waiting = self._next
        if waiting is None:
            waiting = self._next = asyncio.create_task(self._refresh_next(), name="routes-fresh")
        await asyncio.shield(waiting)

    async def _refresh_next(self) -> int:
        async with self._lock:
            self._next = None  # whoever comes from here on may ask for what this look doesn't see
            return await self._read()

    async def at_least(self, sequence: int) -> None:
        """Return when the table shows everything up to `sequence`, as far as the source has it."""
        if self.sequence < sequence:
            await self.refresh()

    async def follow(self, every: float) -> None:
        """Refresh for ever; a source that fails is asked again."""
        while True:
            try:
                await self.refresh()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("routes could not be read; the known ones stay")
            await asyncio.sleep(every)

    async def _read(self) -> int:
        new = await self._source.new_agents(self._seen, self._new)
        if new.sequence == self._seen:
            return 0
        changed = 0
        while True:
            routes = await self._source.changed_routes(self.sequence, self._page)
            for route in routes:
                key = (route.tenant, route.agent)
                for tell in self._told:
                    tell(route)
                self._sided.pop(key, None)
                if route.status == "live":
                    if route.others:
                        self._sided[key] = None
                    known = self._routes.get(key)
                    if known is None or known.protocols != route.protocols:
                        self._names.pop(route.tenant, None)
                    self._routes[key] = route
                elif self._routes.pop(key, None) is not None:
                    self._names.pop(route.tenant, None)
                self.sequence = route.sequence
            changed += len(routes)
            if len(routes) < self._page:
                break
        changed += self._take_new(new.changed)
        if changed:
            self._cells.clear()
        self._seen, self.loaded = new.sequence, True
        return changed

    def _take_new(self, routes: Sequence[Route]) -> int:
        """Take over what changed of agents that have no live route; how many that were."""
        for route in routes:
            key = (route.tenant, route.agent)
            if key not in self._routes:  # else it has become live, and what runs on it goes on
                for tell in self._told:
                    tell(route)
            if route.status == "live":
                self._new[key] = route
            else:
                self._new.pop(key, None)
        return len(routes)
