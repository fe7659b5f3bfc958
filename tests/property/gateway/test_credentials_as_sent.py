"""Whatever is sent as a credential is somebody or a 401: never another error, never somebody by chance."""

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

from chimera.adapters.identity.cedar import Cedar
from chimera.adapters.identity.jose import JoseVerifier
from chimera.adapters.identity.jwks import Jwks
from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.identity.claims import IssuerConfig
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.failures import Failures
from chimera.gateway.policy.decide import Policies
from chimera.testing.clock import ManualClock
from chimera.testing.identity import FakeIdentityStore

KEY = RSAKey.generate_key(2048, {"kid": "one"}, private=True)
CONFIG = IssuerConfig(issuer="https://i", audience="chimera", jwks="file:x", tenant="default")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "none", "HS256", "ES256", "EdDSA"]) | anything,
        "kid": st.just("one") | anything,
        "typ": st.just("JWT") | anything,
        "crit": anything,
        "b64": anything,
        "jwk": anything,
    },
)
claims = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.just("https://i") | anything,
        "aud": st.just("chimera") | anything,
        "sub": st.just("anna") | anything,
        "exp": st.just(4_000_000_000) | anything,
        "nbf": anything,
        "iat": anything,
    },
)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


unsigned = st.tuples(headers, claims, st.binary(max_size=300)).map(
    lambda made: f"{part(made[0])}.{part(made[1])}.{base64.urlsafe_b64encode(made[2]).rstrip(b'=').decode()}"
)
credentials = (
    st.text(max_size=300)
    | unsigned
    | st.tuples(st.text(max_size=20), st.text(max_size=60)).map(lambda made: f"chk_{made[0]}_{made[1]}")
    | st.from_regex(r"chk_[0-9a-z]{16}_[0-9a-z]{52}", fullmatch=True)
    | st.text(alphabet=".ab", max_size=40)
)


class Keys:
    async def fetch(self) -> bytes:
        return json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()


@settings(max_examples=400, deadline=None)
@given(credential=credentials, scheme=st.sampled_from(["Bearer ", "bearer ", "", "Basic ", "Bearer"]))
async def test_nobody_gets_in_by_chance(credential: str, scheme: str) -> None:
    clock = ManualClock()
    authenticator = Authenticator(
        home_key=b"h" * 43,
        directory=Directory(FakeIdentityStore(), Policies(Cedar())),
        failures=Failures(burst=1e9, per_second=1.0),
        clock=clock,
        tokens=JoseVerifier({"i": (CONFIG, Jwks("i", Keys(), clock))}, clock),
    )
    try:
        await authenticator.authenticate(scheme + credential, "a")
    except Unauthenticated:
        return
    raise AssertionError(f"{credential!r} is somebody")
