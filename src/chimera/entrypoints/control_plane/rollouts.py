"""Handlers for rollouts: start, look, watch, and say what is wanted.

Whoever watches gets the rollout whenever it has changed, as server-sent events. Any control plane answers: it looks at
the rollout's one row once a second, whatever it is that leads and however many agents there are.
"""

import asyncio
from collections.abc import Sequence

import msgspec
from aiohttp import web

from chimera.delivery.rollout import api
from chimera.delivery.rollout.errors import RolloutState
from chimera.delivery.rollout.model import ENDED, Item, Wanted
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Changes
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
from chimera_host.contract.problem import ProblemError

POLL = 1.0
COMMENT = 15.0
"""Seconds of silence after which a comment says that the stream lives."""


class RolloutHandlers:
    """The handlers."""

    def __init__(self, rollouts: RolloutService, changes: Changes) -> None:
        """Ask `rollouts`; `changes` say what a batch would change, and where only change requests may."""
        self._rollouts = rollouts
        self._changes = changes

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_rollouts": self.list,
            "start_rollout": self.start,
            "get_rollout": self.get,
            "list_rollout_agents": self.agents,
            "watch_rollout": self.watch,
            "pause_rollout": self._ask("pause"),
            "resume_rollout": self._ask("run"),
            "abort_rollout": self._ask("abort"),
        }

    async def counts(self) -> dict[str, int]:
        """How many rollouts are in each state, over all tenants."""
        return await self._rollouts.counts()

    async def list(self, request: web.Request) -> web.StreamResponse:
        """A page of rollouts."""
        limit = page_size(request, PAGE)
        found = await self._rollouts.page(tenant_of(request), request.query.get("after", ""), limit + 1)
        rows = [api.row_of(one) for one in found[:limit]]
        return answer(api.RolloutPage(rollouts=rows, next=rows[-1].id if len(found) > limit else None))

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Begin one, or find the one with the same key."""
        tenant, told = tenant_of(request), await body_of(request, api.StartRollout)
        by, key = principal_of(request).actor, key_of(request)
        # Looked for first: what it made live is no longer a change, and its batch may be gone.
        if key is not None and (found := await self._rollouts.of_key(tenant, key)) is not None:
            return answer(api.row_of(found), status=201)
        await self._changes.check_direct(tenant)
        try:
            policy = api.policy_with(self._rollouts.policy, told.policy)
        except msgspec.ValidationError as error:
            raise BadRequest(f"policy: {error}", next_step="see the API's description at /openapi.json") from None
        contents = await self._changes.contents(tenant, told.batch, told.remove)
        items = [Item(agent=one.agent, revision=one.revision, before=one.before) for one in contents]
        title = told.title or _title(items)
        begun = await self._rollouts.start(tenant, items, title=title, by=by, key=key, policy=policy)
        return answer(api.row_of(begun), status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """One of them."""
        return answer(api.row_of(await self._rollouts.get(tenant_of(request), request.match_info["rollout"])))

    async def agents(self, request: web.Request) -> web.StreamResponse:
        """A page of its agents."""
        tenant, name, limit = tenant_of(request), request.match_info["rollout"], page_size(request, PAGE)
        text = request.query.get("after") or "-1"
        if text != "-1" and not (text.isascii() and text.isdigit() and len(text) < 9):
            raise BadRequest(f"after={text[:40]!r} is no place", next_step="use the `next` of the page before")
        summary = await self._rollouts.get(tenant, name)
        found = await self._rollouts.members(tenant, name, int(text), limit + 1)
        rows = await asyncio.to_thread(lambda: [api.member_of(summary, one) for one in found[:limit]])
        return answer(api.MemberPage(agents=rows, next=str(int(text) + limit) if len(found) > limit else None))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """A rollout each time it changes."""
        tenant, name = tenant_of(request), request.match_info["rollout"]
        found = await self._rollouts.get(tenant, name)  # what isn't there is a plain problem, and no stream
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        clock = asyncio.get_running_loop()
        seen, said = -1, clock.time()
        try:
            while True:
                if found.rollout.version != seen:
                    seen, said = found.rollout.version, clock.time()
                    data = msgspec.json.encode(api.row_of(found))
                    await response.write(b"event: rollout\nid: %d\ndata: %s\n\n" % (seen, data))
                elif clock.time() - said > COMMENT:
                    said = clock.time()
                    await response.write(b": still here\n\n")
                if found.rollout.state in ENDED:
                    break
                await asyncio.sleep(POLL)
                found = await self._rollouts.get(tenant, name)
        except ProblemError as error:
            await response.write(b"event: problem\ndata: %s\n\n" % msgspec.json.encode(error.problem()))
        await response.write_eof()
        return response

    def _ask(self, wanted: Wanted) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            told = await body_of(request, api.Why, default=api.Why())
            tenant, by = tenant_of(request), principal_of(request).actor
            name = request.match_info["rollout"]
            if wanted != "abort":
                await self._check_alone(tenant, name, "resume" if wanted == "run" else wanted)
            return answer(api.row_of(await self._rollouts.ask(tenant, name, wanted, by=by, reason=told.reason)))

        return handle

    async def _check_alone(self, tenant: str, name: str, verb: str) -> None:
        """Raise `RolloutState` for the rollout of a change request: what that one wants would undo this."""
        change = (await self._rollouts.get(tenant, name)).rollout.change
        if change is not None:
            raise RolloutState(
                f"rollout {name} is that of the change {change}, which says whether it goes on",
                next_step=f"`chimera change {verb} {change}`",
            )


def _title(items: Sequence[Item]) -> str:
    if not items:
        return ""
    return items[0].agent + (f" and {len(items) - 1} more" if len(items) > 1 else "")
