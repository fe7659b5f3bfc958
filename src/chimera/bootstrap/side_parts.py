"""The sides of agents at the gateway, put together."""

from dataclasses import dataclass

from chimera.gateway.calls import CallTable
from chimera.gateway.documents import Documents
from chimera.gateway.hosts import HostClient
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.placing import Placer
from chimera.gateway.ports import HostPool
from chimera.gateway.routes import RouteTable
from chimera.gateway.sides.loading import Loader
from chimera.gateway.sides.ports import ObservationStore, SideStore
from chimera.gateway.sides.turns import Turns
from chimera.gateway.sides.watching import Watcher
from chimera.gateway.state.runs import Runs
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Leases, work_while_held

LEASE, LEASE_LIFE = "sides", 15.0
"""The lease under which one gateway loads ahead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SidePorts:
    """Where is written what is loaded ahead of rollouts, and what is seen of them."""

    loads: SideStore
    observations: ObservationStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """What the gateway does about sides. Without a store nothing is loaded ahead and nothing watched."""

    turns: Turns
    watcher: Watcher | None = None
    loader: Loader | None = None

    async def load(self, leases: Leases, owner: str) -> None:
        """Load ahead while this gateway holds the lease of it, until cancelled."""
        if self.loader is not None:
            await work_while_held(leases, LEASE, owner, LEASE_LIFE, self.loader.run)


def make_sides(
    ports: SidePorts | None,
    *,
    gateway: str,
    routes: RouteTable,
    calls: CallTable,
    pool: HostPool,
    hosts: HostClient,
    placer: Placer,
    runs: Runs,
    documents: Documents,
    metrics: GatewayMetrics,
    clock: Clock,
    platform_url: str | None,
) -> Sides:
    """The parts, for a gateway with this name."""
    watcher = None if ports is None else Watcher(ports.observations, gateway)
    turns = Turns(
        routes=routes,
        calls=calls,
        pool=pool,
        placer=placer,
        runs=runs,
        documents=documents,
        metrics=metrics,
        clock=clock,
        watcher=watcher,
    )
    if ports is None:
        return Sides(turns=turns)
    loader = Loader(
        ports.loads, routes=routes, pool=pool, hosts=hosts, calls=calls, clock=clock, platform_url=platform_url
    )
    return Sides(turns=turns, watcher=watcher, loader=loader)
