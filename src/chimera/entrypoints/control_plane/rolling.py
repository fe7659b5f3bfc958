"""Handlers that take agents back to what they were.

They work also where agents are changed by change requests alone: it is the way out of one that was wrong. There, who
may choose another revision than the one before is the delivery policy's to say.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.sides.taken_back import Done
from chimera.agents import api
from chimera.entrypoints.control_plane.http import BadRequest, Handler, answer, body_of, principal_of, tenant_of
from chimera.entrypoints.control_plane.keys import key_of
from chimera.entrypoints.control_plane.looking import no_agent
from chimera.entrypoints.published.catalogue import FILTERS
from chimera.gateway.errors import AgentNotFound

MOST = 20_000
"""Agents that one request takes back."""
_PAGE = 1_000


class Rolling:
    """The handlers. `changed` is called after each rollback (a hint, not a promise)."""

    def __init__(
        self,
        catalogue: Catalogue,
        changed: Callable[[], None],
        check_chosen: Callable[[str, frozenset[str]], Awaitable[None]],
    ) -> None:
        """Take back agents of `catalogue`; `check_chosen` raises where these roles may not choose the revision."""
        self._catalogue = catalogue
        self._changed = changed
        self._check_chosen = check_chosen

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"roll_back": self.one, "roll_back_many": self.many}

    async def one(self, request: web.Request) -> web.StreamResponse:
        """Take one agent back."""
        told = await body_of(request, api.RollBack, default=api.RollBack())
        tenant, name = tenant_of(request), request.match_info["agent"]
        by = principal_of(request).actor
        if told.revision is not None:
            await self._check_chosen(tenant, principal_of(request).roles)
        key = key_of(request, name)
        done = await self._catalogue.rollbacks.agents(
            tenant, [name], to=told.revision, by=by, now=told.now, expect=told.expect, key=key
        )
        for error in done.refused.values():
            raise no_agent(name) if isinstance(error, AgentNotFound) else error
        self._changed()
        (one,) = (*done.agents, *done.stood)
        back = api.RolledBack(
            agent=name, revision=one.revision, version=one.version, before=one.before, sequence=done.sequence
        )
        return answer(back, sequence=done.sequence)

    async def many(self, request: web.Request) -> web.StreamResponse:
        """Take many back, in one transaction."""
        told = await body_of(request, api.RollBackMany)
        tenant, by = tenant_of(request), principal_of(request).actor
        if (bool(told.agents) + bool(told.selector) + (told.change is not None)) != 1:
            raise BadRequest("the body names no agents, or several ways to find them", next_step=_ONE_OF)
        key, rollbacks = key_of(request), self._catalogue.rollbacks
        # Looked for first: by now a selector may find others.
        known = None if key is None else await rollbacks.done(tenant, key)
        if known is not None:
            done = known
        elif told.change is not None:
            done = await rollbacks.change(tenant, told.change, by=by, now=told.now, key=key)
        else:
            names = told.agents or await self._found(tenant, told.selector)
            if len(names) > MOST:
                raise BadRequest(f"{len(names)} agents are too many at once", next_step=f"take back at most {MOST}")
            done = await rollbacks.agents(tenant, names, to=None, by=by, now=told.now, key=key)
        self._changed()
        return answer(_shown(done), sequence=done.sequence)

    async def _found(self, tenant: str, selector: dict[str, str]) -> list[str]:
        unknown = sorted(set(selector) - set(FILTERS))
        if unknown:
            raise BadRequest(f"{unknown[0]!r} selects nothing", next_step=f"select by {', '.join(sorted(FILTERS))}")
        names: list[str] = []
        while True:
            after = names[-1] if names else ""
            page = await self._catalogue.agents(tenant, selector, after, _PAGE)
            names += [row["name"] for row in page]
            if len(page) < _PAGE or len(names) > MOST:
                return names


_ONE_OF = "give one of `agents`, `change` and `selector`"


def _shown(done: Done) -> api.RolledBackMany:
    refused = [api.RefusedBack(agent=name, reason=error.detail) for name, error in sorted(done.refused.items())]
    return api.RolledBackMany(
        agents=list(done.agents), unchanged=len(done.stood), refused=refused, sequence=done.sequence
    )
