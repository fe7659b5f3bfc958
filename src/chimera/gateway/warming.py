"""Loading on new hosts what the old ones of a cell have loaded, before calls go there.

While a cell changes over, agents would all be loaded anew at their first call on the new side: a few milliseconds each,
seconds where they bring code. So before this gateway gives that side calls, it asks the hosts that serve what they have
loaded, and has each agent loaded on the new host that its calls will go to. What can't be loaded is left to its first
call, which says what is wrong with it.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chimera.gateway.calls import CallTable
from chimera.gateway.errors import HostFailed
from chimera.gateway.hosts import HostClient, HostGone
from chimera.gateway.routes import RouteTable
from chimera.platform import routing
from chimera.platform.model import Endpoint
from chimera_host.contract.call import LoadRequest
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Agents that one host loads at a time."""


class Loaded(NamedTuple):
    """An agent that hosts have loaded."""

    tenant: str
    agent: str


class Warmer:
    """Has agents loaded ahead of their calls."""

    def __init__(
        self, *, calls: CallTable, hosts: HostClient, routes: RouteTable, platform_url: str | None = None
    ) -> None:
        """Hosts ask for revisions at `platform_url`, where it isn't one that they know."""
        self._calls = calls
        self._hosts = hosts
        self._routes = routes
        self._platform_url = platform_url

    async def warm(self, cell: str, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> int:
        """Load on the hosts `after` what those `before` have; how many agents were loaded."""
        reports = await asyncio.gather(*(self._asked(endpoint) for endpoint in before))
        places: dict[str, list[Loaded]] = {endpoint.host: [] for endpoint in after}
        for one in dict.fromkeys(found for report in reports for found in report):
            places[routing.ranked(f"{one.tenant}/{one.agent}", places)[0]].append(one)
        done = await asyncio.gather(*(self._load(cell, endpoint, places[endpoint.host]) for endpoint in after))
        log.info("a cell's new side is warm", extra={"cell": cell, "hosts": len(after), "agents": sum(done)})
        return sum(done)

    async def _asked(self, endpoint: Endpoint) -> list[Loaded]:
        try:
            report = await self._hosts.loaded(endpoint)
        except (HostGone, HostFailed, ProblemError) as error:
            log.info("a host does not say what it has", extra={"host": endpoint.host, "error": str(error)})
            return []
        return [Loaded(tenant=str(one["tenant"]), agent=str(one["agent"])) for one in report.agents]

    async def _load(self, cell: str, endpoint: Endpoint, agents: Iterable[Loaded]) -> int:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(found: Loaded) -> bool:
            # As it is live now, which need not be what the old host has; one that moved or went is none of ours.
            route = self._routes.known(found.tenant, found.agent)
            if route is None or route.cell != cell:
                return False
            request = LoadRequest(
                tenant=route.tenant, agent=route.agent, revision=route.revision, platform_url=self._platform_url
            )
            async with gate:
                try:
                    with self._calls.lent(route.revision, host=endpoint.host, cell=cell):
                        await self._hosts.load(endpoint, request)
                except (HostGone, ProblemError) as error:
                    log.info("not loaded ahead", extra={"agent": route.agent, "error": str(error)})
                    return False
            return True

        return sum(await asyncio.gather(*(one(found) for found in agents)))
