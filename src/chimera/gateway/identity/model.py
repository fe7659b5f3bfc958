"""What is kept about who may ask: keys, grants of roles, policies, tenants.

Each row carries the `sequence` of its last change, by which gateways follow each other's changes. Times are seconds
since the epoch.
"""

from typing import Literal

from msgspec import Struct

TenantStatus = Literal["active", "suspended"]


class StoredKey(Struct, frozen=True, kw_only=True):
    """An API key, without its secret. `digest` is of the secret in force.

    After a rotation `previous` is the digest of the secret before it, good until `previous_until`. `scopes` and
    `agents` narrow its roles (None: not at all).
    """

    id: str
    tenant: str
    name: str
    digest: bytes
    roles: tuple[str, ...]
    created: float
    created_by: str
    scopes: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    expires: float | None = None
    revoked: float | None = None
    rotated: float | None = None
    previous: bytes | None = None
    previous_until: float | None = None
    last_used: float | None = None
    sequence: int = 0


class Grant(Struct, frozen=True, kw_only=True):
    """The roles that a user has in a tenant beside those that its token says. Without roles: none any more."""

    tenant: str
    principal: str
    roles: tuple[str, ...]
    updated: float
    by: str
    sequence: int = 0


class StoredPolicy(Struct, frozen=True, kw_only=True):
    """A policy text of a tenant, or of all (`*`). `version` counts its changes; a deleted one has no text."""

    tenant: str
    name: str
    text: str
    version: int
    updated: float
    by: str
    sequence: int = 0


class Tenant(Struct, frozen=True, kw_only=True):
    """A tenant."""

    name: str
    status: TenantStatus
    created: float
    updated: float
    by: str
    sequence: int = 0
