"""Handlers for looking at agents and for deleting them."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.agents import api
from chimera.entrypoints.control_plane.describe import describe
from chimera.entrypoints.control_plane.http import (
    PAGE,
    BadRequest,
    Handler,
    answer,
    body_of,
    page_size,
    principal_of,
    tenant_of,
)
from chimera.entrypoints.published.catalogue import FILTERS
from chimera_host.contract.problem import ProblemError

MAX_NAMES = 200_000


class AgentNotFound(ProblemError):
    """There is no such agent or revision."""

    code = "agent-not-found"
    status = 404
    title = "There is no such agent"


class Looking:
    """The handlers. `changed` is called after each deletion."""

    def __init__(
        self, catalogue: Catalogue, changed: Callable[[], None], check_direct: Callable[[str], Awaitable[None]]
    ) -> None:
        """Look at `catalogue`; delete where `check_direct` lets a tenant's agents be changed directly."""
        self._catalogue = catalogue
        self._changed = changed
        self._check_direct = check_direct

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_agents": self.agents,
            "delete_agents": self.delete_many,
            "describe_agent": self.agent,
            "delete_agent": self.delete,
            "list_revisions": self.revisions,
            "get_revision": self.revision,
        }

    async def agents(self, request: web.Request) -> web.StreamResponse:
        """A page of agents by name; `next` is the name to give as `after` for the next page."""
        limit = page_size(request, (*FILTERS, *PAGE))
        filters = {name: request.query[name] for name in FILTERS if name in request.query}
        # One more than asked for tells whether there is a next page.
        rows = await self._catalogue.agents(tenant_of(request), filters, request.query.get("after", ""), limit + 1)
        page = [api.AgentRow(**row) for row in rows[:limit]]
        return answer(api.AgentPage(agents=page, next=page[-1].name if len(rows) > limit else None))

    async def agent(self, request: web.Request) -> web.StreamResponse:
        """One agent in full."""
        tenant, name = tenant_of(request), request.match_info["agent"]
        row = await self._catalogue.agent(tenant, name)
        value = await self._catalogue.canonical(tenant, row["revision"]) if row else None
        if row is None or value is None:
            raise no_agent(name)
        sides = await self._catalogue.sides(tenant, name)
        pin = await self._catalogue.pin(tenant, name, row["sequence"])
        return answer(describe(row, value, self._catalogue.unservable(value), sides, pin))

    async def revisions(self, request: web.Request) -> web.StreamResponse:
        """The changes of an agent's live revision, the newest first; a deleted agent keeps them."""
        name = request.match_info["agent"]
        found = await self._catalogue.history(tenant_of(request), name)
        if not found:
            raise no_agent(name)
        return answer(api.History(revisions=found))

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
        await self._check_direct(tenant_of(request))
        deleted, sequence = await self._catalogue.delete_agents(
            tenant_of(request), [name], by=principal_of(request).actor
        )
        if not deleted:
            raise no_agent(name)
        self._changed()
        return answer(api.Deleted(deleted=deleted), sequence=sequence)

    async def delete_many(self, request: web.Request) -> web.StreamResponse:
        """Delete agents by name, all in one transaction; names that aren't there are passed over."""
        names = (await body_of(request, api.Names)).names
        if len(names) > MAX_NAMES:
            raise BadRequest(f"{len(names)} names are too many", next_step=f"send at most {MAX_NAMES}")
        await self._check_direct(tenant_of(request))
        deleted, sequence = await self._catalogue.delete_agents(
            tenant_of(request), names, by=principal_of(request).actor
        )
        self._changed()
        return answer(api.Deleted(deleted=deleted), sequence=sequence)


def no_agent(name: str) -> AgentNotFound:
    """What is said of a name that no agent has."""
    return AgentNotFound(f"there is no agent {name!r}", next_step="list the agents with `chimera get agents`")
