"""Handlers for sources: branches that the catalogue follows."""

import re

from aiohttp import web

from chimera.adapters.storage.sources import SourceStorage, no_source
from chimera.delivery.git.addresses import check_address
from chimera.delivery.git.errors import AddressRefused, InvalidSource
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import PutSource, RemovedSource, RunSource, SourcePage, faults_of, view
from chimera.entrypoints.control_plane.http import PAGE, Handler, answer, body_of, page_size, principal_of, tenant_of
from chimera.kernel.ids import is_name

_COMMIT = re.compile(r"[0-9a-f]{40}")


class SourceHandlers:
    """The handlers by the names of their operations."""

    def __init__(self, sources: SourceStorage, settings: SyncSettings | None) -> None:
        """Change `sources`, within `settings`; None where this control plane follows none."""
        self._sources = sources
        self._settings = settings

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_sources": self.list,
            "show_source": self.show,
            "put_source": self.put,
            "run_source": self.run,
            "remove_source": self.remove,
        }

    async def list(self, request: web.Request) -> web.StreamResponse:
        """A page of sources."""
        limit = page_size(request, PAGE)
        rows = await self._sources.page(tenant_of(request), request.query.get("after", ""), limit + 1)
        more = len(rows) > limit
        return answer(
            SourcePage(sources=[view(one) for one in rows[:limit]], next=rows[limit - 1].name if more else None)
        )

    async def show(self, request: web.Request) -> web.StreamResponse:
        """One source."""
        found = await self._sources.get(tenant_of(request), _name(request))
        if found is None:
            raise no_source(_name(request))
        return answer(view(found))

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Follow a branch."""
        spec, tenant = (await body_of(request, PutSource)).spec, tenant_of(request)
        if self._settings is None:
            raise AddressRefused(
                "this control plane has no home, and follows no branches",
                next_step="follow them from a home on one machine that shares the database",
            )
        check_address(spec.url, self._settings)
        if faults := faults_of(spec, tenant):
            raise InvalidSource("; ".join(faults), next_step="see `chimera sync add --help`")
        return answer(view(await self._sources.put(tenant, _name(request), spec, principal_of(request).actor)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Look now."""
        told = await body_of(request, RunSource, default=RunSource())
        for commit in (told.allow_prune, told.allow_rewrite):
            if commit is not None and not _COMMIT.fullmatch(commit):
                raise InvalidSource(f"{commit[:60]!r} is no whole commit id", next_step="give all 40 digits")
        found = await self._sources.run(
            tenant_of(request),
            _name(request),
            principal_of(request).actor,
            prune=told.allow_prune,
            rewrite=told.allow_rewrite,
        )
        return answer(view(found))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Follow it no more."""
        name = _name(request)
        agents = await self._sources.remove(tenant_of(request), name, principal_of(request).actor)
        return answer(RemovedSource(name=name, agents=agents))


def _name(request: web.Request) -> str:
    name = request.match_info["source"]
    if not is_name(name):
        raise InvalidSource(f"{name[:100]!r} is not a name", next_step="use lower-case letters, digits and hyphens")
    return name
