"""One loop over all cells: what the catalogue wants against what the cluster has, and the plan between them applied.

The catalogue is asked for one number; only where that changed are its cells read. The cluster is seen by two watches,
of Knative Services and of their revisions. So a platform where nothing changes costs a read of one number a second, two
watch requests in five minutes, and no write at all (a test counts). Writes are spread to a bounded rate. Where the
cluster itself is the trouble, the pass ends and everything waits, so that 200 cells don't knock 200 times.

Several may run; a lease sees to it that one does (`bootstrap`).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, REVISIONS, KnativeService, Revision
from chimera.adapters.substrates.knative.plan import (
    Action,
    Apply,
    CellState,
    Keep,
    Memory,
    Phase,
    Plan,
    Wanted,
    applied,
    concerns_all,
    failed,
    plan,
)
from chimera.adapters.substrates.knative.render import HostBounds, Json, NotRunnable, carrying, render, scale
from chimera.adapters.substrates.knative.rollout import Pace
from chimera.adapters.substrates.knative.seeing import observed
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.clock import Clock
from chimera.platform.model import CellSpec
from chimera.platform.warm import keep
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

CATALOGUE_RETRY = 5.0


class CellSource(Protocol):
    """Where wanted cells come from: the catalogue."""

    async def sequence(self) -> int:
        """A number that grows with every change of an agent."""

    async def live_cells(self) -> Sequence[CellSpec]:
        """The cells that live agents belong to."""


class Reconciler:
    """Keeps Knative Services as the catalogue wants them. `run` it in one process at a time."""

    def __init__(
        self,
        api: Kubernetes,
        source: CellSource,
        clock: Clock,
        settings: KnativeSettings,
        bounds: HostBounds,
        *,
        told: Callable[[Sequence[CellState]], None] = lambda _: None,
    ) -> None:
        """Nothing runs before `run`; `told` gets the states of all cells whenever one of them changed."""
        self._api = api
        self._source = source
        self._clock = clock
        self._settings = settings
        self._bounds = bounds
        self._told = told
        self._services: Following[KnativeService] = Following(
            api, KNATIVE_SERVICES, namespace=settings.namespace, selector=names.managed()
        )
        self._revisions: Following[Revision] = Following(
            api, REVISIONS, namespace=settings.namespace, selector=names.managed()
        )
        self._services.on_change(self._changed)
        self._revisions.on_change(self._changed)
        self._poked = asyncio.Event()
        self._manifests: dict[str, Json] = {}
        self._wanted: dict[str, Wanted] = {}
        self._sequence = -1
        self._read_at = float("-inf")
        self._memory: dict[str, Memory] = {}
        self._look_again: float | None = None
        self._pause_until = 0.0
        self._watchers: list[Callable[[], None]] = []
        self.states: tuple[CellState, ...] = ()
        self.planned = False
        self.passes = 0

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever Services or states changed."""
        self._watchers.append(callback)

    @property
    def services(self) -> Following[KnativeService]:
        """The Knative Services as they are seen."""
        return self._services

    @property
    def revisions(self) -> Following[Revision]:
        """Their revisions."""
        return self._revisions

    @property
    def failure(self) -> ClusterError | None:
        """Why the cluster isn't seen, while it isn't."""
        return self._services.failure or self._revisions.failure

    def poke(self) -> None:
        """Look at the catalogue now: it may have changed."""
        self._poked.set()

    async def run(self) -> None:
        """Reconcile until cancelled; begun again, it begins from what is there: another may have run meanwhile."""
        self._memory, self._sequence, self._look_again, self.planned = {}, -1, None, False
        following = [
            asyncio.create_task(self._services.run(), name="knative-services"),
            asyncio.create_task(self._revisions.run(), name="knative-revisions"),
        ]
        try:
            await self._services.synced.wait()
            await self._revisions.synced.wait()
            while True:
                await self._turn()
        finally:
            for one in following:
                one.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _turn(self) -> None:
        try:
            wanted_changed = await self._read()
        except ProblemError as error:
            log.warning("the catalogue can't be read", extra={"error": error.detail})
            await asyncio.sleep(CATALOGUE_RETRY)
            return
        due = self._look_again is not None and self._clock.monotonic() >= self._look_again
        if wanted_changed or due or self._poked.is_set():
            self._poked.clear()
            await self._pass()
        try:
            async with asyncio.timeout(self._settings.poll):
                await self._poked.wait()
        except TimeoutError:
            pass

    async def _read(self) -> bool:
        """Read the wanted cells where the catalogue changed; whether they were read."""
        now = self._clock.monotonic()
        sequence = await self._source.sequence()
        if sequence == self._sequence and now - self._read_at < self._settings.resync:
            return False
        manifests: dict[str, Json] = {}
        wanted: dict[str, Wanted] = {}
        settings = self._settings
        cells = await self._source.live_cells()
        kept = keep(cells, pool=settings.warm_pool, most=settings.most_kept, most_hosts=settings.max_hosts)
        for cell in cells:
            name = names.service_name(cell.cell, cell.runtime_class.framework)
            warm = kept[cell.cell]
            least = warm.kept if settings.warm_in_template else warm.least
            try:
                manifest = render(msgspec.structs.replace(cell, min_hosts=least), settings, self._bounds)
            except NotRunnable as error:
                wanted[name] = Wanted(cell=cell.cell, fault=(error.detail, error.next_step or ""))
            else:
                manifests[name] = manifest
                wanted[name] = Wanted(
                    cell=cell.cell,
                    digest=manifest["metadata"]["annotations"][names.DIGEST],
                    least=least,
                    kept=warm.kept,
                    asked=warm.wanted,
                    most=scale(cell, settings)[1],
                    initial=settings.initial_scale,
                )
        self._manifests, self._wanted = manifests, wanted
        self._sequence, self._read_at = sequence, now
        return True

    async def _pass(self) -> None:
        now = self._clock.monotonic()
        self.passes += 1
        if now < self._pause_until:
            self._look_again = self._pause_until
            return
        decided = self._plan(now)
        self._memory = dict(decided.memory)
        for number, action in enumerate(decided.actions):
            if number:
                await asyncio.sleep(1.0 / self._settings.writes_per_second)
            try:
                await self._act(action)
            except ClusterError as error:
                now = self._clock.monotonic()
                want = self._wanted.get(action.name)
                known = self._memory.get(action.name, Memory())
                digest = want.digest if want else ""
                self._memory[action.name] = failed(known, error, digest, now, jitter=random.random())
                log.warning(
                    "a cell was not changed",
                    extra={"service": action.name, "code": error.code, "error": error.detail},
                )
                if concerns_all(error):
                    self._pause_until = self._memory[action.name].not_before
                    break
        # What was done and what failed is told at once, and what is due is known, without another look at the cluster.
        decided = self._plan(self._clock.monotonic())
        now = self._clock.monotonic()
        due = [self._pause_until] if self._pause_until > now else []
        due += [decided.look_again] if decided.look_again is not None else []
        if decided.actions and not due:
            due = [now]  # what failed first became due while the others were tried
        self._look_again = min(due) if due else None
        self._tell(decided.states)

    def _plan(self, now: float) -> Plan:
        settings = self._settings
        return plan(
            self._wanted,
            observed(self._services.objects.values(), self._revisions.objects.values()),
            self._memory,
            now,
            most=settings.most_cells,
            grace=settings.unused_grace,
            pace=Pace(
                steps=settings.rollout_steps,
                pause=settings.rollout_pause,
                hold=settings.rollout_hold,
                start_timeout=settings.start_timeout,
                retry=settings.rollout_retry,
                start_retry=settings.start_retry,
            ),
            rollouts=settings.rollouts,
        )

    async def _act(self, action: Action) -> None:
        if isinstance(action, Apply):
            # The fields are Chimera's own: whoever else set one is overruled, and named in the object's history.
            manifest = carrying(
                self._manifests[action.name],
                action.traffic,
                initial=action.initial,
                attempt=action.attempt,
                failed=action.failed,
            )
            before = self._services.objects.get((self._settings.namespace, action.name))
            made = await self._api.apply(KNATIVE_SERVICES, manifest, force=True)
            self._services.take(made, before)
            self._memory[action.name] = applied(self._memory.get(action.name, Memory()), made.metadata.generation)
            log.info("cell applied", extra={"service": action.name, "reason": action.reason})
            return
        if isinstance(action, Keep):
            kept = self._revisions.objects.get((self._settings.namespace, action.revision))
            self._revisions.take(await self._api.apply(REVISIONS, self._minimum(action), force=True), kept)
            log.info("revision kept", extra={"revision": action.revision, "least": action.least})
            return
        await self._api.delete(KNATIVE_SERVICES, self._settings.namespace, action.name, uid=action.uid)
        self._services.drop(self._settings.namespace, action.name)
        self._memory.pop(action.name, None)
        log.info("cell deleted", extra={"service": action.name, "reason": action.reason})

    def _minimum(self, action: Keep) -> Json:
        """Nothing of a revision but its fewest pods, which Knative's autoscaler takes from there."""
        return {
            "apiVersion": REVISIONS.api_version,
            "kind": REVISIONS.kind,
            "metadata": {
                "name": action.revision,
                "namespace": self._settings.namespace,
                "uid": action.uid,
                "annotations": {names.MIN_SCALE: str(action.least)},
            },
        }

    def _changed(self, _: Iterable[KnativeService | Revision]) -> None:
        self._poked.set()
        for watcher in self._watchers:
            watcher()

    def _tell(self, states: tuple[CellState, ...]) -> None:
        first, self.planned = not self.planned, True
        if states != self.states or first:
            for watcher in self._watchers:
                watcher()
        if states == self.states:
            return
        before = set(self.states)
        for state in states:
            if state not in before and state.phase in (Phase.FAILED, Phase.HELD):
                said = {"cell": state.cell, "service": state.service, "phase": state.phase.value}
                log.warning("a cell has trouble", extra={**said, "cause": state.cause, "next_step": state.next_step})
        self.states = states
        self._told(states)
