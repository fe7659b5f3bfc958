"""The control plane's HTTP application: the catalogue of agents, and the process's own health."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.agents.archive import read_archive
from chimera.agents.requirements import FILE_NAME
from chimera.entrypoints.control_plane.applying import Applying
from chimera.entrypoints.control_plane.http import MAX_BODY, METRICS_TYPE, Metrics, UnknownPath, answer
from chimera.entrypoints.control_plane.looking import Looking

TENANT = "/v1/tenants/{tenant}"


class ControlPlaneApp:
    """Routes and handlers. `changed` is called after each change (a hint, not a promise)."""

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None]) -> None:
        """Serve `catalogue`."""
        self._catalogue = catalogue
        self._changed = changed
        self._metrics = Metrics()

    def make(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._metrics.middleware])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/requirements/{digest}", self._requirements)
        Applying(self._catalogue, self._changed).add_to(app, TENANT)
        Looking(self._catalogue, self._changed).add_to(app, TENANT)
        return app

    async def _livez(self, _: web.Request) -> web.StreamResponse:
        return answer({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        await self._catalogue.status()
        return answer({"status": "ok"})

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return answer(await self._catalogue.status())

    async def _requirements(self, request: web.Request) -> web.StreamResponse:
        """For the node agent, which makes the environment; the gateway doesn't pass it on."""
        digest = request.match_info["digest"]
        bundle = await self._catalogue.bundle_with_requirements(digest)
        if bundle is None:
            raise UnknownPath(
                f"no source folder has requirements with the digest {digest}", next_step="apply the agent again"
            )
        files = await asyncio.to_thread(read_archive, bundle, name="bundle.tar.gz")
        return web.Response(body=files[FILE_NAME].data, content_type="text/plain")

    async def _page(self, _: web.Request) -> web.StreamResponse:
        page = self._metrics.exposition(await self._catalogue.status())
        return web.Response(body=page, headers={"Content-Type": METRICS_TYPE})
