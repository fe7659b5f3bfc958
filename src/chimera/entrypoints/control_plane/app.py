"""The catalogue's HTTP API: apply in batches, look up, compare, delete.

The gateway has authenticated the caller and passes its name. Every answer to a change carries `Chimera-Sequence`, the
number of the last change in it, so that the gateway can catch up before it passes the answer on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from chimera.adapters.storage.catalogue import BatchHasFaults, Catalogue
from chimera.agents.archive import read_archive
from chimera.agents.bundle import PackedSource, pack_files
from chimera.agents.compile import Bundle
from chimera.agents.diff import compare
from chimera.agents.errors import BadArchive
from chimera.entrypoints.control_plane.describe import describe
from chimera.entrypoints.control_plane.intake import MAX_ITEMS, Item, ItemResult, take_in
from chimera.kernel.ids import is_name
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError

HEADER_SEQUENCE = "Chimera-Sequence"
MAX_BODY = 256 * 1024 * 1024
MAX_SOURCES = 200_000
DEFAULT_PAGE = 100
LARGEST_PAGE = 1_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(ProblemError):
    """The request's body or parameters are wrong."""

    code = "invalid-request"
    status = 400
    title = "The request is not valid"


class NotFound(ProblemError):
    """There is no such agent or revision."""

    code = "agent-not-found"
    status = 404
    title = "There is no such agent"


class Sources(Struct, frozen=True):
    """Digests of source texts (hexadecimal SHA-256)."""

    sources: list[str]


class Chunk(Struct, frozen=True, kw_only=True):
    """A part of a batch; `first` is the position of its first item in the whole batch."""

    items: list[Item]
    first: int = 0


class Commit(Struct, frozen=True, kw_only=True):
    """How to end a batch."""

    keep_going: bool = False


class Apply(Struct, frozen=True, kw_only=True):
    """A whole batch at once."""

    items: list[Item]
    keep_going: bool = False


class Names(Struct, frozen=True):
    """Agents by name."""

    names: list[str]


