"""Who may ask for what, over HTTP: keys, roles, policies, tenants; and no tenant reaches another's things."""

import re
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.entrypoints.published.operation import Operation
from chimera.gateway.identity.actions import ACTIONS
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.tools import AgentTool
from chimera_host.testing import builders

from .conftest import World

KEYS = "/v1/tenants/default/keys"


async def make_key(world: World, tenant: str = "default", roles: tuple[str, ...] = ("operator",), **fields: Any) -> Any:
    status, body = await world.post(f"/v1/tenants/{tenant}/keys", {"name": "test", "roles": roles, **fields})
    assert status == 201, body
    return body


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def send(world: World, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with world.http.request(method, world.url + path, json=body, headers=headers) as answer:
        data = await answer.read()
        return answer.status, await answer.json(content_type=None) if data[:1] in (b"{", b"[") else data.decode()


async def test_a_key_lives_from_making_to_revoking(world: World) -> None:
    await world.agent()
    await world.host()
    made = await make_key(world)
    token, key = made["token"], made["key"]["id"]
    assert re.fullmatch(rf"chk_{key}_[a-z0-9]{{52}}", token)
    assert "token" not in (await world.get(f"{KEYS}/{key}"))[1]
    assert (await world.post("/v1/tenants/default/agents/agent/invoke", {"input": "x"}, **bearer(token)))[0] == 200
    assert (await world.get("/v1/whoami", **bearer(token)))[1] == {
        "principal": f"key:{key}",
        "kind": "key",
        "tenant": "default",
        "roles": ["operator"],
        "scopes": None,
        "agents": None,
        "expires": None,
    }
    status, rotated = await world.post(f"{KEYS}/{key}/rotate", {"overlap": 3600})
    assert status == 200
    for each in (token, rotated["token"]):
        assert (await world.get("/v1/whoami", **bearer(each)))[0] == 200
    status, last = await world.post(f"{KEYS}/{key}/rotate", {"overlap": 0})
    assert [(await world.get("/v1/whoami", **bearer(one)))[0] for one in (rotated["token"], last["token"])] == [
        401,
        200,
    ]
    status, revoked = await send(world, "DELETE", f"{KEYS}/{key}")
    assert (status, revoked["revoked"] is None) == (200, False)
    assert (await world.get("/v1/whoami", **bearer(last["token"])))[0] == 401
    assert (await send(world, "DELETE", f"{KEYS}/{key}"))[0] == 200
    assert (await world.post(f"{KEYS}/{key}/rotate", {}))[1]["code"] == "key-ended"
    assert [one for one, _ in world.identity.told] == ["key.created", "key.rotated", "key.rotated", "key.revoked"]
    assert (await world.get(KEYS))[1]["keys"][0]["last_used"] is not None or world.gateway.identity.directory._used


async def test_a_key_revoked_through_another_gateway_ends_within_a_poll(make_world: Any) -> None:
    async with make_world(settings={"identity": {"poll": 0.02}}) as world:
        made = await make_key(world)
        assert (await world.get("/v1/whoami", **bearer(made["token"])))[0] == 200
        stored = await world.identity.key(made["key"]["id"])
        assert stored is not None
        await world.identity.change_key(
            "default", stored.id, lambda one: replace(one, revoked=1.0), what="revoked", by=BOOTSTRAP_ADMIN
        )
        directory = world.gateway.identity.directory
        await directory.refresh()  # what the loop does each poll
        assert (await world.get("/v1/whoami", **bearer(made["token"])))[0] == 401


async def test_scopes_and_agents_narrow_a_key(world: World) -> None:
    await world.host()
    for name in ("one", "two"):
        await world.agent(name)
    narrow = await make_key(world, scopes=["agent:invoke"], agents=["one"])
    headers = bearer(narrow["token"])
    answers = {}
    for name in ("one", "two"):
        path = f"/v1/tenants/default/agents/{name}/invoke"
        answers[name] = (await world.post(path, {"input": "x"}, **headers))[0]
    assert answers == {"one": 200, "two": 403}
    assert (await world.get("/v1/whoami", **headers))[1]["agents"] == ["one"]
    status, problem = await world.get("/v1/models", **headers)
    assert (status, problem["code"]) == (403, "not-allowed")
    assert "catalogue:read" in problem["detail"]
    for name, expected in (("one", 200), ("two", 403)):
        chat = {"model": f"agent/{name}", "messages": [{"role": "user", "content": "x"}]}
        assert (await world.post("/v1/chat/completions", chat, **headers))[0] == expected


async def test_roles_say_what_a_key_may(world: World) -> None:
    await world.host()
    await world.agent()
    seen: dict[str, list[int]] = {}
    for role in ("viewer", "operator", "approver", "admin", "agent"):
        headers = bearer((await make_key(world, roles=(role,)))["token"])
        seen[role] = [
            (await world.post("/v1/tenants/default/agents/agent/invoke", {"input": "x"}, **headers))[0],
            (await world.get("/v1/models", **headers))[0],
            (await world.get(KEYS, **headers))[0],
            (await world.get("/v1/cells", **headers))[0],  # the platform's: for no tenant's principal
        ]
    assert seen == {
        "viewer": [403, 200, 403, 403],
        "operator": [200, 200, 403, 403],
        "approver": [403, 200, 403, 403],
        "admin": [200, 200, 200, 403],
        "agent": [200, 200, 403, 403],
    }


async def test_nobody_gives_more_than_they_have(world: World) -> None:
    admin = bearer((await make_key(world, roles=("admin",), scopes=["key:*", "agent:invoke"]))["token"])
    for body, expected in (
        ({"roles": ["admin"]}, "more-than-own"),
        ({"roles": ["operator"], "scopes": ["session:read"]}, "more-than-own"),
        ({"roles": ["operator"], "scopes": ["*"]}, "more-than-own"),
        ({"roles": ["emperor"]}, "invalid-request"),
        ({"roles": ["operator"], "scopes": ["agent:fly"]}, "invalid-request"),
        ({"roles": ["operator"], "agents": ["no such name"]}, "invalid-request"),
        ({"roles": ["operator"], "scopes": ["agent:invoke"]}, None),
    ):
        _, answer = await world.post(KEYS, {"name": "x", **body}, **admin)
        assert answer.get("code") == expected, body
    status, _ = await world.post("/v1/tenants/*/keys", {"name": "x", "roles": ["viewer"]}, **admin)
    assert status == 403


async def test_no_credential_and_wrong_ones_are_challenged(world: World) -> None:
    for shown in ("Bearer wrong", f"Bearer chk_{'0' * 16}_{'0' * 52}", "Basic eDp5", "Bearer a.b.c", ""):
        async with world.http.get(world.url + "/v1/whoami", headers={"Authorization": shown}) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


async def test_failures_are_bounded_and_known_keys_go_on(make_world: Any) -> None:
    async with make_world(settings={"identity": {"failures": 3, "failures_per_second": 0.001}}) as world:
        made = await make_key(world)
        known = bearer(made["token"])
        assert (await world.get("/v1/whoami", **known))[0] == 200
        answers = [(await world.get("/v1/whoami", **bearer(f"chk_{'0' * 16}_{'0' * 52}")))[0] for _ in range(5)]
        assert answers == [401, 401, 401, 429, 429]
        reads = world.identity.reads
        status, problem = await world.get("/v1/whoami", **bearer(f"chk_{'1' * 16}_{'0' * 52}"))
        assert (status, problem["code"], problem["retry_after"] > 0) == (429, "too-many-failures", True)
        assert (await world.get("/v1/whoami", **known))[0] == 200
        assert (await world.get("/v1/whoami"))[0] == 200  # the home's key
        assert world.identity.reads - reads <= 1  # the poll's: no look-up for what is refused


async def test_policies_permit_forbid_and_are_explained(world: World) -> None:
    await world.host()
    await world.agent("writer")
    await world.agent("payer")
    path = "/v1/tenants/default/policies"
    text = 'forbid (principal, action == Action::"agent:invoke", resource == Agent::"default/payer");'
    open_to_viewers = (
        'permit (principal in Role::"viewer", action == Action::"agent:invoke", resource == Agent::"default/writer");'
    )
    status, stored = await send(world, "PUT", path, {"policies": {"no-payer": text, "open": open_to_viewers}})
    assert (status, [one["version"] for one in stored]) == (200, [1, 1])
    viewer = bearer((await make_key(world, roles=("viewer",)))["token"])
    operator = bearer((await make_key(world))["token"])
    found = {}
    for name in ("writer", "payer"):
        invoke = f"/v1/tenants/default/agents/{name}/invoke"
        found[name] = [(await world.post(invoke, {"input": "x"}, **one))[0] for one in (viewer, operator)]
    assert found == {"writer": [200, 200], "payer": [403, 403]}
    question = {"action": "agent:invoke", "agent": "payer", "principal": "user:i|s", "roles": ["operator"]}
    status, explained = await world.post(f"{path}/explain", question)
    assert (status, explained["allowed"], explained["reasons"]) == (200, False, ["default/no-payer"])
    assert explained["policies"] == {"default/no-payer": text}
    cases = [{**question, "allowed": True}, {**question, "agent": "writer", "allowed": True}]
    status, tested = await world.post(f"{path}/test", {"cases": cases, "policies": {"no-payer": None}})
    assert (status, tested["passed"]) == (200, True)
    status, tested = await world.post(f"{path}/test", {"cases": cases})
    assert [one["passed"] for one in tested["results"]] == [False, True]
    assert (await send(world, "PUT", path, {"policies": {"no-payer": None}}))[0] == 200
    assert (await world.post("/v1/tenants/default/agents/payer/invoke", {"input": "x"}, **operator))[0] == 200
    assert (await world.get(f"{path}/no-payer"))[0] == 404
    assert [one["name"] for one in (await world.get(path))[1]["policies"]] == ["open"]


@pytest.mark.parametrize(
    "text", ["permit (principal", "permit (principal, action, resource) when { resource.nothing };", "", "x" * 40_000]
)
async def test_a_policy_that_is_not_valid_is_not_stored(world: World, text: str) -> None:
    good = "permit (principal, action, resource);"
    body = {"policies": {"good": good, "bad": text}}
    status, problem = await send(world, "PUT", "/v1/tenants/default/policies", body)
    assert status in (409, 422)
    assert problem["code"] in ("invalid-policy", "too-many-policies")
    assert (await world.get("/v1/tenants/default/policies"))[1]["policies"] == []


async def test_whoever_forbids_everything_can_be_helped_by_the_homes_key(world: World) -> None:
    path = "/v1/tenants/default/policies"
    body = {"policies": {"none": "forbid (principal, action, resource);"}}
    assert (await send(world, "PUT", path, body))[0] == 200
    assert (await world.get("/v1/models"))[0] == 403
    assert (await send(world, "PUT", path, {"policies": {"none": None}}))[0] == 200
    assert (await world.get("/v1/models"))[0] == 200


async def test_granted_roles_count_at_once_and_are_taken_at_once(world: World) -> None:
    path = "/v1/tenants/default/roles"
    status, grant = await send(world, "PUT", path, {"principal": "user:https://i|s", "roles": ["operator"]})
    assert (status, grant["roles"]) == (200, ["operator"])
    question = {"action": "agent:invoke", "agent": "a", "principal": "user:https://i|s"}
    explain = "/v1/tenants/default/policies/explain"
    assert (await world.post(explain, question))[1]["allowed"] is True
    assert (await send(world, "PUT", path, {"principal": "user:https://i|s", "roles": []}))[0] == 200
    assert (await world.post(explain, question))[1]["allowed"] is False
    assert (await world.get(path))[1] == {"grants": [], "next": None}
    assert (await send(world, "PUT", path, {"principal": "key:1", "roles": ["operator"]}))[0] == 400


async def test_a_suspended_tenant_is_closed_and_keeps_its_things(world: World) -> None:
    assert (await world.post("/v1/tenants", {"name": "acme"}))[0] == 201
    assert (await world.post("/v1/tenants", {"name": "acme"}))[1]["code"] == "tenant-exists"
    key = bearer((await make_key(world, tenant="acme", roles=("admin",)))["token"])
    assert (await world.get("/v1/tenants/acme/models", **key))[0] == 200
    assert (await world.post("/v1/tenants/acme/suspend", {}))[0] == 200
    for headers in (key, {}):
        status, problem = await world.get("/v1/tenants/acme/models", **headers)
        assert (status, problem["code"]) == (403, "tenant-suspended")
    assert (await world.get("/v1/tenants/acme/keys", **key))[0] == 403
    assert (await world.get("/v1/tenants/acme/keys"))[0] == 200  # the platform may mend it
    assert (await world.post("/v1/tenants/acme/resume", {}, **key))[0] == 403
    assert (await world.post("/v1/tenants/acme/resume", {}))[0] == 200
    assert (await world.get("/v1/tenants/acme/models", **key))[0] == 200
    assert [one["name"] for one in (await world.get("/v1/tenants"))[1]["tenants"]] == ["acme", "default"]


async def test_an_agents_call_is_authorised_as_that_agent(world: World) -> None:
    tool = AgentTool(name="helper", agent="helper")
    await world.agent("caller", document=builders.document("caller", tools=(tool,)))
    await world.agent("helper")
    host = await world.host()

    async def ask() -> tuple[int, Any]:
        found: list[tuple[int, Any]] = []

        async def answer(request: InvokeRequest) -> str:
            if request.agent == "caller":
                path = "/internal/v1/agents/helper/invoke"
                found.append(await world.internal(path, {"message": "x"}, call=request.call))
            return "done"

        host.answer = answer
        assert (await world.invoke("caller"))[0] == 200
        return found[0]

    assert (await ask())[0] == 200
    text = 'forbid (principal == Agent::"default/caller", action == Action::"agent:invoke", resource);'
    await send(world, "PUT", "/v1/tenants/default/policies", {"policies": {"alone": text}})
    status, problem = await ask()
    assert (status, problem["code"]) == (403, "not-allowed")
    assert "agent:caller may not agent:invoke on Agent:default/helper" in problem["detail"]


def _paths() -> list[Operation]:
    return [one for one in OPERATIONS if one.key and one.resource == "path"]


@pytest.mark.parametrize("operation", _paths(), ids=lambda one: one.name)
async def test_another_tenants_principal_gets_nowhere(world: World, operation: Operation) -> None:
    """Every published operation, as an admin of another tenant: refused before anything is looked up."""
    assert (await world.post("/v1/tenants", {"name": "acme"}))[0] == 201
    made = await make_key(world, tenant="acme", roles=("admin", "operator", "approver", "viewer", "agent"))
    path = re.sub(r"\{tenant\}", "default", operation.path)
    path = re.sub(r"\{(\w+)\}", "thing", path)
    before = list(world.identity.told)
    status, problem = await send(world, operation.method, path, {}, **bearer(made["token"]))
    assert (status, problem["code"]) == (403, "not-allowed"), operation.name
    assert world.identity.told == before


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/tenants/default/chat/completions"])
async def test_another_tenants_principal_calls_no_agent_by_a_body(world: World, path: str) -> None:
    await world.agent()
    assert (await world.post("/v1/tenants", {"name": "acme"}))[0] == 201
    made = await make_key(world, tenant="acme", roles=("admin",))
    body = {"model": "agent/agent", "messages": [{"role": "user", "content": "x"}]}
    assert (await world.post(path, body, **bearer(made["token"])))[0] == 403


def test_operations_whose_body_names_the_agent_are_asked_about_in_their_handler() -> None:
    assert {one.name for one in OPERATIONS if one.resource == "body"} == {"chat", "tenant_chat"}
    assert {one.name for one in OPERATIONS if one.resource == "own"} == {"event_types", "openapi", "whoami"}
    assert all(one.action in ACTIONS for one in OPERATIONS if one.key)


async def test_metadata_of_the_protected_resource(world: World) -> None:
    async with world.http.get(
        world.url + "/.well-known/oauth-protected-resource", headers={"Authorization": ""}
    ) as answer:
        body = await answer.json()
    assert answer.status == 200
    assert body["resource"] == world.url
    assert body["authorization_servers"] == []
    assert "agent:invoke" in body["scopes_supported"]


async def test_a_database_that_is_away_refuses_what_is_not_known(world: World) -> None:
    made = await make_key(world)
    other = await make_key(world)
    assert (await world.get("/v1/whoami", **bearer(made["token"])))[0] == 200
    world.identity.fail = OSError("away")
    assert (await world.get("/v1/whoami", **bearer(made["token"])))[0] == 200
    assert (await world.get("/v1/whoami", **bearer(other["token"])))[0] == 500
    world.identity.fail = None


async def test_a_running_host_gets_a_fresh_token_and_no_other_does(make_world: Any) -> None:
    async with make_world(settings={"identity": {"token_life": 900}}) as world:
        await world.host()
        status, fresh = await world.internal("/internal/v1/token", {})
        assert (status, fresh["expires_in"]) == (200, 900.0)
        assert (await world.internal("/internal/v1/token", {}, Authorization=f"Bearer {fresh['token']}"))[0] == 200
        status, problem = await world.internal("/internal/v1/token", {}, host="gone")
        assert (status, problem["code"]) == (403, "forbidden")
