"""The control plane's HTTP application: the catalogue, change requests, upkeep, and the process's own health."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web
from prometheus_client.registry import Collector

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.agents.api import CatalogueStatus
from chimera.agents.archive import read_archive
from chimera.agents.requirements import FILE_NAME
from chimera.delivery.evidence.service import Evidence
from chimera.delivery.service import Changes
from chimera.entrypoints.control_plane.applying import Applying
from chimera.entrypoints.control_plane.changes import ChangeHandlers
from chimera.entrypoints.control_plane.conditions import ConditionHandlers
from chimera.entrypoints.control_plane.evidence import EvidenceHandlers
from chimera.entrypoints.control_plane.http import MAX_BODY, METRICS_TYPE, Metrics, UnknownPath, answer
from chimera.entrypoints.control_plane.jaegis import JaegisHandlers
from chimera.entrypoints.control_plane.looking import Looking
from chimera.entrypoints.control_plane.rolling import Rolling
from chimera.entrypoints.control_plane.rollouts import RolloutHandlers
from chimera.entrypoints.control_plane.sources import SourceHandlers
from chimera.entrypoints.control_plane.trials import TrialHandlers
from chimera.entrypoints.control_plane.upkeep import UpkeepHandlers
from chimera.entrypoints.control_plane.upkeep_metrics import UpkeepMetrics
from chimera.entrypoints.published.catalogue import CATALOGUE
from chimera.entrypoints.published.changes import CHANGES
from chimera.entrypoints.published.conditions import CONDITIONS
from chimera.entrypoints.published.evidence import EVIDENCE
from chimera.entrypoints.published.jaegis import JAEGIS
from chimera.entrypoints.published.operation import Operation
from chimera.entrypoints.published.rollouts import ROLLOUTS
from chimera.entrypoints.published.sources import SOURCES
from chimera.entrypoints.published.trials import TRIALS
from chimera.entrypoints.published.upkeep import UPKEEP
from chimera.jaegis.service import Jaegis
from chimera.kernel.clock import SystemClock
from chimera.platform.upkeep.service import Upkeep


class ControlPlaneApp:
    """Routes and handlers. `changed` is called after each change (a hint, not a promise)."""

    def __init__(
        self,
        catalogue: Catalogue,
        changed: Callable[[], None],
        upkeep: Upkeep,
        conditions: StoredConditions,
        changes: Changes,
        sources: SourceHandlers,
        rollouts: RolloutHandlers,
        *,
        trials: TrialHandlers,
        shown: Sequence[Collector] = (),
        jaegis: Jaegis | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        """Serve `catalogue`, what `upkeep` does, `conditions`, `changes`, `sources`, `trials`, and what `jaegis` says.

        `shown` are further metrics of the process. Without a `jaegis` one judges by the default settings; without
        `evidence` of revisions none is served.
        """
        self._catalogue = catalogue
        self._conditions = conditions
        self._changes = changes
        self._sources = sources
        self._rollouts = rollouts
        self._changed = changed
        self._upkeep = upkeep
        self._jaegis = jaegis or Jaegis(catalogue, SystemClock())
        self._evidence = evidence
        self._trials = trials
        self._metrics = Metrics()
        for collector in (UpkeepMetrics(upkeep.progress), *shown):
            self._metrics.registry.register(collector)

    def make(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._metrics.middleware])
        applying = Applying(self._catalogue, self._changed, self._changes.check_direct)
        handlers = {
            **applying.handlers(),
            **Looking(self._catalogue, self._changed, self._changes.check_direct).handlers(),
            **Rolling(self._catalogue, self._changed, self._changes.check_rollback).handlers(),
            **ChangeHandlers(self._changes).handlers(),
            **self._rollouts.handlers(),
            **self._trials.handlers(),
            **UpkeepHandlers(self._upkeep).handlers(),
            **ConditionHandlers(self._conditions).handlers(),
            **JaegisHandlers(self._jaegis, applying.take).handlers(),
            **self._sources.handlers(),
            "status": self._status,
        }
        operations: tuple[Operation, ...] = (
            *(*CATALOGUE, *CHANGES, *ROLLOUTS, *SOURCES, *TRIALS),
            *(*UPKEEP, *CONDITIONS, *JAEGIS),
        )
        if self._evidence is not None:
            handlers.update(EvidenceHandlers(self._catalogue, self._evidence).handlers())
            operations += EVIDENCE
        for operation in operations:
            app.router.add_route(operation.method, operation.path, handlers.pop(operation.name))
        if handlers:
            raise AssertionError(f"not published: {', '.join(handlers)}")
        # For the platform alone: the gateway doesn't pass these on.
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/v1/requirements/{digest}", self._requirements)
        return app

    async def _livez(self, _: web.Request) -> web.StreamResponse:
        return answer({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        await self._catalogue.status()
        return answer({"status": "ok"})

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return answer(msgspec.convert(await self._catalogue.status(), CatalogueStatus))

    async def _requirements(self, request: web.Request) -> web.StreamResponse:
        """For the node agent, which makes the environment."""
        digest = request.match_info["digest"]
        bundle = await self._catalogue.bundle_with_requirements(digest)
        if bundle is None:
            raise UnknownPath(
                f"no source folder has requirements with the digest {digest}", next_step="apply the agent again"
            )
        files = await asyncio.to_thread(read_archive, bundle, name="bundle.tar.gz")
        return web.Response(body=files[FILE_NAME].data, content_type="text/plain")

    async def _page(self, _: web.Request) -> web.StreamResponse:
        page = self._metrics.exposition(
            await self._catalogue.status(), await self._changes.counts(), await self._rollouts.counts()
        )
        return web.Response(body=page, headers={"Content-Type": METRICS_TYPE})
