"""Tokens that issuers signed (JWT, RFC 7519), checked with joserfc as RFC 8725 advises.

The header chooses nothing that matters. Its `alg` must be one that the issuer's settings name and that fits the key's
own type and `alg`; `kid` finds a key among those of the issuer's one address; `jku`, `jwk` and `x5u` are not looked at;
`crit` is refused. The issuer is taken from the claims before they are trusted, to find whose keys must have signed
them; with those keys the signature is checked, and only then are issuer, audience, expiry and the rest.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key

from chimera.adapters.identity.jwks import Jwks
from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity.claims import IssuerConfig, principal_of_claims
from chimera.gateway.identity.principal import Principal
from chimera.kernel.clock import Clock

_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class JoseVerifier:
    """Checks tokens of the configured issuers."""

    def __init__(self, issuers: Mapping[str, tuple[IssuerConfig, Jwks]], clock: Clock) -> None:
        """Know `issuers`, each with its keys, by the name that its settings have."""
        self._by_issuer = {config.issuer: (config, keys) for config, keys in issuers.values()}
        self._clock = clock

    def issuers(self) -> Sequence[str]:
        """See `TokenVerifier`."""
        return list(self._by_issuer)

    async def verify(self, token: str) -> Principal:
        """See `TokenVerifier`."""
        header, unverified = _look(token)
        issuer = unverified.get("iss")
        found = self._by_issuer.get(issuer) if isinstance(issuer, str) else None
        if found is None:
            raise _refused("it is of no issuer known here")
        config, keys = found
        algorithm = _check_header(header, config)
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise _refused("its key id is no text")
        candidates = [key for key in await keys.find(kid, _TYPES[algorithm[:2]]) if _fits(key, algorithm)]
        if not candidates:
            raise _refused("its issuer has no such key")
        claims = _verified(token, candidates, algorithm)
        try:
            jwt.JWTClaimsRegistry(
                now=int(self._clock.wall()),
                leeway=int(config.leeway),
                iss={"essential": True, "value": config.issuer},
                aud={"essential": True, "value": config.audience},
                exp={"essential": True},
                sub={"essential": True},
            ).validate(claims)
        except JoseError as error:
            raise _refused(f"{error.error}: {error.description or 'a claim does not hold'}") from error
        return principal_of_claims(claims, config)


def _check_header(header: Mapping[str, Any], config: IssuerConfig) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in config.algorithms:
        raise _refused("its algorithm is not one of the issuer's settings")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in {one.lower() for one in config.types}:
        raise _refused("its type is not one of the issuer's settings")
    if "crit" in header or "zip" in header or "enc" in header:
        raise _refused("its header asks for what is not taken here")
    return algorithm


def _fits(key: Key, algorithm: str) -> bool:
    return key.get("alg") in (None, algorithm) and not (key.get("key_ops") and "verify" not in key["key_ops"])


def _verified(token: str, keys: Sequence[Key], algorithm: str) -> dict[str, Any]:
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    for key in keys[:8]:  # without a key id all of a kind are tried; a set has few
        try:
            return jwt.decode(token, key, algorithms=[algorithm], registry=registry).claims
        except (JoseError, ValueError):
            continue
    raise _refused("its signature is wrong")


def _look(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, not trusted yet."""
    parts = token.split(".")
    try:
        header, claims = (msgspec.json.decode(_decoded(part), type=dict[str, Any]) for part in parts[:2])
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError) as error:
        raise _refused("it can't be read") from error
    return header, claims


def _decoded(part: str) -> bytes:
    return base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"the token is not valid: {why}", next_step="get another from your issuer")
