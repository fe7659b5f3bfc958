"""Handlers for upkeep: how it stands, what would go, and doing it now."""

from aiohttp import web

from chimera.entrypoints.control_plane.http import BadRequest, Handler, answer, body_of
from chimera.platform.upkeep.model import UpkeepAnswer, UpkeepAsk
from chimera.platform.upkeep.service import Upkeep

MOST_COUNTED = 1_000_000
"""Rows of a kind that are counted to say what would go."""


class UpkeepHandlers:
    """The handlers. Any control plane answers them; the one that does the work finds what was asked in the database."""

    def __init__(self, upkeep: Upkeep) -> None:
        """Answer for `upkeep`."""
        self._upkeep = upkeep

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"upkeep_status": self.status, "run_upkeep": self.run}

    async def status(self, _: web.Request) -> web.StreamResponse:
        """All kinds, as the last pass left them."""
        return answer(await self._upkeep.status())

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Make kinds due, or count what would go."""
        asked = await body_of(request, UpkeepAsk, default=UpkeepAsk())
        known = self._upkeep.kinds
        if unknown := sorted(set(asked.kinds) - set(known)):
            raise BadRequest(f"there is no kind {unknown[0]!r}", next_step=f"use {', '.join(known)}")
        kinds = [kind for kind in known if not asked.kinds or kind in asked.kinds]
        if not asked.dry_run:
            return answer(UpkeepAnswer(asked=kinds, at=await self._upkeep.ask(kinds)))
        would_go = {kind: await self._upkeep.due(kind, MOST_COUNTED) for kind in kinds}
        at = await self._upkeep.now()
        return answer(UpkeepAnswer(asked=kinds, at=at, would_go=would_go, most=MOST_COUNTED))
