"""The loop over Cells: one for each cell of the catalogue, with its status, and the hosts that a person asks for.

A cell's number of hosts changes with its load. So that a busy platform doesn't write all the time, a status in which
nothing but numbers changed waits until `NUMBERS` seconds are over since the one before.
"""

import logging
from collections.abc import Sequence

import msgspec

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, KnativeService
from chimera.adapters.substrates.knative.plan import concerns_all
from chimera.adapters.substrates.knative.resources.cells import CellPlan, cell_manifest, hosts_of, plan_cells
from chimera.adapters.substrates.knative.resources.kinds import CELLS, REVISIONS, Cell, CellStatus, Key, Revision
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.resources.status import MANAGER, document
from chimera.entrypoints.operator.loop import Loop, moment_of
from chimera.entrypoints.operator.writing import StatusWriter
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.platform.conditions import Condition, cell_subject
from chimera.platform.model import CellSpec

log = logging.getLogger(__name__)

NUMBERS = 10.0
CONDITIONS = 10.0
"""Seconds between two looks at the conditions that control planes keep: one read of the database for all cells."""
REFUSED = 60.0
"""Seconds until a Cell that could not be made or deleted is tried again."""


class CellLoop(Loop):
    """Cells, in the namespace of cells."""

    kind = "cells"

    def __init__(
        self,
        api: Kubernetes,
        catalogue: Catalogue,
        clock: Clock,
        settings: OperatorSettings,
        namespace: str,
        conditions: StoredConditions | None = None,
    ) -> None:
        """Nothing is followed yet; `conditions` are those that control planes keep of the cells there."""
        super().__init__(catalogue, clock, settings)
        self._api = api
        self._conditions = conditions
        self._told: dict[str, Sequence[Condition]] = {}
        self._namespace = namespace
        self.cells: Following[Cell] = Following(api, CELLS, namespace=namespace, selector="")
        self.services: Following[KnativeService] = Following(
            api, KNATIVE_SERVICES, namespace=namespace, selector=names.managed()
        )
        self.revisions: Following[Revision] = Following(api, REVISIONS, namespace=namespace, selector=names.managed())
        for following in (self.cells, self.services, self.revisions):
            following.on_change(self.poke)
        self.writer = StatusWriter(api, CELLS, self.cells, clock, settings.statuses_per_second)
        self._wanted: dict[str, CellSpec] = {}
        self._agents: dict[str, int] = {}
        self._bounds: dict[str, int] | None = None
        self._numbers: dict[Key, float] = {}
        self._not_before: dict[str, float] = {}

    async def begin(self) -> None:
        """See `Loop`."""
        for following in (self.cells, self.services, self.revisions):
            await following.synced.wait()
        self._bounds = None

    async def follow(self) -> None:
        """See `Loop`."""
        cells = await self.catalogue.live_cells()
        self._wanted = {names.service_name(one.cell, one.runtime_class.framework): one for one in cells}
        self._agents = await self.catalogue.agents_in_cells()
        if self._bounds is None:
            self._bounds = await self.catalogue.bounds()

    async def look(self, held: Lease) -> float | None:
        """See `Loop`."""
        if self._conditions is not None:
            stored = await self._conditions.load()
            self._told = {name.removeprefix(cell_subject("")): found for name, found in stored.items()}
        decided = self._plan()
        again = await self._make_and_delete(decided)
        if self._conditions is not None:
            again.append(self.clock.monotonic() + CONDITIONS)
        if decided.bounds != self._bounds:
            await self.catalogue.put_bounds(decided.bounds, held=held)
            self._bounds = dict(decided.bounds)
            log.info("hosts that cells keep at least", extra={"cells": len(decided.bounds)})
        again += await self._tell(self._plan())
        return min(again) if again else None

    def _plan(self) -> CellPlan:
        return plan_cells(
            self._wanted,
            self._agents,
            {name: one for (_, name), one in self.cells.objects.items()},
            {name: one for (_, name), one in self.services.objects.items()},
            hosts_of(self.revisions.objects.values()),
            moment_of(self.clock),
            told=self._told,
        )

    async def _make_and_delete(self, decided: CellPlan) -> list[float]:
        now = self.clock.monotonic()
        self._not_before = {name: due for name, due in self._not_before.items() if due > now}
        going = {name: self.cells.objects[self._namespace, name].metadata.uid for name in decided.delete}
        for name in (*decided.make, *going):
            if name in self._not_before:
                continue
            here = self.cells.objects.get((self._namespace, name))
            try:
                if name not in going:
                    manifest = cell_manifest(name, self._namespace)
                    made = await self._api.apply(CELLS, manifest, force=True, manager=MANAGER)
                    self.cells.take(made, None)
                elif here is not None and here.metadata.uid == going[name]:  # not gone, nor made anew
                    await self._api.delete(CELLS, self._namespace, name, uid=going[name])
                    self.cells.drop(self._namespace, name)
            except ClusterError as error:
                if concerns_all(error):
                    raise
                self._not_before[name] = now + max(REFUSED, error.retry_after or 0.0)
                log.warning("a Cell was not made or deleted", extra={"object": name, "error": error.detail})
        return list(self._not_before.values())

    async def _tell(self, decided: CellPlan) -> list[float]:
        now = self.clock.monotonic()
        self.writer.keep(self.cells.objects)
        self._numbers = {key: at for key, at in self._numbers.items() if key in self.cells.objects}
        again: list[float] = []
        found = []
        for name, status in decided.statuses.items():
            key = (self._namespace, name)
            one = self.cells.objects.get(key)
            if one is None or status == one.status or not self.writer.may(key, now):
                continue
            due = self._numbers.get(key, float("-inf")) + NUMBERS
            if now < due and _without_numbers(status) == _without_numbers(one.status):
                again.append(due)
                continue
            self._numbers[key] = now
            found.append((key, document(CELLS, one.metadata, status)))
        await self.writer.write(found)
        if (due_again := self.writer.look_again()) is not None:
            again.append(due_again)
        return again


def _without_numbers(status: CellStatus) -> CellStatus:
    return msgspec.structs.replace(status, agents=0, replicas=0)
