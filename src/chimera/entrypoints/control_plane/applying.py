"""Handlers for definitions on their way in: check, batches, bundles, apply, validate, diff.

A large apply is: `check` (which sources are live already), a batch, its definitions in chunks, and a commit. A batch
lives for an hour after its last chunk. Each of these may be sent again after a lost answer: opening with the same
`Idempotency-Key` finds the same batch, a chunk replaces itself, a second commit answers what the first one did.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from aiohttp import web

from chimera.adapters.storage.catalogue import Catalogue
from chimera.agents import api
from chimera.agents.archive import read_archive
from chimera.agents.bundle import PackedSource, pack_files
from chimera.agents.catalogue import BatchHasFaults
from chimera.agents.compile import Bundle
from chimera.agents.diff import compare
from chimera.agents.errors import BadArchive
from chimera.agents.intake import MAX_ITEMS, Taken, take_in
from chimera.entrypoints.control_plane.http import BadRequest, Handler, answer, body_of, principal_of, tenant_of
from chimera.entrypoints.published.catalogue import MAX_KEY
from chimera.entrypoints.published.parameters import HEADER_KEY

MAX_SOURCES = 200_000
REMEMBERED_BUNDLES = 256
CheckDirect = Callable[[str], Awaitable[None]]
"""Raises where the agents of a tenant are changed by change requests alone."""


class Applying:
    """The handlers. `changed` is called after each commit (a hint, not a promise)."""

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None], check_direct: CheckDirect) -> None:
        """Apply to `catalogue`, where `check_direct` lets a tenant's agents be changed without a change request."""
        self._catalogue = catalogue
        self._changed = changed
        self._check_direct = check_direct
        self._bundles: dict[tuple[str, str], Bundle] = {}

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "check_sources": self.check,
            "begin_batch": self.open_batch,
            "add_definitions": self.stage,
            "commit_batch": self.commit,
            "put_bundle": self.put_bundle,
            "apply": self.apply,
            "validate": self.validate,
            "diff": self.diff,
        }

    async def check(self, request: web.Request) -> web.StreamResponse:
        """Which sources live agents were applied from, with the agents' names; and the sequence."""
        sources = (await body_of(request, api.Sources)).sources
        if len(sources) > MAX_SOURCES:
            raise BadRequest(f"{len(sources)} sources are too many", next_step=f"send at most {MAX_SOURCES}")
        live, sequence = await self._catalogue.live_sources(tenant_of(request), sources)
        return answer(api.LiveSources(live=live, sequence=sequence))

    async def open_batch(self, request: web.Request) -> web.StreamResponse:
        """Open a batch, or find the one with the same key."""
        key = request.headers.get(HEADER_KEY)
        if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise BadRequest(
                f"{HEADER_KEY} is no key: {key[:MAX_KEY]!r}", next_step=f"use 1 to {MAX_KEY} printable ASCII characters"
            )
        return answer(api.OpenedBatch(batch=await self._catalogue.open_batch(tenant_of(request), key)), status=201)

    async def stage(self, request: web.Request) -> web.StreamResponse:
        """Take a chunk; the answer names items with faults or warnings alone."""
        chunk = await body_of(request, api.Chunk)
        if chunk.first < 0 or chunk.first + len(chunk.items) > MAX_SOURCES:
            raise BadRequest(
                f"positions from {chunk.first} on are out of bounds", next_step=f"count from 0 to {MAX_SOURCES}"
            )
        taken = await self.take(tenant_of(request), chunk.items, chunk.first)
        await self._catalogue.stage(tenant_of(request), request.match_info["batch"], taken.staged)
        return answer(api.ChunkResults(results=_worth_telling(taken.results)))

    async def commit(self, request: web.Request) -> web.StreamResponse:
        """Make a batch live."""
        told = await body_of(request, api.Commit, default=api.Commit())
        await self._check_direct(tenant_of(request))
        applied = await self._catalogue.commit(
            tenant_of(request),
            request.match_info["batch"],
            keep_going=told.keep_going,
            expect=told.expect,
            by=principal_of(request).actor,
        )
        self._changed()
        return answer(applied, sequence=applied.sequence)

    async def apply(self, request: web.Request) -> web.StreamResponse:
        """Apply a small batch at once."""
        told = await body_of(request, api.Apply)
        tenant = tenant_of(request)
        await self._check_direct(tenant)
        taken = await self.take(tenant, told.items, 0)
        faulty = [one for one in taken.results if one.faults]
        if faulty and not told.keep_going:
            raise BatchHasFaults(
                f"{len(faulty)} of {len(told.items)} definitions are not valid; nothing was applied",
                next_step="correct them, or apply the others with keep_going",
                errors=[msgspec.to_builtins(fault) for one in faulty for fault in one.faults],
            )
        applied = await self._catalogue.apply(
            tenant, taken.staged, keep_going=told.keep_going, expect=told.expect, by=principal_of(request).actor
        )
        self._changed()
        shown = api.AppliedAtOnce(**msgspec.structs.asdict(applied), results=_worth_telling(taken.results))
        return answer(shown, sequence=applied.sequence)

    async def put_bundle(self, request: web.Request) -> web.StreamResponse:
        """Keep a source bundle under its digest."""
        tenant, data = tenant_of(request), await request.read()
        packed = await asyncio.to_thread(_repack, data, request.match_info["digest"])
        await self._catalogue.put_bundle(tenant, packed.digest, packed.data, packed.requirements)
        self._remember(tenant, packed.bundle)
        return answer(api.KeptBundle(digest=packed.digest, requirements=packed.requirements), status=201)

    async def validate(self, request: web.Request) -> web.StreamResponse:
        """Check definitions as an apply would."""
        told = await body_of(request, api.Definitions)
        taken = await self.take(tenant_of(request), told.items, 0)
        return answer(api.Validated(valid=not any(one.faults for one in taken.results), results=taken.results))

    async def diff(self, request: web.Request) -> web.StreamResponse:
        """What an apply would change, by meaning."""
        told = await body_of(request, api.Definitions)
        tenant = tenant_of(request)
        taken = await self.take(tenant, told.items, 0)
        # Two looks for all of them, which are at most `MAX_ITEMS`.
        names = [item.compiled.value.agent.name for item in taken.staged if item.compiled is not None]
        live = {row.name: row.revision for row in await self._catalogue.agents_named(tenant, names)}
        kept = await self._catalogue.compiled_many(tenant, list(live.values()))
        rows: list[api.AgentDifference] = []
        for item, result in zip(taken.staged, taken.results, strict=True):
            if item.compiled is None:
                rows.append(api.AgentDifference(state="invalid", file=item.file, faults=result.faults))
                continue
            name = item.compiled.value.agent.name
            old = kept.get(live.get(name, ""))
            if old is None:
                rows.append(api.AgentDifference(state="new", agent=name, file=item.file))
                continue
            changes = msgspec.structs.asdict(compare(old.value, item.compiled.value))
            same = old.digest == item.compiled.digest
            state: Literal["unchanged", "changed"] = "unchanged" if same else "changed"
            rows.append(api.AgentDifference(state=state, agent=name, file=item.file, **changes))
        return answer(api.Differences(agents=rows))

    async def take(self, tenant: str, items: list[api.Item], first: int = 0) -> Taken:
        """Check and compile definitions, with the bundles that are here; nothing is kept."""
        if len(items) > MAX_ITEMS:
            raise BadRequest(f"{len(items)} definitions are too many at once", next_step=f"send at most {MAX_ITEMS}")
        bundles: dict[str, Bundle] = {}
        for digest in {item.bundle for item in items if item.bundle}:
            if (found := await self._bundle(tenant, digest)) is not None:
                bundles[digest] = found
        return await asyncio.to_thread(take_in, items, tenant=tenant, first=first, bundles=bundles)

    async def _bundle(self, tenant: str, digest: str) -> Bundle | None:
        if (known := self._bundles.get((tenant, digest))) is not None:
            return known
        data = await self._catalogue.bundle(tenant, digest)
        if data is None:
            return None
        packed = await asyncio.to_thread(_repack, data, digest)
        self._remember(tenant, packed.bundle)
        return packed.bundle

    def _remember(self, tenant: str, bundle: Bundle) -> None:
        # Bundles are never changed and never deleted, so that what is known of one stays true.
        self._bundles[tenant, bundle.digest] = bundle
        while len(self._bundles) > REMEMBERED_BUNDLES:
            del self._bundles[next(iter(self._bundles))]


def _worth_telling(results: list[api.ItemResult]) -> list[api.ItemResult]:
    return [one for one in results if one.faults or one.warnings]


def _repack(data: bytes, digest: str) -> PackedSource:
    # Packed again from what is in it: what is kept is what was checked, and the digest is its own.
    name = f"bundle {digest[:19]}"
    packed = pack_files(read_archive(data, name=f"{name}.tar.gz"), name=name)
    if packed.digest != digest:
        raise BadArchive(f"{name}: its content has the digest {packed.digest}", next_step="send it under that digest")
    return packed
