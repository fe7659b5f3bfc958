"""Tokens of issuers: what holds, and every way in which one doesn't (RFC 8725)."""

import base64
import hashlib
import hmac
import json
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from chimera.adapters.identity.jose import JoseVerifier
from chimera.adapters.identity.jwks import Jwks
from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity.claims import IssuerConfig, all_faults, faults, principal_of_claims
from chimera.gateway.identity.errors import IssuerUnavailable
from chimera.testing.clock import ManualClock

ISSUER = "https://issuer.test"
RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"}, private=True)
CONFIG = IssuerConfig(
    issuer=ISSUER,
    audience="chimera",
    jwks="file:unused",
    tenant="acme",
    roles_claim="realm_access.roles",
    roles={"platform-ops": "operator", "all": "viewer"},
)
NOW = 1_000_000.0


class Source:
    """A key set that a test changes; `fault` is raised instead."""

    def __init__(self, *keys: Key) -> None:
        self.keys: list[dict[str, Any]] = [key.as_dict(private=False) for key in keys]
        self.fault: Exception | None = None
        self.fetched = 0

    async def fetch(self) -> bytes:
        self.fetched += 1
        if self.fault is not None:
            raise self.fault
        return json.dumps({"keys": self.keys}).encode()


class Setup:
    def __init__(self, config: IssuerConfig = CONFIG, **bounds: float) -> None:
        self.clock = ManualClock(NOW)
        self.source = Source(RSA, EC, ED)
        self.jwks = Jwks("test", self.source, self.clock, **bounds)
        self.verifier = JoseVerifier({"test": (config, self.jwks)}, self.clock)


def claims(**changed: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": "chimera",
        "sub": "anna",
        "exp": int(NOW) + 300,
        "realm_access": {"roles": ["platform-ops", "unknown"]},
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(key: Key = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **changed: Any) -> str:
    first = {"alg": algorithm, "kid": key.kid, **(header or {})}
    return jwt.encode(
        {name: value for name, value in first.items() if value is not None},
        claims(**changed),
        key,
        algorithms=[algorithm],
    )


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, and issuers go on with it
@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519")])
async def test_a_token_that_holds(key: Key, algorithm: str) -> None:
    principal = await Setup().verifier.verify(token(key, algorithm))
    assert principal.actor == f"user:{ISSUER}|anna"
    assert (principal.tenant, principal.roles, principal.scopes) == ("acme", frozenset({"operator"}), None)
    assert principal.expires == NOW + 300 + CONFIG.leeway


async def test_a_token_without_a_key_id_is_tried_with_the_keys_of_its_kind() -> None:
    assert (await Setup().verifier.verify(token(header={"kid": None}))).kind == "user"


def _forged_none() -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"rsa"}').rstrip(b"=").decode()
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=").decode()
    return f"{head}.{body}."


