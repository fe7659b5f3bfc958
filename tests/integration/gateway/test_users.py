"""Users of an identity provider, from a signed token over HTTP to what they may do; its keys over real HTTP too."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey

from chimera.adapters.identity.jwks import MAX_BYTES, JwksUrl
from chimera.gateway.identity.claims import IssuerConfig

from .test_identity import bearer, send

KEY = ECKey.generate_key("P-256", {"kid": "one"}, private=True)
ISSUER = "https://login.test"


class Provider:
    """Serves a key set; `answer` replaces it."""

    def __init__(self) -> None:
        self.answer = web.json_response
        self.asked = 0
        self.url = ""

    async def handle(self, _: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        return self.answer({"keys": [KEY.as_dict(private=False)]})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield made
    await runner.cleanup()


def issuer(provider: Provider, **fields: Any) -> IssuerConfig:
    given = {"tenant": "default", "roles_claim": "groups", "roles": {"ops": "operator", "all": "viewer"}, **fields}
    return IssuerConfig(issuer=ISSUER, audience="chimera", jwks=provider.url, **given)


def token(**claims: Any) -> dict[str, str]:
    said = {"iss": ISSUER, "aud": "chimera", "sub": "anna", "exp": int(time.time()) + 300, "groups": ["all"], **claims}
    return bearer(jwt.encode({"alg": "ES256", "kid": "one"}, said, KEY, algorithms=["ES256"]))


async def test_a_user_may_what_its_groups_and_grants_say(make_world: Any, provider: Provider) -> None:
    async with make_world(issuers={"login": issuer(provider)}) as world:
        await world.host()
        await world.agent()
        invoke = "/v1/tenants/default/agents/agent/invoke"
        viewer, operator, stranger = token(), token(sub="bob", groups=["ops"]), token(sub="eve", groups=["others"])
        assert (await world.get("/v1/whoami", **viewer))[1]["principal"] == f"user:{ISSUER}|anna"
        found = [(await world.post(invoke, {"input": "x"}, **one))[0] for one in (viewer, operator, stranger)]
        assert found == [403, 200, 403]
        assert (await world.get("/v1/models", **stranger))[0] == 403
        roles = {"principal": f"user:{ISSUER}|anna", "roles": ["agent"]}
        assert (await send(world, "PUT", "/v1/tenants/default/roles", roles))[0] == 200
        assert (await world.post(invoke, {"input": "x"}, **viewer))[0] == 200
        assert provider.asked == 1
        async with world.http.get(world.url + "/v1/whoami", headers={"Authorization": ""}) as answer:
            challenge = answer.headers["WWW-Authenticate"]
        assert f'resource_metadata="{world.url}/.well-known/oauth-protected-resource"' in challenge
        metadata = await world.get("/.well-known/oauth-protected-resource")
        assert metadata[1]["authorization_servers"] == [ISSUER]


async def test_a_users_tenant_is_a_wall(make_world: Any, provider: Provider) -> None:
    config = issuer(provider, tenant=None, tenant_claim="tenant")
    async with make_world(issuers={"login": config}) as world:
        assert (await world.post("/v1/tenants", {"name": "acme"}))[0] == 201
        user = token(tenant="acme", groups=["ops"])
        assert (await world.get("/v1/tenants/acme/models", **user))[0] == 200
        assert (await world.get("/v1/tenants/default/models", **user))[0] == 403
        assert (await world.get("/v1/whoami", **token(tenant="*")))[0] == 401
        assert (await world.get("/v1/whoami", **token()))[0] == 401


async def test_an_issuer_that_is_away_is_said_and_other_credentials_go_on(make_world: Any, provider: Provider) -> None:
    provider.answer = lambda _: web.Response(status=500)
    settings = {"identity": {"jwks_pause": 0.1}}
    async with make_world(issuers={"login": issuer(provider)}, settings=settings) as world:
        status, problem = await world.get("/v1/whoami", **token())
        assert (status, problem["code"]) == (503, "issuer-unavailable")
        assert (await world.get("/v1/whoami"))[0] == 200
        assert world.gateway.metrics.refused.labels("issuer-unavailable")._value.get() == 1


def _redirect(_: Any) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})


def _too_large(_: Any) -> web.Response:
    return web.Response(body=b"x" * (MAX_BYTES + 1))


@pytest.mark.parametrize("answer", [_redirect, _too_large, lambda _: web.Response(status=404)])
async def test_an_address_that_gives_no_keys_is_an_error(provider: Provider, answer: Any) -> None:
    provider.answer = answer
    with pytest.raises(ValueError, match=r"answered|more than"):
        await JwksUrl(provider.url).fetch()


async def test_keys_come_over_http(provider: Provider) -> None:
    assert json.loads(await JwksUrl(provider.url).fetch())["keys"][0]["kid"] == "one"
