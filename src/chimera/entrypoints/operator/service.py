"""The operator as a whole: a loop for each kind, all of them while this process holds the lease."""

import asyncio
from dataclasses import dataclass
from typing import Any

from chimera.adapters.storage.carrying import StoredCarriers
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Changes
from chimera.entrypoints.operator.agents import AgentLoop
from chimera.entrypoints.operator.cells import CellLoop
from chimera.entrypoints.operator.claiming import Claims
from chimera.entrypoints.operator.delivering import Deliveries
from chimera.entrypoints.operator.governing import Rollouts
from chimera.entrypoints.operator.loop import Loop
from chimera.entrypoints.operator.rollouts import RolloutLoop
from chimera.entrypoints.operator.templates import TemplateLoop
from chimera.entrypoints.operator.writing import StatusWriter
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held

LEASE = "operator"
LEASE_LIFE = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What brings Agents to production that may not go live at once."""

    carriers: StoredCarriers
    changes: Changes
    rollouts: RolloutService


class Operator:
    """Carries resources into the catalogue, and their statuses back. `run` it; several may, and one works."""

    def __init__(
        self,
        api: Kubernetes,
        catalogue: Catalogue,
        clock: Clock,
        settings: OperatorSettings,
        *,
        cells: str,
        installation: str,
        delivery: Delivery,
        conditions: StoredConditions | None = None,
    ) -> None:
        """Nothing runs yet; `cells` is the namespace of cells, `conditions` those that are kept of them.

        `installation` is the namespace of the platform, by which other namespaces name whose they are; `delivery` is
        what Agents are handed to that may not go live at once.
        """
        self.claims = Claims(api, installation)
        self.templates = TemplateLoop(api, catalogue, clock, settings, self.claims)
        self.governed = Rollouts(api, delivery.rollouts.policy)
        deliveries = Deliveries(catalogue, delivery.carriers, delivery.changes, delivery.rollouts, settings)
        self.agents = AgentLoop(
            *(api, catalogue, clock, settings, self.templates.templates),
            *(self.claims, deliveries, self.governed),
        )
        self.rollouts = RolloutLoop(
            *(api, catalogue, clock, settings, self.claims),
            *(self.governed, delivery.rollouts, delivery.changes),
        )
        self.cells = CellLoop(api, catalogue, clock, settings, cells, conditions)
        self.loops: tuple[Loop, ...] = (self.templates, self.agents, self.rollouts, self.cells)
        self.leading = False
        self.templates.templates.on_change(self.agents.templates_changed)

    @property
    def writers(self) -> dict[str, StatusWriter[Any]]:
        """What writes statuses, by kind."""
        return {one.kind: one.writer for one in (self.templates, self.agents, self.rollouts, self.cells)}

    @property
    def followed(self) -> tuple[Following[Any], ...]:
        """The watches, one for each kind."""
        return (
            *self.claims.followed,
            self.templates.templates,
            self.governed.rollouts,
            self.agents.agents,
            self.cells.cells,
            self.cells.services,
            self.cells.revisions,
        )

    async def run(self, leases: Leases, owner: str) -> None:
        """Work whenever `owner` holds the lease, until cancelled."""
        await work_while_held(leases, LEASE, owner, LEASE_LIFE, self.work)

    async def work(self, held: Lease) -> None:
        """Work until cancelled, or until another process holds the lease."""
        self.leading = True
        try:
            async with asyncio.TaskGroup() as tasks:
                for following in self.followed:
                    tasks.create_task(following.run(), name="follow")
                for loop in self.loops:
                    tasks.create_task(loop.run(held), name=f"operator-{loop.kind}")
        finally:
            self.leading = False