def _forged_symmetric() -> str:
    """The public key used as an HMAC secret: what a verifier falls for that lets the header choose."""
    first = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa"}').rstrip(b"=")
    signed = first + b"." + base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    signature = hmac.new(RSA.as_pem(private=False), signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _tampered() -> str:
    head, _, signature = token().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="root")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (_forged_none(), "algorithm"),
        (_forged_symmetric(), "algorithm"),
        (_tampered(), "signature"),
        (token(STRANGER), "signature"),
        (token(RSA, "PS256"), "algorithm"),
        (token(header={"kid": "other"}), "no such key"),
        (token(header={"typ": "logout+jwt"}), "type"),
        (token(iss="https://other.test"), "no issuer known"),
        (token(iss=["https://issuer.test"]), "no issuer known"),
        (token(aud="other"), "aud"),
        (token(aud=None), "aud"),
        (token(exp=int(NOW) - 60), "exp"),
        (token(exp=None), "exp"),
        (token(exp="soon"), "exp"),
        (token(nbf=int(NOW) + 600), "not yet"),
        (token(iat=int(NOW) + 600), "future"),
        (token(sub=None), "sub"),
        (token(sub=""), "sub"),
        (token(sub="a\nb"), "subject"),
        (token(sub="x" * 300), "subject"),
        ("a.b.c", "can't be read"),
        ("..", "can't be read"),
        ("€.€.€", "can't be read"),
        ("W10.W10.x", "can't be read"),
        (token() + "x", "signature"),
    ],
)
async def test_a_token_that_does_not_hold(shown: str, says: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        await Setup().verifier.verify(shown)
    assert says in raised.value.detail


async def test_leeway_is_given_to_clocks() -> None:
    assert await Setup().verifier.verify(token(exp=int(NOW) - 20))
    assert await Setup().verifier.verify(token(nbf=int(NOW) + 20))


async def test_what_the_header_points_to_is_not_asked() -> None:
    header = {"jku": "https://evil.test", "jwk": STRANGER.as_dict(private=False), "x5u": "https://evil.test"}
    with pytest.raises(Unauthenticated):
        await Setup().verifier.verify(token(STRANGER, header=header))


# -- the issuer's keys -----------------------------------------------------------------------------------------------


async def test_changed_keys_are_fetched_when_a_token_names_one_and_not_more_often() -> None:
    setup = Setup(pause=10.0)
    await setup.verifier.verify(token())
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await setup.verifier.verify(token(header={"kid": "new"}))
    assert setup.source.fetched == 1
    setup.source.keys.append(STRANGER.as_dict(private=False) | {"kid": "new"})
    setup.clock.advance(11.0)
    with pytest.raises(Unauthenticated, match="signature"):
        await setup.verifier.verify(token(header={"kid": "new"}))
    assert setup.source.fetched == 2


async def test_known_keys_count_while_the_issuer_is_away_and_not_for_ever() -> None:
    setup = Setup(pause=10.0, fresh=100.0, kept=1_000.0)
    await setup.verifier.verify(token())
    setup.source.fault = OSError("away")
    setup.clock.advance(500.0)
    assert await setup.verifier.verify(token(exp=int(NOW) + 5_000))
    setup.clock.advance(600.0)
    with pytest.raises(IssuerUnavailable) as raised:
        await setup.verifier.verify(token(exp=int(NOW) + 5_000))
    assert "away" in raised.value.detail
    setup.source.fault = None
    setup.clock.advance(11.0)
    assert await setup.verifier.verify(token(exp=int(NOW) + 5_000))


async def test_a_withdrawn_key_is_refused_once_the_set_is_fetched_again() -> None:
    setup = Setup(pause=10.0, fresh=100.0)
    await setup.verifier.verify(token())
    setup.source.keys = [EC.as_dict(private=False)]
    setup.clock.advance(101.0)
    with pytest.raises(Unauthenticated, match="no such key"):
        await setup.verifier.verify(token())


@pytest.mark.parametrize(
    "data", [[], [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}], [RSA.as_dict(private=True)], ["x"]]
)
async def test_a_set_without_public_keys_is_no_set(data: Any) -> None:
    setup = Setup()
    setup.source.keys = data
    with pytest.raises(IssuerUnavailable):
        await setup.verifier.verify(token())


async def test_a_key_that_cannot_be_read_does_not_spoil_the_others() -> None:
    setup = Setup()
    setup.source.keys.insert(0, {"kty": "RSA", "kid": "broken", "n": "!", "e": "!"})
    assert await setup.verifier.verify(token())


# -- what claims mean ------------------------------------------------------------------------------------------------


def test_claims_are_mapped_and_nothing_else_counts() -> None:
    config = IssuerConfig(
        issuer=ISSUER,
        audience="chimera",
        jwks="file:x",
        tenant_claim="https://chimera/tenant",
        roles_claim="groups",
        roles={"a": "admin"},
        scope_claim="scope",
    )
    found = principal_of_claims(
        {"sub": "s", "https://chimera/tenant": "acme", "groups": "a b", "scope": "agent:invoke openid session:*"},
        config,
    )
    assert found.roles == frozenset({"admin"})
    assert found.scopes == frozenset({"agent:invoke", "session:*"})
    for tenant in ("*", None, 3, "No Name", ["acme"]):
        with pytest.raises(Unauthenticated):
            principal_of_claims({"sub": "s", "https://chimera/tenant": tenant}, config)
    assert principal_of_claims({"sub": "s", "https://chimera/tenant": "acme"}, config).scopes == frozenset()


@pytest.mark.parametrize("roles", [None, 3, {"x": 1}, [3, None], "admin"])
def test_roles_that_are_not_mapped_give_nothing(roles: Any) -> None:
    assert principal_of_claims({"sub": "s", "realm_access": {"roles": roles}}, CONFIG).roles == frozenset()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"algorithms": ("HS256",)}, "public keys"),
        ({"algorithms": ("none",)}, "public keys"),
        ({"algorithms": ()}, "at least one"),
        ({"jwks": "http://issuer.test/keys"}, "https"),
        ({"jwks": "ftp://issuer.test"}, "https"),
        ({"tenant": None}, "tenant"),
        ({"tenant_claim": "t"}, "tenant"),
        ({"tenant": "No Name"}, "tenant"),
        ({"roles": {"a": "emperor"}}, "no role"),
        ({"audience": ""}, "audience"),
    ],
)
def test_a_configuration_that_is_not_safe_is_refused(fields: dict[str, Any], says: str) -> None:
    assert any(says in fault for fault in faults("test", msgspec.structs.replace(CONFIG, **fields)))
    assert faults("test", CONFIG) == []
    assert all_faults({"one": CONFIG}) == []
    assert "issuer.two" in all_faults({"one": CONFIG, "two": CONFIG})[0]
    assert faults("test", msgspec.structs.replace(CONFIG, jwks="http://127.0.0.1:9/keys", tenant="*")) == []
