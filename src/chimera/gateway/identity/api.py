"""The bodies of the operations on keys, roles, policies and tenants, as they go over the wire."""

from typing import Annotated

from msgspec import Meta, Struct

from chimera.gateway.identity.model import Grant, StoredKey, StoredPolicy, Tenant, TenantStatus

MAX_NAMES = 1_000
NO_NUL = r"^[^\x00]*$"
"""No database takes NUL in a text."""
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_NUL)]
Names = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=128, pattern=NO_NUL)], ...], Meta(max_length=MAX_NAMES)
]
PolicyName = Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class KeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made. `expires_in` is in seconds; `scopes` and `agents` narrow what `roles` carry."""

    name: Text
    roles: Names
    scopes: Names | None = None
    agents: Names | None = None
    expires_in: Annotated[float, Meta(gt=0, le=315_360_000)] | None = None


class RotateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the old secret goes on, in seconds; without it as `identity.key_overlap` says."""

    overlap: Annotated[float, Meta(ge=0, le=31_536_000)] | None = None


class KeyAnswer(Struct, frozen=True, kw_only=True):
    """A key without its secret. Times are seconds since the epoch."""

    id: str
    tenant: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None
    agents: tuple[str, ...] | None
    created: float
    created_by: str
    expires: float | None
    revoked: float | None
    rotated: float | None
    previous_until: float | None
    last_used: float | None


class NewKey(Struct, frozen=True, kw_only=True):
    """A key with its secret, which is shown this once."""

    key: KeyAnswer
    token: str


class KeyPage(Struct, frozen=True, kw_only=True):
    """Keys by id; `next` is the `after` of the next page."""

    keys: list[KeyAnswer]
    next: str | None = None


class GrantBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The roles that a user shall have beside those of its token: `user:ISSUER|SUBJECT`. None takes them all."""

    principal: Annotated[str, Meta(min_length=6, max_length=512, pattern=r"^user:[^\x00]*$")]
    roles: Names


class GrantAnswer(Struct, frozen=True, kw_only=True):
    """The roles given to a user in a tenant."""

    tenant: str
    principal: str
    roles: tuple[str, ...]
    updated: float
    by: str


class GrantPage(Struct, frozen=True, kw_only=True):
    """Grants by principal; `next` is the `after` of the next page."""

    grants: list[GrantAnswer]
    next: str | None = None


class PoliciesBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Policy texts by name, stored all or none; null deletes one."""

    policies: Annotated[dict[PolicyName, str | None], Meta(min_length=1, max_length=500)]


class PolicyAnswer(Struct, frozen=True, kw_only=True):
    """A stored policy text."""

    tenant: str
    name: str
    text: str
    version: int
    updated: float
    by: str


class PolicyPage(Struct, frozen=True, kw_only=True):
    """Policies by name; `next` is the `after` of the next page."""

    policies: list[PolicyAnswer]
    next: str | None = None


class QuestionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """May this principal do this to that?

    `principal` is `key:ID`, `user:ISSUER|SUBJECT` or `agent:NAME` of the tenant; without it whoever asks. A key has its
    own roles and scopes, a user those given to it here and `roles`, which its token would say.
    """

    action: Text
    principal: Annotated[str, Meta(max_length=512, pattern=NO_NUL)] | None = None
    roles: Names = ()
    agent: Annotated[str, Meta(max_length=63, pattern=NO_NUL)] | None = None
    name: Annotated[str, Meta(max_length=200, pattern=NO_NUL)] | None = None
    protocol: Annotated[str, Meta(max_length=32)] = "http"
    depth: Annotated[int, Meta(ge=0, le=1_000)] = 0


class Explained(Struct, frozen=True, kw_only=True):
    """A decision, why, and the texts of the policies that decided."""

    allowed: bool
    principal: str
    action: str
    resource: str
    reasons: tuple[str, ...]
    errors: tuple[str, ...]
    policies: dict[str, str]


class Case(QuestionBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question with the answer that it should get."""

    allowed: bool


class CasesBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Questions to be asked of the stored policies as `policies` would change them; nothing is stored."""

    cases: Annotated[list[Case], Meta(min_length=1, max_length=1_000)]
    policies: Annotated[dict[PolicyName, str | None], Meta(max_length=500)] = {}


class CaseResult(Struct, frozen=True, kw_only=True):
    """What one case got."""

    passed: bool
    expected: bool
    got: Explained


class CaseResults(Struct, frozen=True, kw_only=True):
    """What the cases got, in order."""

    passed: bool
    results: list[CaseResult]


class TenantBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant to be made."""

    name: Annotated[str, Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class TenantAnswer(Struct, frozen=True, kw_only=True):
    """A tenant."""

    name: str
    status: TenantStatus
    created: float
    updated: float
    by: str


class TenantPage(Struct, frozen=True, kw_only=True):
    """Tenants by name; `next` is the `after` of the next page."""

    tenants: list[TenantAnswer]
    next: str | None = None


class WhoAmI(Struct, frozen=True, kw_only=True):
    """Who asks, as the gateway sees it."""

    principal: str
    kind: str
    tenant: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None
    agents: tuple[str, ...] | None
    expires: float | None


class ProtectedResource(Struct, frozen=True, kw_only=True):
    """Where tokens for this API come from (RFC 9728)."""

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]
    scopes_supported: list[str]


def key_answer(stored: StoredKey) -> KeyAnswer:
    """`stored` without its secret's digests."""
    return KeyAnswer(**{name: getattr(stored, name) for name in KeyAnswer.__struct_fields__})


def grant_answer(grant: Grant) -> GrantAnswer:
    """`grant` as it is shown."""
    return GrantAnswer(**{name: getattr(grant, name) for name in GrantAnswer.__struct_fields__})


def policy_answer(policy: StoredPolicy) -> PolicyAnswer:
    """`policy` as it is shown."""
    return PolicyAnswer(**{name: getattr(policy, name) for name in PolicyAnswer.__struct_fields__})


def tenant_answer(tenant: Tenant) -> TenantAnswer:
    """`tenant` as it is shown."""
    return TenantAnswer(**{name: getattr(tenant, name) for name in TenantAnswer.__struct_fields__})