class ControlPlaneApp:
    """Routes and handlers. `changed` is called after each commit (a hint, not a promise)."""

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None]) -> None:
        """Serve `catalogue`."""
        self._catalogue = catalogue
        self._changed = changed

    def make(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_problems])
        tenant = "/v1/tenants/{tenant}"
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._status)
        app.router.add_get("/v1/status", self._status)
        app.router.add_post(f"{tenant}/check", self._check)
        app.router.add_post(f"{tenant}/batches", self._open_batch)
        app.router.add_post(f"{tenant}/batches/{{batch}}/definitions", self._stage)
        app.router.add_post(f"{tenant}/batches/{{batch}}/commit", self._commit)
        app.router.add_put(f"{tenant}/bundles/{{digest}}", self._put_bundle)
        app.router.add_post(f"{tenant}/apply", self._apply)
        app.router.add_post(f"{tenant}/validate", self._validate)
        app.router.add_post(f"{tenant}/diff", self._diff)
        app.router.add_get(f"{tenant}/agents", self._agents)
        app.router.add_post(f"{tenant}/agents/delete", self._delete_many)
        app.router.add_get(f"{tenant}/agents/{{agent}}", self._agent)
        app.router.add_delete(f"{tenant}/agents/{{agent}}", self._delete)
        app.router.add_get(f"{tenant}/agents/{{agent}}/revisions", self._revisions)
        app.router.add_get(f"{tenant}/revisions/{{digest}}", self._revision)
        return app

    async def _livez(self, _: web.Request) -> web.StreamResponse:
        return _json({"status": "ok"})

    async def _status(self, _: web.Request) -> web.StreamResponse:
        return _json(await self._catalogue.status())

    async def _check(self, request: web.Request) -> web.StreamResponse:
        sources = _decode(await request.read(), Sources).sources
        if len(sources) > MAX_SOURCES:
            raise BadRequest(f"{len(sources)} sources are too many", next_step=f"send at most {MAX_SOURCES}")
        return _json({"live": await self._catalogue.live_sources(_tenant(request), sources)})

    async def _open_batch(self, request: web.Request) -> web.StreamResponse:
        return _json({"batch": await self._catalogue.open_batch(_tenant(request))}, status=201)

    async def _stage(self, request: web.Request) -> web.StreamResponse:
        chunk = await asyncio.to_thread(_decode, await request.read(), Chunk)
        results = await self._take_in(request, request.match_info["batch"], chunk.items, chunk.first)
        return _json({"results": [one for one in results if one.faults or one.warnings]})

    async def _commit(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        told = _decode(body, Commit) if body else Commit()
        return await self._end(request, request.match_info["batch"], keep_going=told.keep_going)

    async def _apply(self, request: web.Request) -> web.StreamResponse:
        told = await asyncio.to_thread(_decode, await request.read(), Apply)
        batch = await self._catalogue.open_batch(_tenant(request))
        results = await self._take_in(request, batch, told.items, 0)
        faulty = [one for one in results if one.faults]
        if faulty and not told.keep_going:
            raise BatchHasFaults(
                f"{len(faulty)} of {len(told.items)} definitions are not valid; nothing was applied",
                next_step="mend them, or apply the others with keep_going",
                errors=[msgspec.to_builtins(fault) for one in faulty for fault in one.faults],
            )
        return await self._end(request, batch, keep_going=told.keep_going)

    async def _end(self, request: web.Request, batch: str, *, keep_going: bool) -> web.StreamResponse:
        applied = await self._catalogue.commit(_tenant(request), batch, keep_going=keep_going)
        self._changed()
        return _json(applied, headers={HEADER_SEQUENCE: str(applied.sequence)})

    async def _take_in(self, request: web.Request, batch: str, items: list[Item], first: int) -> list[ItemResult]:
        if len(items) > MAX_ITEMS:
            raise BadRequest(f"{len(items)} definitions are too many at once", next_step=f"send at most {MAX_ITEMS}")
        tenant = _tenant(request)
        bundles = await self._bundles(tenant, items)
        staged, results = await asyncio.to_thread(take_in, items, tenant=tenant, first=first, bundles=bundles)
        await self._catalogue.stage(tenant, batch, staged)
        return results

    async def _bundles(self, tenant: str, items: list[Item]) -> dict[str, Bundle]:
        found = {}
        for digest in {item.bundle for item in items if item.bundle}:
            here, requirements = await self._catalogue.bundle_requirements(tenant, digest)
            if here:
                found[digest] = Bundle(digest=digest, requirements=requirements)
        return found

    async def _put_bundle(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        packed = await asyncio.to_thread(_repack, data, request.match_info["digest"])
        await self._catalogue.put_bundle(_tenant(request), packed.digest, packed.data, packed.requirements)
        return _json({"digest": packed.digest, "requirements": packed.requirements}, status=201)

    async def _validate(self, request: web.Request) -> web.StreamResponse:
        told = await asyncio.to_thread(_decode, await request.read(), Apply)
        tenant = _tenant(request)
        bundles = await self._bundles(tenant, told.items)
        _, results = await asyncio.to_thread(take_in, told.items, tenant=tenant, first=0, bundles=bundles)
        return _json({"valid": not any(one.faults for one in results), "results": results})

    async def _diff(self, request: web.Request) -> web.StreamResponse:
        told = await asyncio.to_thread(_decode, await request.read(), Apply)
        tenant = _tenant(request)
        bundles = await self._bundles(tenant, told.items)
        staged, results = await asyncio.to_thread(take_in, told.items, tenant=tenant, first=0, bundles=bundles)
        rows: list[dict[str, Any]] = []
        for item, result in zip(staged, results, strict=True):
            if item.compiled is None:
                rows.append({"file": item.file, "state": "invalid", "faults": msgspec.to_builtins(result.faults)})
                continue
            name = item.compiled.value.agent.name
            row = await self._catalogue.agent(tenant, name)
            old = await self._catalogue.canonical(tenant, row["revision"]) if row else None
            if old is None:
                rows.append({"agent": name, "file": item.file, "state": "new"})
                continue
            difference = compare(old, item.compiled.value)
            same = row is not None and row["revision"] == item.compiled.digest
            rows.append(
                {
                    "agent": name,
                    "file": item.file,
                    "state": "unchanged" if same else "changed",
                    **msgspec.to_builtins(difference),
                }
            )
        return _json({"agents": rows})

    async def _agents(self, request: web.Request) -> web.StreamResponse:
        limit = request.query.get("limit", str(DEFAULT_PAGE))
        if not limit.isdigit() or not 1 <= int(limit) <= LARGEST_PAGE:
            raise BadRequest(f"limit={limit!r} is not a number from 1 to {LARGEST_PAGE}")
        known = ("framework", "tag", "q", "cell")
        filters = {name: request.query[name] for name in known if name in request.query}
        rows = await self._catalogue.agents(_tenant(request), filters, request.query.get("after", ""), int(limit))
        return _json({"agents": rows, "next": rows[-1]["name"] if len(rows) == int(limit) else None})

    async def _agent(self, request: web.Request) -> web.StreamResponse:
        tenant, name = _tenant(request), request.match_info["agent"]
        row = await self._catalogue.agent(tenant, name)
        value = await self._catalogue.canonical(tenant, row["revision"]) if row else None
        if row is None or value is None:
            raise _no_agent(name)
        return _json(describe(row, value))

    async def _revisions(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["agent"]
        found = await self._catalogue.revisions(_tenant(request), name)
        if not found:
            raise _no_agent(name)
        return _json({"revisions": found})

    async def _revision(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        value = await self._catalogue.canonical(_tenant(request), digest)
        if value is None:
            raise NotFound(f"there is no revision {digest!r}", next_step="list them with `chimera describe AGENT`")
        return _json(value)

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["agent"]
        deleted, sequence = await self._catalogue.delete_agents(_tenant(request), [name])
        if not deleted:
            raise _no_agent(name)
        self._changed()
        return web.Response(status=204, headers={HEADER_SEQUENCE: str(sequence)})

    async def _delete_many(self, request: web.Request) -> web.StreamResponse:
        names = _decode(await request.read(), Names).names
        deleted, sequence = await self._catalogue.delete_agents(_tenant(request), names)
        self._changed()
        return _json({"deleted": deleted}, headers={HEADER_SEQUENCE: str(sequence)})


def _tenant(request: web.Request) -> str:
    tenant = request.match_info["tenant"]
    if not is_name(tenant):
        raise BadRequest(f"{tenant!r} is not a tenant's name", next_step="use lower-case letters, digits and hyphens")
    return tenant


def _repack(data: bytes, digest: str) -> PackedSource:
    # Packed again from what is in it: what is kept is what was checked, and the digest is its own.
    name = f"bundle {digest[:19]}"
    packed = pack_files(read_archive(data, name=f"{name}.tar.gz"), name=name)
    if packed.digest != digest:
        raise BadArchive(f"{name}: its content has the digest {packed.digest}", next_step="send it under that digest")
    return packed


def _no_agent(name: str) -> NotFound:
    return NotFound(f"there is no agent {name!r}", next_step="list the agents with `chimera get agents`")


def _decode(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the body is not what was expected: {error}") from None


def _json(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=headers
    )


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProblemError as error:
        headers = {"Retry-After": str(max(1, round(error.retry_after)))} if error.retry_after else {}
        body = msgspec.json.encode(error.problem(instance=request.path))
        return web.Response(status=error.status, body=body, content_type=PROBLEM_MEDIA_TYPE, headers=headers)
