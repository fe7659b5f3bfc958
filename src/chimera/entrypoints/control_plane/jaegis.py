"""Handlers for JAEGIS: the quality of definitions, and whether they fit the ecosystem."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from chimera.agents import api
from chimera.agents.intake import Taken
from chimera.entrypoints.control_plane.http import Handler, answer, body_of, tenant_of
from chimera.jaegis.api import AgentQuality, Qualities
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.service import Jaegis

Take = Callable[[str, list[api.Item]], Awaitable[Taken]]


class JaegisHandlers:
    """The handlers. `take` checks and compiles definitions as an apply does."""

    def __init__(self, jaegis: Jaegis, take: Take) -> None:
        """Ask `jaegis`."""
        self._jaegis = jaegis
        self._take = take

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"assess": self.assess}

    async def assess(self, request: web.Request) -> web.StreamResponse:
        """The quality of definitions beside all live agents; nothing is kept."""
        told = await body_of(request, api.Definitions)
        tenant = tenant_of(request)
        taken = await self._take(tenant, told.items)
        agents = [item.compiled for item in taken.staged if item.compiled is not None]
        assessed = iter(await self._jaegis.assess(tenant, agents))
        misfits: dict[str, list[Misfit]] = {}
        for one in await self._jaegis.validate(tenant, agents):
            misfits.setdefault(one.agent, []).append(one)
        rows = []
        for item, result in zip(taken.staged, taken.results, strict=True):
            if item.compiled is None:
                rows.append(AgentQuality(file=item.file, faults=result.faults))
                continue
            quality = next(assessed)
            rows.append(AgentQuality(file=item.file, quality=quality, misfits=tuple(misfits.get(quality.agent, ()))))
        ecosystem = await self._jaegis.ecosystem(tenant)
        return answer(Qualities(agents=rows, live=len(ecosystem.members)))
