"""What a gateway knows of keys, grants, policies and tenants: held in memory, followed by sequence.

Every change of identity has a number, one order for all. A gateway asks for that number each `poll` seconds and, where
it has grown, for what changed; whoever changes something through this gateway waits until it has taken that over. So a
revoked key, a taken role or a changed policy counts at once where it was changed, and on other gateways within a poll.

Policies and tenants are held whole (they are bounded); keys and grants as they are used, at most `most` of each, looked
up in the database when they aren't there. While the database is away, what is known goes on counting and nothing else
does: a gateway that can't read a key refuses it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from chimera.gateway.identity.model import Grant, StoredKey, Tenant
from chimera.gateway.identity.ports import IdentityStore
from chimera.gateway.policy.decide import Policies, PolicyDocument
from chimera.kernel.lru import Lru

log = logging.getLogger(__name__)

PAGE = 500


class _Numbered(Protocol):
    @property
    def sequence(self) -> int: ...


N = TypeVar("N", bound=_Numbered)


class Directory:
    """Keys, grants, policies and tenants as this gateway knows them. Belongs to the event loop."""

    def __init__(self, store: IdentityStore, policies: Policies, *, most: int = 16_384) -> None:
        """Read from `store`; tell `policies` what it has to decide by."""
        self._store = store
        self._policies = policies
        self._keys: Lru[str, StoredKey] = Lru(most)
        self._grants: Lru[tuple[str, str], Grant] = Lru(most)
        self._tenants: dict[str, Tenant] = {}
        self._lock = asyncio.Lock()
        self._used: dict[str, float] = {}
        self.sequence = -1  # tenants that a migration found have 0
        self.loaded = False

    # -- what is known -------------------------------------------------------------------------------------------------

    def known_key(self, key: str) -> StoredKey | None:
        """A key that needs no look-up."""
        return self._keys.get(key)

    async def key(self, key: str) -> StoredKey | None:
        """A key by its id."""
        if (known := self._keys.get(key)) is not None:
            return known
        before = self.sequence
        found = await self._store.key(key)
        if found is not None and before == self.sequence:  # else it may have been read before a change taken over since
            self._keys.put(key, found)
        return found

    async def roles(self, tenant: str, principal: str) -> tuple[str, ...]:
        """The roles given to a principal in a tenant."""
        if (known := self._grants.get((tenant, principal))) is not None:
            return known.roles
        before = self.sequence
        found = await self._store.grant(tenant, principal)
        if found is None:
            found = Grant(tenant=tenant, principal=principal, roles=(), updated=0.0, by="")
        if before == self.sequence:
            self._grants.put((tenant, principal), found)
        return found.roles

    def suspended(self, tenant: str) -> bool:
        """Whether a tenant is suspended."""
        known = self._tenants.get(tenant)
        return known is not None and known.status == "suspended"

    # -- following -----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Take over everything that changed."""
        async with self._lock:
            last = await self._store.sequence()
            if last == self.sequence and self.loaded:
                return
            await self._take_over()
            self.sequence = max(self.sequence, last)
            self.loaded = True

    async def at_least(self, sequence: int) -> None:
        """Return when everything up to `sequence` is known here."""
        if self.sequence < sequence:
            await self.refresh()

    async def follow(self, every: float) -> None:
        """Refresh for ever, and note when keys were used; a store that fails is asked again."""
        while True:
            try:
                await self.refresh()
                await self.note_use()
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("keys, roles and policies could not be read; the known ones stay")
            await asyncio.sleep(every)

    def use(self, key: str, now: float) -> None:
        """A key was used at `now` (seconds since the epoch)."""
        self._used[key] = now

    async def note_use(self) -> None:
        """Write down when keys were last used; kept for the next time where that fails."""
        used, self._used = self._used, {}
        if used:
            try:
                await self._store.used(used)
            except BaseException:
                self._used = {**used, **self._used}
                raise

    async def _take_over(self) -> None:
        after = self.sequence
        if len(self._keys) or len(self._grants):
            for key in await _all(self._store.changed_keys, after):
                if self._keys.get(key.id) is not None:
                    self._keys.put(key.id, key)
            for grant in await _all(self._store.changed_grants, after):
                if self._grants.get((grant.tenant, grant.principal)) is not None:
                    self._grants.put((grant.tenant, grant.principal), grant)
        for tenant in await _all(self._store.changed_tenants, after):
            self._tenants[tenant.name] = tenant
        policies = await _all(self._store.changed_policies, after)
        if policies:
            self._policies.replace(
                [PolicyDocument(tenant=one.tenant, name=one.name, text=one.text) for one in policies if one.text],
                [(one.tenant, one.name) for one in policies if not one.text],
            )


async def _all(changed: Callable[[int, int], Awaitable[Sequence[N]]], after: int) -> list[N]:
    found: list[N] = []
    while True:
        page = await changed(after, PAGE)
        found += page
        if len(page) < PAGE:
            return found
        after = page[-1].sequence
