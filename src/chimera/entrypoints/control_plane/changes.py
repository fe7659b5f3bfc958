"""Handlers for change requests and delivery policies."""

from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web

from chimera.delivery import api
from chimera.delivery.errors import InvalidDeliveryPolicy
from chimera.delivery.model import Change
from chimera.delivery.policy import Freeze, roles_named
from chimera.delivery.ports import StoredDeliveryPolicy
from chimera.delivery.service import Asker, Changes, Draft
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
from chimera.entrypoints.control_plane.keys import key_of
from chimera.entrypoints.published.changes import STATES
from chimera.gateway.identity.actions import ROLES


class ChangeHandlers:
    """The handlers."""

    def __init__(self, changes: Changes) -> None:
        """Ask `changes`."""
        self._changes = changes

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_changes": self.list,
            "open_change": self.open,
            "get_change": self.get,
            "list_change_items": self.items,
            "list_change_verdicts": self.verdicts,
            "amend_change": self.amend,
            "approve_change": self._decide("approved"),
            "reject_change": self._decide("rejected"),
            "review_change": self.review,
            "declare_emergency": self._why(self._changes.declare_emergency),
            "abort_change": self._why(self._changes.abort),
            "pause_change": self._why(self._want("pause")),
            "resume_change": self._why(self._want("go")),
            "get_delivery_policy": self.policy,
            "put_delivery_policy": self.put_policy,
            "put_freeze": self.put_freeze,
            "drop_freeze": self.drop_freeze,
        }

    async def list(self, request: web.Request) -> web.StreamResponse:
        """A page of changes."""
        limit = page_size(request, ("state", "agent", *PAGE))
        state = request.query.get("state")
        if state is not None and state not in STATES:
            raise BadRequest(f"state={state[:40]!r} is no state", next_step=f"use one of {', '.join(STATES)}")
        rows = await self._changes.page(
            tenant_of(request),
            state=state,
            agent=request.query.get("agent"),
            after=request.query.get("after"),
            limit=limit + 1,
        )
        page = rows[:limit]
        return answer(api.ChangePage(changes=page, next=page[-1].id if len(rows) > limit else None))

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Open a change, or find the one with the same key."""
        told = await body_of(request, api.OpenChange)
        draft = Draft(
            title=told.title,
            description=told.description,
            batch=told.batch,
            remove=tuple(told.remove),
            supersede=told.supersede,
            emergency=told.emergency,
            origin="api" if told.commit is None else "git",
            commit=told.commit,
            repository=told.repository,
            contributors=tuple(told.contributors),
        )
        made = await self._changes.open(tenant_of(request), _asker(request), draft, key=key_of(request))
        return answer(api.view_of(made), status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """A change."""
        return answer(api.view_of(await self._change(request)))

    async def items(self, request: web.Request) -> web.StreamResponse:
        """A page of a change's agents, behind a name."""
        after, limit = request.query.get("after", ""), page_size(request, PAGE)
        rest = [item for item in (await self._change(request)).items if item.agent > after]
        page = tuple(rest[:limit])
        return answer(api.ItemPage(items=page, next=page[-1].agent if len(rest) > limit else None))

    async def verdicts(self, request: web.Request) -> web.StreamResponse:
        """A page of what was said of a change, behind so many."""
        text, limit = request.query.get("after") or "0", page_size(request, PAGE)
        if not (text.isascii() and text.isdigit() and len(text) < 9):
            raise BadRequest(f"after={text[:40]!r} is no place", next_step="use the `next` of the page before")
        found, first = api.gravest_first(await self._change(request)), int(text)
        page = found[first : first + limit]
        return answer(api.VerdictPage(verdicts=page, next=str(first + limit) if len(found) > first + limit else None))

    async def amend(self, request: web.Request) -> web.StreamResponse:
        """Give a change other content."""
        told = await body_of(request, api.Content)
        name = request.match_info["change"]
        change = await self._changes.amend(
            *(tenant_of(request), _asker(request), name),
            batch=told.batch,
            remove=tuple(told.remove),
            key=key_of(request, name),
        )
        return answer(api.view_of(change))

    async def review(self, request: web.Request) -> web.StreamResponse:
        """Look at an emergency afterwards."""
        told = await body_of(request, api.Review)
        change = await self._changes.review(
            *(tenant_of(request), _asker(request), request.match_info["change"]), told.decision, told.comment
        )
        return answer(api.view_of(change))

    async def policy(self, request: web.Request) -> web.StreamResponse:
        """The delivery policy."""
        return _policy(await self._changes.policy(tenant_of(request)))

    async def put_policy(self, request: web.Request) -> web.StreamResponse:
        """Put the delivery policy."""
        told = await body_of(request, api.PutPolicy)
        tenant = tenant_of(request)
        if strange := sorted(roles_named(told.policy) - set(ROLES)):
            raise InvalidDeliveryPolicy(
                f"nobody can have the role {strange[0]!r}", next_step=f"name one of {', '.join(ROLES)}"
            )
        return _policy(await self._changes.put_policy(tenant, _asker(request), told.policy, expect=told.expect))

    async def put_freeze(self, request: web.Request) -> web.StreamResponse:
        """Add a freeze window."""
        freeze = await body_of(request, Freeze)
        return _policy(await self._changes.put_freeze(tenant_of(request), _asker(request), freeze))

    async def drop_freeze(self, request: web.Request) -> web.StreamResponse:
        """Remove a freeze window."""
        name = request.match_info["freeze"]
        return _policy(await self._changes.drop_freeze(tenant_of(request), _asker(request), name))

    def _decide(self, decision: Literal["approved", "rejected"]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            told = await body_of(request, api.Word)
            change = await self._changes.decide(
                *(tenant_of(request), _asker(request), request.match_info["change"], decision),
                content=told.content,
                comment=told.comment,
            )
            return answer(api.view_of(change))

        return handle

    def _why(self, ask: Callable[[str, Asker, str, str], Awaitable[Change]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            told = await body_of(request, api.Why, default=api.Why())
            change = await ask(tenant_of(request), _asker(request), request.match_info["change"], told.reason)
            return answer(api.view_of(change))

        return handle

    def _want(self, wanted: Literal["go", "pause"]) -> Callable[[str, Asker, str, str], Awaitable[Change]]:
        async def ask(tenant: str, asker: Asker, change: str, reason: str) -> Change:
            return await self._changes.want(tenant, asker, change, wanted, reason)

        return ask

    async def _change(self, request: web.Request) -> Change:
        return await self._changes.change(tenant_of(request), request.match_info["change"])


def _asker(request: web.Request) -> Asker:
    who = principal_of(request)
    return Asker(actor=who.actor, roles=who.roles, agents=who.agents)


def _policy(stored: StoredDeliveryPolicy) -> web.Response:
    return answer(api.PolicyView(policy=stored.policy, version=stored.version, updated=stored.updated, by=stored.by))
