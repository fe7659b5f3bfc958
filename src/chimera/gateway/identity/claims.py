"""From a token's claims to a principal: what of an issuer's words counts here; pure rules.

An issuer (an OpenID provider) says who somebody is. What they may do here is the operator's to say: an `IssuerConfig`
maps values of one claim to roles and says the tenant, by a claim or for all. What isn't mapped gives nothing, so a new
group at the issuer opens no door. Advice of RFC 8725 is kept by refusing at the start what it warns of: algorithms are
named, symmetric ones and `none` can't be; audience and expiry are required; keys come from one place per issuer, never
from the token.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity.actions import ROLES, is_scope
from chimera.gateway.identity.principal import ALL_TENANTS, Principal
from chimera.kernel.ids import is_name

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_SUBJECT = 255
_MOST_VALUES = 1_000


class IssuerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One issuer of JSON Web Tokens.

    `jwks` is where its public keys are: an https URL, or `file:PATH`. `tenant` is the tenant of all its users (`*`: the
    platform's), or `tenant_claim` names the claim that holds it. `roles_claim` names the claim (dots go into objects)
    whose values `roles` maps to roles here. `scope_claim`, where given, narrows by the scopes in it. `types` are the
    values that the header `typ` may have. `leeway` is in seconds.
    """

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA", "Ed25519")
    tenant: str | None = None
    tenant_claim: str | None = None
    roles_claim: str = "roles"
    roles: dict[str, str] = {}
    scope_claim: str | None = None
    types: tuple[str, ...] = ("JWT", "at+jwt", "application/at+jwt")
    leeway: Annotated[float, Meta(ge=0, le=300)] = 30.0


def faults(name: str, config: IssuerConfig) -> list[str]:
    """What is wrong with a configuration; empty: nothing."""
    where = f"issuer.{name}"
    found = []
    if bad := [one for one in config.algorithms if one not in ASYMMETRIC]:
        found.append(
            f"{where}.algorithms: {', '.join(bad)} can't be used with public keys; known: {', '.join(ASYMMETRIC)}"
        )
    if not config.algorithms:
        found.append(f"{where}.algorithms: name at least one")
    if not config.issuer or not config.audience:
        found.append(f"{where}: issuer and audience are required")
    if (config.tenant is None) == (config.tenant_claim is None):
        found.append(f"{where}: give either tenant or tenant_claim")
    if config.tenant is not None and config.tenant != ALL_TENANTS and not is_name(config.tenant):
        found.append(f"{where}.tenant: {config.tenant!r} is no tenant's name")
    found += [
        f"{where}.roles: {role!r} is no role; known: {', '.join(ROLES)}"
        for role in config.roles.values()
        if role not in ROLES
    ]
    url = urlsplit(config.jwks)
    local = url.scheme == "http" and url.hostname in LOOPBACK
    if not (config.jwks.startswith("file:") or (url.scheme == "https" and url.hostname) or local):
        found.append(f"{where}.jwks: give an https URL or file:PATH; what comes by http can be anybody's")
    return found


def all_faults(configs: Mapping[str, IssuerConfig]) -> list[str]:
    """What is wrong with configurations, each alone and together."""
    found = [fault for name, config in configs.items() for fault in faults(name, config)]
    named: dict[str, str] = {}
    for name, config in configs.items():
        if (other := named.setdefault(config.issuer, name)) != name:
            found.append(f"issuer.{name}: issuer.{other} is of the same issuer; which would count?")
    return found


def principal_of_claims(claims: Mapping[str, Any], config: IssuerConfig) -> Principal:
    """Who a verified token's claims say. Raises `Unauthenticated` where they don't say it."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise _refused("the token names no subject")
    tenant = config.tenant if config.tenant_claim is None else _at(claims, config.tenant_claim)
    # A token may name a tenant, never all of them: that is for the operator's configuration alone.
    if not isinstance(tenant, str) or not (is_name(tenant) or config.tenant == ALL_TENANTS):
        raise _refused(f"the token's claim {config.tenant_claim} names no tenant")
    roles = {config.roles[value] for value in _texts(_at(claims, config.roles_claim)) if value in config.roles}
    scopes = None
    if config.scope_claim is not None:
        scopes = frozenset(value for value in _texts(_at(claims, config.scope_claim)) if is_scope(value))
    expires = claims.get("exp")
    return Principal(
        kind="user",
        subject=f"{config.issuer}|{subject}",
        tenant=tenant,
        roles=frozenset(roles),
        scopes=scopes,
        expires=float(expires) + config.leeway if isinstance(expires, (int, float)) else None,
    )


def _at(claims: Mapping[str, Any], path: str) -> Any:
    if path in claims:  # a claim's own name may hold dots: a URL
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return value.split()[:_MOST_VALUES]
    if isinstance(value, (list, tuple)):
        return [one for one in value[:_MOST_VALUES] if isinstance(one, str)]
    return ()


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, next_step="see the issuer's settings, and what its tokens hold")
