"""Handlers for evidence of revisions: bills of materials, provenance, and the keys that check it."""

import asyncio

from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.agents.compile import CompiledAgent
from chimera.delivery.evidence.bom import MEDIA_TYPE
from chimera.delivery.evidence.service import Evidence
from chimera.entrypoints.control_plane.http import Handler, answer, tenant_of
from chimera.entrypoints.control_plane.looking import AgentNotFound, no_agent
from chimera.entrypoints.published.evidence import ProvenanceKeys


class EvidenceHandlers:
    """The handlers."""

    def __init__(self, catalogue: Catalogue, evidence: Evidence) -> None:
        """Answer for `evidence` of what `catalogue` has."""
        self._catalogue = catalogue
        self._evidence = evidence

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"get_sbom": self.sbom, "get_provenance": self.provenance, "provenance_keys": self.keys}

    async def sbom(self, request: web.Request) -> web.StreamResponse:
        """A bill of materials."""
        bill = await self._evidence.bill(await self._revision(request))
        return web.Response(body=bill, content_type=MEDIA_TYPE)

    async def provenance(self, request: web.Request) -> web.StreamResponse:
        """The last signed statement."""
        agent = await self._revision(request)
        return answer(await self._evidence.provenance(tenant_of(request), agent.digest))

    async def keys(self, _: web.Request) -> web.StreamResponse:
        """The public keys."""
        return answer(ProvenanceKeys(keys=await asyncio.to_thread(self._evidence.keys)))

    async def _revision(self, request: web.Request) -> CompiledAgent:
        tenant, name = tenant_of(request), request.match_info["agent"]
        digest = request.query.get("revision")
        if digest is None:
            row = await self._catalogue.agent(tenant, name)
            if row is None:
                raise no_agent(name)
            digest = str(row["revision"])
        found = await self._catalogue.compiled(tenant, digest)
        if found is None or found.value.agent.name != name:
            raise AgentNotFound(
                f"agent {name!r} has no revision {digest[:80]!r}", next_step=f"see `chimera get revisions {name}`"
            )
        return found
