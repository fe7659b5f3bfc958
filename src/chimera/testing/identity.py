"""Identity in memory: the store of keys, grants, policies and tenants, for tests and as the port's second adapter."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from chimera.gateway.identity.errors import KeyNotFound, TenantExists, TenantNotFound
from chimera.gateway.identity.model import Grant, StoredKey, StoredPolicy, Tenant, TenantStatus
from chimera.gateway.identity.ports import KeyChange
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.gateway.policy.errors import PolicyNotFound, TooManyPolicies
from chimera.kernel.ids import DEFAULT_TENANT

R = TypeVar("R", StoredKey, Grant, StoredPolicy, Tenant)


class FakeIdentityStore:
    """All rows in dictionaries. `fail` makes every answer that error; `told` collects what was changed, and by whom."""

    def __init__(self) -> None:
        """Begin with the default tenant."""
        self._keys: dict[str, StoredKey] = {}
        self._grants: dict[tuple[str, str], Grant] = {}
        self._policies: dict[tuple[str, str], StoredPolicy] = {}
        self._tenants: dict[str, Tenant] = {
            DEFAULT_TENANT: Tenant(
                name=DEFAULT_TENANT, status="active", created=0.0, updated=0.0, by="system:migration", sequence=0
            )
        }
        self._numbers = itertools.count(1)
        self._last = 0
        self.told: list[tuple[str, str]] = []
        self.reads = 0
        self.fail: Exception | None = None

    async def sequence(self) -> int:
        """See `IdentityStore`."""
        self._read()
        return self._last

    async def changed_keys(self, after: int, limit: int) -> Sequence[StoredKey]:
        """See `IdentityStore`."""
        return _after(self._keys.values(), after, limit)

    async def changed_grants(self, after: int, limit: int) -> Sequence[Grant]:
        """See `IdentityStore`."""
        return _after(self._grants.values(), after, limit)

    async def changed_policies(self, after: int, limit: int) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""
        return _after(self._policies.values(), after, limit)

    async def changed_tenants(self, after: int, limit: int) -> Sequence[Tenant]:
        """See `IdentityStore`."""
        return _after(self._tenants.values(), after, limit)

    async def key(self, key: str) -> StoredKey | None:
        """See `IdentityStore`."""
        self._read()
        return self._keys.get(key)

    async def grant(self, tenant: str, principal: str) -> Grant | None:
        """See `IdentityStore`."""
        self._read()
        return self._grants.get((tenant, principal))

    async def keys(self, tenant: str, after: str, limit: int) -> Sequence[StoredKey]:
        """See `IdentityStore`."""
        found = (one for one in self._keys.values() if one.tenant == tenant and one.id > after)
        return sorted(found, key=lambda one: one.id)[:limit]

    async def grants(self, tenant: str, after: str, limit: int) -> Sequence[Grant]:
        """See `IdentityStore`."""
        found = (one for one in self._grants.values() if one.tenant == tenant and one.principal > after and one.roles)
        return sorted(found, key=lambda one: one.principal)[:limit]

    async def policy(self, tenant: str, name: str) -> StoredPolicy | None:
        """See `IdentityStore`."""
        found = self._policies.get((tenant, name))
        return found if found is not None and found.text else None

    async def tenant(self, name: str) -> Tenant | None:
        """See `IdentityStore`."""
        return self._tenants.get(name)

    async def policies(self, tenant: str, after: str, limit: int) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""
        found = (one for one in self._policies.values() if one.tenant == tenant and one.name > after and one.text)
        return sorted(found, key=lambda one: one.name)[:limit]

    async def tenants(self, after: str, limit: int) -> Sequence[Tenant]:
        """See `IdentityStore`."""
        return sorted((one for one in self._tenants.values() if one.name > after), key=lambda one: one.name)[:limit]

    async def create_key(self, key: StoredKey, by: Principal) -> StoredKey:
        """See `IdentityStore`."""
        self._tenant(key.tenant)
        self._keys[key.id] = replace(key, sequence=self._next("key.created", by))
        return self._keys[key.id]

    async def change_key(
        self, tenant: str, key: str, change: Callable[[StoredKey], StoredKey], *, what: KeyChange, by: Principal
    ) -> StoredKey:
        """See `IdentityStore`."""
        found = self._keys.get(key)
        if found is None or found.tenant != tenant:
            raise KeyNotFound(f"tenant {tenant} has no key {key[:100]}", next_step="see `chimera keys list`")
        changed = change(found)
        self._keys[key] = replace(changed, sequence=self._next(f"key.{what}", by))
        return self._keys[key]

    async def put_grant(self, grant: Grant, by: Principal) -> Grant:
        """See `IdentityStore`."""
        self._tenant(grant.tenant)
        what = "role.granted" if grant.roles else "role.withdrawn"
        kept = replace(grant, sequence=self._next(what, by))
        self._grants[grant.tenant, grant.principal] = kept
        return kept

    async def put_policies(
        self, tenant: str, texts: Mapping[str, str | None], by: Principal, *, at: float, most: int
    ) -> Sequence[StoredPolicy]:
        """See `IdentityStore`."""
        self._tenant(tenant)
        live = {name for (owner, name), one in self._policies.items() if owner == tenant and one.text}
        for name, text in texts.items():
            if text is None and name not in live:
                raise PolicyNotFound(f"tenant {tenant} has no policy {name}", next_step="see `chimera policies list`")
        if len(live | {name for name, text in texts.items() if text}) > most:
            raise TooManyPolicies(f"a tenant may have {most} policies", next_step="delete some, or join them")
        stored = []
        for name, text in texts.items():
            before = self._policies.get((tenant, name))
            if before is not None and before.text == text:
                stored.append(before)
                continue
            row = StoredPolicy(
                tenant=tenant,
                name=name,
                text=text or "",
                version=1 if before is None else before.version + 1,
                updated=at,
                by=by.actor,
                sequence=self._next("policy.changed" if text else "policy.deleted", by),
            )
            self._policies[tenant, name] = row
            stored.append(row)
        return stored

    async def create_tenant(self, name: str, by: Principal, *, at: float) -> Tenant:
        """See `IdentityStore`."""
        if name in self._tenants:
            raise TenantExists(f"there is a tenant {name}", next_step="see `chimera tenants list`")
        number = self._next("tenant.created", by)
        self._tenants[name] = Tenant(name=name, status="active", created=at, updated=at, by=by.actor, sequence=number)
        return self._tenants[name]

    async def set_tenant(self, name: str, status: TenantStatus, by: Principal, *, at: float) -> Tenant:
        """See `IdentityStore`."""
        found = self._tenant(name)
        if found is None:
            raise TenantNotFound(f"there is no tenant {name}")
        number = self._next("tenant.suspended" if status == "suspended" else "tenant.resumed", by)
        self._tenants[name] = replace(found, status=status, updated=at, by=by.actor, sequence=number)
        return self._tenants[name]

    async def used(self, keys: Mapping[str, float]) -> None:
        """See `IdentityStore`."""
        self._read()
        for key, at in keys.items():
            if (found := self._keys.get(key)) is not None:
                self._keys[key] = replace(found, last_used=max(at, found.last_used or 0.0))

    def _tenant(self, name: str) -> Tenant | None:
        if name not in self._tenants and name != ALL_TENANTS:
            raise TenantNotFound(f"there is no tenant {name[:100]}", next_step="make it with `chimera tenants create`")
        return self._tenants.get(name)

    def _next(self, what: str, by: Principal) -> int:
        if self.fail is not None:
            raise self.fail
        self.told.append((what, by.actor))
        self._last = next(self._numbers)
        return self._last

    def _read(self) -> None:
        self.reads += 1
        if self.fail is not None:
            raise self.fail


def _after(rows: Iterable[R], after: int, limit: int) -> list[R]:
    return sorted((row for row in rows if row.sequence > after), key=lambda row: row.sequence)[:limit]
