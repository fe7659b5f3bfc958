"""Spaces: state that several agents, or parallel branches of one, share; written by declared rules, whole or not.

The rules are in `spaces_rules`; here they are asked for somebody: an agent through its call, or the API's caller.
"""

from collections.abc import Sequence

import msgspec

from chimera.gateway.errors import InvalidRequest, PayloadTooLarge
from chimera.gateway.settings import StateSettings
from chimera.gateway.state import rules
from chimera.gateway.state.errors import SpaceNotFound
from chimera.gateway.state.model import SpaceEntry, StoredRun, StoredSpace
from chimera.gateway.state.ports import SpaceStore
from chimera.gateway.state.runs import OpenRun, Runs
from chimera.gateway.state.spaces_rules import Declared
from chimera.kernel.clock import Clock
from chimera_host.contract.state import SharedAnswer, SharedBody, SharedEntry

_DECLARED = msgspec.json.Decoder(Declared)
_ENCODER = msgspec.json.Encoder(order="deterministic")


class Spaces:
    """Declares, reads and writes spaces."""

    def __init__(self, store: SpaceStore, runs: Runs, clock: Clock, *, settings: StateSettings) -> None:
        """Keep them in `store`."""
        self._store = store
        self._runs = runs
        self._clock = clock
        self._settings = settings

    async def get(self, tenant: str, name: str) -> tuple[StoredSpace, Declared]:
        """A space; raises `SpaceNotFound`."""
        found = await self._store.space(tenant, name)
        if found is None or rules.is_over(found.expires, self._clock.wall()):
            raise SpaceNotFound(
                f"there is no space {name[:128]!r}", next_step="declare it with `chimera state spaces put`"
            )
        return found, _DECLARED.decode(found.declared)

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[StoredSpace]:
        """Spaces by name."""
        return await self._store.spaces(tenant, after, limit, self._clock.wall())

    async def put(self, tenant: str, name: str, declared: Declared, *, version: int, by: str) -> StoredSpace:
        """Declare a space that is at `version` (0: there is none); raises `SpaceConflict`."""
        rules.check_session_id(name)
        now = self._clock.wall()
        made = StoredSpace(
            tenant=tenant,
            space=name,
            owner=declared.owner,
            declared=msgspec.json.encode(declared),
            version=version + 1,
            entries=0,
            size=0,
            created=now,
            updated=now,
            expires=None if declared.ttl is None else now + declared.ttl,
        )
        return await self._store.put_space(made, by)

    async def delete(self, tenant: str, name: str, by: str) -> None:
        """Erase it; raises `SpaceNotFound`."""
        if not await self._store.delete_space(tenant, name, by):
            raise SpaceNotFound(f"there is no space {name[:128]!r}", next_step="list them with `chimera state spaces`")

    async def entries(self, tenant: str, name: str, after: str, limit: int) -> Sequence[SpaceEntry]:
        """Keys in order; raises `SpaceNotFound`."""
        await self.get(tenant, name)
        return await self._store.entries(tenant, name, after, limit, self._clock.wall())

    async def apply(self, tenant: str, name: str, body: SharedBody, *, by: str) -> SharedAnswer:
        """Write and read for the API's caller, who was authorised for the space."""
        return await self._apply(tenant, name, body, agent=None, by=by, once=None)

    async def apply_as(
        self,
        tenant: str,
        agent: str,
        name: str,
        body: SharedBody,
        *,
        opened: OpenRun | None,
        key: str | None,
        hops: int = 0,
    ) -> SharedAnswer:
        """The same for an agent in a call; with `key` the writes of its run happen once."""
        once = None
        if key is not None and opened is not None and body.write:
            if rules.RUN_KEY.fullmatch(key) is None:
                raise InvalidRequest("the Idempotency-Key is not valid", next_step="use 1 to 255 visible characters")
            digest = rules.content_digest(b"shared", name.encode(), _ENCODER.encode(body))
            once = (opened.run, key, digest, self._settings.model_answer_ttl)
            self._runs.touched(opened)
        return await self._apply(tenant, name, body, agent=agent, by=f"agent:{agent}", once=once, hops=hops)

    async def _apply(
        self,
        tenant: str,
        name: str,
        body: SharedBody,
        *,
        agent: str | None,
        by: str,
        once: tuple[StoredRun, str, bytes, float] | None,
        hops: int = 0,
    ) -> SharedAnswer:
        for write in body.write:
            if len(msgspec.json.encode(write.value)) > self._settings.step_bytes:
                raise PayloadTooLarge(
                    f"key {write.key!r} would have more than {self._settings.step_bytes} bytes",
                    next_step="write less to a key, or raise state.step_bytes in the settings",
                )
        version, entries = await self._store.apply(
            tenant,
            name,
            writes=body.write,
            read=body.read,
            agent=agent,
            by=by,
            now=self._clock.wall(),
            once=once,
            hops=hops,
        )
        return SharedAnswer(version=version, entries=tuple(shared(entry) for entry in entries))


def shared(entry: SpaceEntry) -> SharedEntry:
    """A key as callers see it."""
    return SharedEntry(key=entry.key, version=entry.version, value=msgspec.json.decode(entry.value))
