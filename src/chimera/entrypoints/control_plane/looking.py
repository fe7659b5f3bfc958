"""Handlers for looking at agents and for deleting them."""

from collections.abc import Callable

from aiohttp import web
from msgspec import Struct

from chimera.adapters.storage.catalogue import Catalogue
from chimera.entrypoints.control_plane.describe import describe
from chimera.entrypoints.control_plane.http import BadRequest, answer, body_of, principal_of, tenant_of
from chimera_host.contract.problem import ProblemError

DEFAULT_PAGE = 100
LARGEST_PAGE = 1_000
MAX_NAMES = 200_000
FILTERS = ("framework", "domain", "tag", "q", "cell")
_PARAMETERS = (*FILTERS, "after", "limit")


class AgentNotFound(ProblemError):
    """There is no such agent or revision."""

    code = "agent-not-found"
    status = 404
    title = "There is no such agent"


class Names(Struct, frozen=True):
    """Agents by name."""

    names: list[str]


class Looking:
    """The handlers. `changed` is called after each deletion."""

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None]) -> None:
        """Look at `catalogue`."""
        self._catalogue = catalogue
        self._changed = changed

    def add_to(self, app: web.Application, tenant: str) -> None:
        """Add the routes below the path of a tenant."""
        app.router.add_get(f"{tenant}/agents", self.agents)
        app.router.add_post(f"{tenant}/agents/delete", self.delete_many)
        app.router.add_get(f"{tenant}/agents/{{agent}}", self.agent)
        app.router.add_delete(f"{tenant}/agents/{{agent}}", self.delete)
        app.router.add_get(f"{tenant}/agents/{{agent}}/revisions", self.revisions)
        app.router.add_get(f"{tenant}/revisions/{{digest}}", self.revision)

    async def agents(self, request: web.Request) -> web.StreamResponse:
        """A page of agents by name; `next` is the name to give as `after` for the next page."""
        if unknown := sorted(set(request.query) - set(_PARAMETERS)):
            raise BadRequest(f"unknown parameter {unknown[0]!r}", next_step=f"use {', '.join(_PARAMETERS)}")
        text = request.query.get("limit", str(DEFAULT_PAGE))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
        if not 1 <= limit <= LARGEST_PAGE:
            raise BadRequest(f"limit={text!r} is no page size", next_step=f"use a number from 1 to {LARGEST_PAGE}")
        filters = {name: request.query[name] for name in FILTERS if name in request.query}
        # One more than asked for tells whether there is a next page.
        rows = await self._catalogue.agents(tenant_of(request), filters, request.query.get("after", ""), limit + 1)
        page = rows[:limit]
        return answer({"agents": page, "next": page[-1]["name"] if len(rows) > limit else None})

    async def agent(self, request: web.Request) -> web.StreamResponse:
        """One agent in full."""
        tenant, name = tenant_of(request), request.match_info["agent"]
        row = await self._catalogue.agent(tenant, name)
        value = await self._catalogue.canonical(tenant, row["revision"]) if row else None
        if row is None or value is None:
            raise _no_agent(name)
        return answer(describe(row, value))

    async def revisions(self, request: web.Request) -> web.StreamResponse:
        """The changes of an agent's live revision, the newest first; a deleted agent keeps them."""
        name = request.match_info["agent"]
        found = await self._catalogue.history(tenant_of(request), name)
        if not found:
            raise _no_agent(name)
        return answer({"revisions": found})

    async def revision(self, request: web.Request) -> web.StreamResponse:
        """A revision's canonical form."""
        digest = request.match_info["digest"]
        value = await self._catalogue.canonical(tenant_of(request), digest)
        if value is None:
            raise AgentNotFound(f"there is no revision {digest!r}", next_step="list them with `chimera describe AGENT`")
        return answer(value)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete one agent, with its sessions."""
        name = request.match_info["agent"]
        deleted, sequence = await self._catalogue.delete_agents(tenant_of(request), [name], by=principal_of(request))
        if not deleted:
            raise _no_agent(name)
        self._changed()
        return answer({"deleted": deleted}, sequence=sequence)

    async def delete_many(self, request: web.Request) -> web.StreamResponse:
        """Delete agents by name, all in one transaction; names that aren't there are passed over."""
        names = (await body_of(request, Names)).names
        if len(names) > MAX_NAMES:
            raise BadRequest(f"{len(names)} names are too many", next_step=f"send at most {MAX_NAMES}")
        deleted, sequence = await self._catalogue.delete_agents(tenant_of(request), names, by=principal_of(request))
        self._changed()
        return answer({"deleted": deleted}, sequence=sequence)


def _no_agent(name: str) -> AgentNotFound:
    return AgentNotFound(f"there is no agent {name!r}", next_step="list the agents with `chimera get agents`")
