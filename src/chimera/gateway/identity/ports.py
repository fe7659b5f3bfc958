"""What authentication stands on: where keys, grants, policies and tenants are kept, and what checks a signed token."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from chimera.gateway.identity.model import Grant, StoredKey, StoredPolicy, Tenant, TenantStatus
from chimera.gateway.identity.principal import Principal

KeyChange = Literal["rotated", "revoked"]


class IdentityStore(Protocol):
    """Keys, grants, policies and tenants. Each change is one transaction with its fact and its audit entry."""

    async def sequence(self) -> int:
        """The number of the last change."""

    async def changed_keys(self, after: int, limit: int) -> Sequence[StoredKey]:
        """Keys changed after a sequence, in order."""

    async def changed_grants(self, after: int, limit: int) -> Sequence[Grant]:
        """Grants changed after a sequence, in order; taken ones have no roles."""

    async def changed_policies(self, after: int, limit: int) -> Sequence[StoredPolicy]:
        """Policies changed after a sequence, in order; deleted ones have no text."""

    async def changed_tenants(self, after: int, limit: int) -> Sequence[Tenant]:
        """Tenants changed after a sequence, in order."""

    async def key(self, key: str) -> StoredKey | None:
        """A key by its id, of whichever tenant."""

    async def grant(self, tenant: str, principal: str) -> Grant | None:
        """The roles given to a principal in a tenant."""

    async def keys(self, tenant: str, after: str, limit: int) -> Sequence[StoredKey]:
        """A tenant's keys by id, above `after`."""

    async def grants(self, tenant: str, after: str, limit: int) -> Sequence[Grant]:
        """A tenant's grants by principal, above `after`."""

    async def policy(self, tenant: str, name: str) -> StoredPolicy | None:
        """A live policy."""

    async def tenant(self, name: str) -> Tenant | None:
        """A tenant."""

    async def policies(self, tenant: str, after: str, limit: int) -> Sequence[StoredPolicy]:
        """A tenant's policies by name, above `after`."""

    async def tenants(self, after: str, limit: int) -> Sequence[Tenant]:
        """Tenants by name, above `after`."""

    async def create_key(self, key: StoredKey, by: Principal) -> StoredKey:
        """Store a key. Raises `TenantNotFound`."""

    async def change_key(
        self, tenant: str, key: str, change: Callable[[StoredKey], StoredKey], *, what: KeyChange, by: Principal
    ) -> StoredKey:
        """Store what `change` makes of a key, in one transaction with reading it. Raises `KeyNotFound`."""

    async def put_grant(self, grant: Grant, by: Principal) -> Grant:
        """Give a principal these roles and no others; no roles take the grant away. Raises `TenantNotFound`."""

    async def put_policies(
        self, tenant: str, texts: Mapping[str, str | None], by: Principal, *, at: float, most: int
    ) -> Sequence[StoredPolicy]:
        """Store texts by name, all or none; None deletes. Raises `TooManyPolicies` where more than `most` would be."""

    async def create_tenant(self, name: str, by: Principal, *, at: float) -> Tenant:
        """Make a tenant. Raises `TenantExists`."""

    async def set_tenant(self, name: str, status: TenantStatus, by: Principal, *, at: float) -> Tenant:
        """Suspend or resume a tenant. Raises `TenantNotFound`."""

    async def used(self, keys: Mapping[str, float]) -> None:
        """Note when keys were last used (by id, seconds since the epoch)."""


class TokenVerifier(Protocol):
    """Checks tokens that issuers signed."""

    async def verify(self, token: str) -> Principal:
        """Who the token says, signature, issuer, audience and times checked.

        Raises `Unauthenticated` for a token that doesn't hold, `IssuerUnavailable` where that can't be said.
        """

    def issuers(self) -> Sequence[str]:
        """The issuers that are configured, as their tokens name them."""
