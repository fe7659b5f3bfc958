"""What the gateway writes to the audit log, when, and how it is read over HTTP."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chimera.gateway import audit as trail
from chimera.immune.audit.model import ChainedEntry, decode
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.testing import builders

from .conftest import World

LOG = "/v1/tenants/*/audit"


async def entries(world: World, **wanted: str) -> list[Any]:
    """Entries so far, once what waits is written."""
    await world.gateway.audit.flush()
    found = world.audit.records
    return [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]


async def key(world: World, **fields: Any) -> dict[str, str]:
    status, body = await world.post("/v1/tenants/default/keys", {"name": "test", "roles": ["viewer"], **fields})
    assert status == 201, body
    return {"Authorization": f"Bearer {body['token']}"}


async def test_a_call_has_its_decision_and_what_came_of_it(world: World) -> None:
    await world.agent()
    host = await world.host()

    async def answer(request: InvokeRequest) -> str:
        # The entry is written while the agent works, before anybody flushes.
        async with asyncio.timeout(60):
            await world.audit.recorded.wait()
        return "done"

    host.answer = answer
    traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert (await world.invoke(session="s1"))[0] == 200
    status, _ = await world.post(
        "/v1/tenants/default/agents/agent/invoke", {"input": "secret words"}, traceparent=traceparent
    )
    assert status == 200
    first, outcome, second, _ = await entries(world, action="agent:invoke")
    assert (first.decision, first.outcome, first.actor, first.resource) == (
        "allow",
        "",
        "key:bootstrap",
        "agents/agent",
    )
    assert first.detail["session"] == "s1"
    assert first.detail["revision"].startswith("sha256:")
    assert (outcome.decision, outcome.outcome, outcome.call) == ("none", "ok", first.call)
    assert outcome.request == first.request != second.request
    assert outcome.detail["host"] == "host-1"
    assert second.traceparent == traceparent
    assert b"secret words" not in msgspec.json.encode(world.audit.records)


async def test_what_is_not_admitted_and_what_fails_has_its_outcome(world: World) -> None:
    await world.agent()
    assert (await world.invoke("nobody"))[0] == 404
    (missing,) = await entries(world, resource="agents/nobody")
    assert (missing.decision, missing.outcome, missing.call) == ("allow", "agent-not-found", "")


async def test_a_decision_that_there_is_not_is_refused(world: World) -> None:
    status, problem = await world.get("/v1/tenants/default/audit?decision=perhaps")
    assert (status, problem["code"]) == (400, "invalid-request")
    assert "allow, deny, none" in problem["next_step"]


async def test_a_refusal_is_durable_before_its_answer(world: World) -> None:
    await world.agent()
    viewer = await key(world)
    world.audit.records.clear()
    status, _ = await world.post("/v1/tenants/default/agents/agent/invoke", {"input": "x"}, **viewer)
    assert status == 403
    denied = [one for one in world.audit.records if one.decision == "deny"]
    assert [(one.action, one.resource, one.outcome) for one in denied] == [
        ("agent:invoke", "agents/agent", "not-allowed")
    ]
    assert denied[0].request
    assert (await world.get("/v1/whoami", Authorization="Bearer chk_0123456789abcdef_wrong"))[0] == 401
    assert [(one.actor, one.outcome) for one in world.audit.records if one.action == "api:authenticate"] == [
        ("unauthenticated", "unauthenticated")
    ]


async def test_a_call_of_an_agent_is_recorded_as_the_agents(world: World) -> None:
    await world.agent("inner")
    await world.agent("outer", document=builders.document("outer", tools=(AgentTool(name="inner", agent="inner"),)))
    host = await world.host()

    async def answer(request: InvokeRequest) -> str:
        if request.agent == "outer":
            status, _body = await world.internal(
                "/internal/v1/agents/inner/invoke", {"message": "m"}, call=request.call
            )
            assert status == 200
        return "done"

    host.answer = answer
    assert (await world.invoke("outer"))[0] == 200
    inner = (await entries(world, resource="agents/inner", decision="allow"))[0]
    outer = (await entries(world, resource="agents/outer", decision="allow"))[0]
    assert inner.actor == "agent:outer"
    assert inner.detail["parent"] == outer.call


async def test_secrets_that_agents_get_are_recorded_by_name(world: World) -> None:
    tool = FunctionTool(name="look", function="tools:look", credentials={"KEY": "secret:FROM_ENVIRONMENT"})
    await world.agent(document=builders.document("agent", tools=(tool,)))
    host = await world.host()
    answers: list[int] = []

    async def answer(request: InvokeRequest) -> str:
        for name in ("secret:FROM_ENVIRONMENT", "secret:OTHER"):
            answers.append((await world.internal("/internal/v1/credentials", {"names": [name]}, call=request.call))[0])
        answers.append((await world.internal("/internal/v1/agents/b/invoke", {"message": ""}, call=request.call))[0])
        return "done"

    host.answer = answer
    assert (await world.invoke())[0] == 200
    assert answers == [200, 403, 403]
    given, refused = await entries(world, action="credential:read")
    assert (given.actor, given.decision, given.detail) == (
        "agent:agent",
        "allow",
        {"names": ["secret:FROM_ENVIRONMENT"]},
    )
    assert (refused.decision, refused.outcome) == ("deny", "credential-refused")
    assert given.call
    (unlisted,) = await entries(world, resource="agents/b")
    assert (unlisted.decision, unlisted.outcome) == ("deny", "forbidden")


async def test_operations_are_recorded_with_what_came_of_them(world: World) -> None:
    await world.agent()
    await key(world)
    assert (await world.get("/v1/tenants/default/agents/agent/sessions/none"))[0] == 404
    (made,) = await entries(world, action="key:write")
    assert (made.decision, made.outcome, made.actor) == ("allow", "201", "key:bootstrap")
    (read,) = await entries(world, action="session:read")
    assert (read.decision, read.outcome, read.resource) == ("allow", "not-found", "agents/agent/sessions/none")


async def test_calls_and_reads_can_be_left_out_and_refusals_can_not(make_world: Callable[..., Any]) -> None:
    async with make_world(settings={"audit": {"calls": False, "reads": False}}) as world:
        await world.agent()
        await world.host()
        assert (await world.invoke())[0] == 200
        assert (await world.get("/v1/whoami"))[0] == 200
        viewer = await key(world)
        assert (await world.post("/v1/tenants/default/agents/agent/invoke", {"input": "x"}, **viewer))[0] == 403
        assert [(one.action, one.decision) for one in await entries(world)] == [
            ("key:write", "allow"),
            ("agent:invoke", "deny"),
        ]


@pytest.mark.parametrize("strict", [False, True])
async def test_a_log_that_cant_be_written(make_world: Callable[..., Any], strict: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(trail, "RETRY", 0.01)
    async with make_world(settings={"audit": {"strict": strict}}) as world:
        await world.agent()
        await world.host()
        world.audit.error = OSError("no space left on device")
        status, body = await world.invoke()
        assert status == (503 if strict else 200)
        assert not strict or body["code"] == "audit-unavailable"
        world.audit.error = None
        assert len(await entries(world, action="agent:invoke")) == 2, "what waited is written"


async def test_the_log_is_listed_and_exported_with_its_bytes(world: World) -> None:
    for number in range(3):
        await world.get(f"/v1/tenants/default/agents/agent/sessions/s{number}")
    await world.gateway.audit.flush()
    status, page = await world.get(f"{LOG}?action=session:read&limit=2")
    assert status == 200
    assert [one["entry"]["resource"] for one in page["entries"]] == [
        "agents/agent/sessions/s2",
        "agents/agent/sessions/s1",
    ]
    status, page = await world.get(f"{LOG}?action=session:read&limit=2&before={page['next']}")
    assert [one["entry"]["resource"] for one in page["entries"]] == ["agents/agent/sessions/s0"]
    assert page["next"] is None
    async with world.http.get(world.url + f"{LOG}/export?after=1&limit=2") as answer:
        assert answer.content_type == "application/x-ndjson"
        lines = (await answer.read()).splitlines()
    exported = [msgspec.json.decode(line, type=ChainedEntry) for line in lines]
    assert exported == [
        ChainedEntry(seq=one.seq, hash=one.hash, entry=one.entry) for one in await world.audit.entries(1, 2)
    ]
    assert decode(exported[0].entry) == world.audit.records[1]
    status, ends = await world.get(f"{LOG}/ends")
    assert (ends["first"], base64.b64decode(ends["hash"])) == (1, world.audit._entries[ends["last"] - 1].hash)


async def test_a_tenant_sees_its_own_entries_alone(world: World) -> None:
    await world.post("/v1/tenants", {"name": "other"})
    await world.get("/v1/tenants/other/keys")
    admin = await key(world, roles=["admin"])
    await world.gateway.audit.flush()
    status, page = await world.get("/v1/tenants/default/audit", **admin)
    assert status == 200
    assert {one["entry"]["tenant"] for one in page["entries"]} == {"default"}
    other = next(seq for seq, one in enumerate(world.audit.records, start=1) if one.tenant == "other")
    assert (await world.get(f"/v1/tenants/default/audit/entries/{other}/proof", **admin))[0] == 404
    for path in ("/v1/tenants/*/audit", "/v1/tenants/other/audit", "/v1/audit/proposal"):
        assert (await world.get(path, **admin))[0] == 403


@pytest.mark.parametrize(
    "query",
    ["before=-1", "before=x", "since=x", "until=nan", "since=253402300799.0001", "limit=0", "actor=" + "a" * 700],
)
async def test_wrong_parameters_are_named(world: World, query: str) -> None:
    status, body = await world.get(f"{LOG}?{query}")
    assert status == 422 or status == 400
    assert body["code"] == "invalid-request"


async def test_nothing_is_signed_without_a_key_and_nothing_foreign_is_kept(world: World) -> None:
    await world.get("/v1/whoami")
    await world.gateway.audit.flush()
    status, proposal = await world.get("/v1/audit/proposal")
    assert status == 200
    assert proposal["size"] >= 1
    checkpoint = {
        "size": proposal["size"],
        "at": 0.0,
        "last": proposal["last"],
        "frontier": proposal["frontier"],
        "note": proposal["text"] + "\n— unnamed " + base64.b64encode(bytes(68)).decode() + "\n",
    }
    status, body = await world.post("/v1/audit/checkpoints", checkpoint)
    assert (status, body["code"]) == (409, "audit-untrusted-checkpoint")
