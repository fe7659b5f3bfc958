"""The internal API: what a host may ask, for which call, and the model gateway behind it."""

import asyncio
import json
from typing import Any

import pytest

from chimera.bootstrap.gateway_config import ModelConfig
from chimera.gateway.errors import ModelRejected, ModelUnavailable
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.call import HEADER_DEADLINE, InvokeRequest
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.testing import builders

CHAT = "/internal/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "x"}]}


async def during_a_call(world: Any, ask: Any, agent: str = "agent") -> Any:
    """What `ask(call)` gives while a call of `agent` runs."""
    found: list[Any] = []

    async def answer(request: InvokeRequest) -> str:
        if request.agent == agent:
            found.append(await ask(request.call))
        return "done"

    host = world.pool.hosts.get("cell-1")
    if not host:
        await world.host(answer=answer)
    status, body = await world.invoke(agent)
    assert status == 200, body
    return found[0]


async def test_revisions_and_bundles_come_by_digest_while_a_call_of_theirs_runs(world: Any) -> None:
    bundle, other = "sha256:" + "0" * 64, "sha256:" + "1" * 64
    world.store.bundles |= {bundle: b"bytes", other: b"of another"}
    route = await world.agent(document=builders.document("agent", source=SourceCode(bundle=bundle)))
    stranger = await world.agent("stranger", document=builders.document("stranger", source=SourceCode(bundle=other)))
    paths = (f"revisions/{route.revision}", f"revisions/{stranger.revision}", f"bundles/{bundle}", f"bundles/{other}")

    async def ask(**claims: str) -> list[Any]:
        token = f"Bearer {world.token(**claims)}"
        return [await world.internal(f"/internal/v1/{path}", Authorization=token) for path in paths]

    async def ask_from_everywhere(_: str) -> list[list[Any]]:
        return [await ask(), await ask(host="host-2"), await ask(cell="cell-2")]

    here, *elsewhere = await during_a_call(world, ask_from_everywhere)
    revision, of_another, its_bundle, bundle_of_another = here
    assert (revision[0], revision[1]["name"]) == (200, "agent")
    assert its_bundle == (200, b"bytes")
    for status, problem in (of_another, bundle_of_another, *elsewhere[0], *elsewhere[1]):
        assert (status, problem["code"]) == (403, "unknown-call")
    assert [status for status, _ in await ask()] == [403] * 4, "nor after the call"


async def test_content_that_is_not_stored(world: Any) -> None:
    bundle = "sha256:" + "0" * 64
    route = await world.agent(document=builders.document("agent", source=SourceCode(bundle=bundle)))

    async def ask(_: Any) -> tuple[int, int]:
        lost, _ = await world.internal(f"/internal/v1/bundles/{bundle}")
        del world.store.documents[route.revision]
        gone, _ = await world.internal(f"/internal/v1/revisions/{route.revision}")
        return lost, gone

    assert await during_a_call(world, ask) == (404, 404)
    assert (await world.internal("/internal/v1/revisions/../../etc"))[0] in (400, 404)


async def test_tokens_and_origins_are_checked(world: Any) -> None:
    route = await world.agent()
    path = f"/internal/v1/revisions/{route.revision}"
    assert (await world.internal(path, Authorization="Bearer no"))[0] == 401
    assert (await world.internal(path, Authorization=f"Bearer {world.token(expires=1.0)}"))[0] == 401
    assert (await world.internal(path, Origin="http://127.0.0.1"))[0] == 403
    assert (await world.internal(path, Host="evil.example"))[0] == 403


async def test_a_model_call_is_metered_for_the_agent_and_its_caller(world: Any) -> None:
    await world.agent()
    status, body = await during_a_call(
        world, lambda call: world.internal(CHAT, {**BODY, "model": "other", "stream": False}, call=call)
    )
    assert (status, body["choices"][0]["message"]["content"]) == (200, "model: x")
    request = world.model.requests[0]
    assert (request.model, request.agent, request.tenant) == ("default", "agent", "default")
    assert "model" not in request.body
    assert 0 < request.deadline <= 120
    await world.gateway.quota.settle()
    (row,) = world.quota.usage.values()
    assert (row.calls, row.prompt_tokens, row.completion_tokens, row.usd) == (1, 7, 5, None)


async def test_a_call_must_be_in_flight_on_the_asking_host(world: Any) -> None:
    await world.agent()
    assert (await world.internal(CHAT, BODY, call="call_nothing"))[0] == 403
    assert (await world.internal(CHAT, BODY))[0] == 401
    status, body = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call, host="host-2"))
    assert (status, body["code"]) == (403, "unknown-call")


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": "x"}, []])
async def test_malformed_model_calls(world: Any, body: Any) -> None:
    await world.agent()
    status, problem = await during_a_call(world, lambda call: world.internal(CHAT, body, call=call))
    assert (status, problem["code"]) == (400, "invalid-request")


async def test_a_streamed_model_call(world: Any) -> None:
    await world.agent()

    async def ask(call: str) -> list[Any]:
        headers = {"Authorization": f"Bearer {world.token()}", "Chimera-Call": call}
        url = world.gateway.internal_url + CHAT
        async with world.http.post(url, json={**BODY, "stream": True}, headers=headers) as answer:
            text = await answer.text()
        lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    chunks = await during_a_call(world, ask)
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert said == "model: x"
    await world.gateway.quota.settle()
    (row,) = world.quota.usage.values()
    assert row.prompt_tokens + row.completion_tokens == 12


async def test_what_may_pass_is_tried_again_and_what_may_not_is_not(world: Any) -> None:
    await world.agent()
    left = [ModelUnavailable("try later"), ModelUnavailable("try later")]

    async def flaky(_: Any) -> str:
        if left:
            raise left.pop()
        return "at last"

    world.model.say = flaky
    status, _ = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call))
    assert (status, len(world.model.requests)) == (200, 3)


async def test_a_rejection_is_final(world: Any) -> None:
    await world.agent()

    async def rejects(_: Any) -> str:
        raise ModelRejected("no such parameter")

    world.model.say = rejects
    status, body = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call))
    assert (status, body["code"], len(world.model.requests)) == (502, "model-rejected", 1)


async def test_a_slow_model_ends_at_its_time_out(make_world: Any) -> None:
    async with make_world(models={"default": ModelConfig(provider="scripted", timeout=0.1)}) as world:
        await world.agent()

        async def forever(_: Any) -> str:
            await asyncio.Event().wait()
            return ""

        world.model.say = forever
        status, body = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call))
        assert (status, body["code"]) == (503, "model-unavailable")
        assert world.model.cancelled == 1


async def test_a_failing_model_is_left_alone(make_world: Any) -> None:
    async with make_world(settings={"models": {"breaker_failures": 2, "attempts": 1}}) as world:
        await world.agent()

        async def fails(_: Any) -> str:
            raise ModelUnavailable("down")

        world.model.say = fails

        async def thrice(call: str) -> list[int]:
            return [(await world.internal(CHAT, BODY, call=call))[0] for _ in range(5)]

        assert await during_a_call(world, thrice) == [503] * 5
        assert len(world.model.requests) == 2


@pytest.mark.parametrize(("patience", "asked"), [(10.0, 5), (0.0, 2)])
async def test_only_a_patient_callers_time_out_is_held_against_a_model(make_world: Any, patience: float, asked: int):
    settings = {"models": {"breaker_failures": 2, "attempts": 1, "breaker_patience": patience}}
    async with make_world(settings=settings) as world:
        await world.agent()

        async def forever(_: Any) -> str:
            await asyncio.Event().wait()
            return ""

        world.model.say = forever

        async def in_a_hurry(call: str) -> None:
            for _ in range(5):
                status, _ = await world.internal(CHAT, BODY, call=call, **{HEADER_DEADLINE: "0.02"})
                assert status == 503

        await during_a_call(world, in_a_hurry)
        assert len(world.model.requests) == asked


async def test_a_models_concurrency_holds(make_world: Any) -> None:
    async with make_world(models={"default": ModelConfig(provider="scripted", max_concurrency=2)}) as world:
        await world.agent()
        running = most = 0

        async def counts(_: Any) -> str:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            return "ok"

        world.model.say = counts

        async def many(call: str) -> list[int]:
            answers = await asyncio.gather(*(world.internal(CHAT, BODY, call=call) for _ in range(10)))
            return [status for status, _ in answers]

        assert await during_a_call(world, many) == [200] * 10
        assert most == 2


async def test_a_used_up_budget_refuses_the_next_model_call(world: Any) -> None:
    await world.agent(max_tokens_per_day=40)
    short = {**BODY, "max_tokens": 20}

    async def often(call: str) -> Any:
        # Each holds 33 (what is sent and the longest answer) and uses 12.
        return [await world.internal(CHAT, short, call=call) for _ in range(2)]

    (first, _), (status, body) = await during_a_call(world, often)
    assert (first, status, body["code"]) == (200, 429, "budget-exceeded")
    requests = len(world.model.requests)
    status, body = await world.invoke()
    assert (status, body["code"]) == (429, "budget-exceeded"), "nor does the next call begin"
    assert body["retry_after"] > 0
    assert len(world.model.requests) == requests
    assert await used(world) == (1, 12, None)


async def test_calls_at_once_never_spend_more_than_the_budget(world: Any) -> None:
    await world.agent(max_tokens_per_day=200)
    go = asyncio.Event()

    async def waits(_: Any) -> str:
        await go.wait()
        return "said"

    async def many(call: str) -> list[int]:
        world.model.say = waits
        asked = [asyncio.create_task(world.internal(CHAT, {**BODY, "max_tokens": 20}, call=call)) for _ in range(20)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        go.set()
        return [status for status, _ in await asyncio.gather(*asked)]

    statuses = await during_a_call(world, many)
    assert set(statuses) == {200, 429}
    assert statuses.count(200) * 33 <= 200
    assert (await used(world))[0] == statuses.count(200)


async def test_a_call_whose_time_is_up_has_used_what_it_reserved(world: Any) -> None:
    await world.agent(max_tokens_per_day=1_000)

    async def never(_: Any) -> str:
        await asyncio.Event().wait()
        return ""

    async def ask(call: str) -> Any:
        world.model.say = never
        headers = {"Authorization": f"Bearer {world.token()}", "Chimera-Call": call, "Chimera-Deadline": "0.05"}
        url = world.gateway.internal_url + CHAT
        async with world.http.post(url, json={**BODY, "max_tokens": 100}, headers=headers) as answer:
            return answer.status

    assert await during_a_call(world, ask) == 503
    assert await used(world) == (1, 113, None)


async def test_what_a_provider_refuses_costs_nothing(world: Any) -> None:
    await world.agent(max_tokens_per_day=1_000)

    async def refuses(_: Any) -> str:
        raise ModelRejected("no such parameter")

    async def ask(call: str) -> Any:
        world.model.say = refuses
        return [(await world.internal(CHAT, {**BODY, "max_tokens": 600}, call=call))[0] for _ in range(3)]

    assert await during_a_call(world, ask) == [502] * 3
    assert await used(world) is None


async def test_a_price_makes_a_budget_in_dollars(make_world: Any) -> None:
    model = ModelConfig(
        provider="scripted", usd_per_million_prompt_tokens=1_000_000.0, usd_per_million_completion_tokens=0.0
    )
    async with make_world(models={"default": model}) as world:
        await world.agent(max_usd_per_day=14.0)

        async def twice(call: str) -> Any:
            return [await world.internal(CHAT, BODY, call=call) for _ in range(2)]

        (first, _), (status, body) = await during_a_call(world, twice)
        assert (first, status, body["code"]) == (200, 429, "budget-exceeded")
        assert await used(world) == (1, 12, pytest.approx(7.0))


@pytest.mark.parametrize("prices", [{}, {"usd_per_million_prompt_tokens": 1.0}])
async def test_a_budget_in_dollars_refuses_a_model_without_a_price(make_world: Any, prices: Any) -> None:
    async with make_world(models={"default": ModelConfig(provider="scripted", **prices)}) as world:
        await world.agent(max_usd_per_day=1.0)
        status, body = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call))
        assert (status, body["code"]) == (503, "price-unknown")
        assert "model.default" in body["next_step"]
        assert world.model.requests == []


async def used(world: Any) -> tuple[int, int, float | None] | None:
    """Calls, tokens and dollars as written down; None where nothing was."""
    await world.gateway.quota.settle()
    rows = list(world.quota.usage.values())
    if not rows:
        return None
    (row,) = rows
    return row.calls, row.prompt_tokens + row.completion_tokens, row.usd


async def test_a_model_nobody_named(world: Any) -> None:
    await world.agent(model="gpt-x")
    status, body = await during_a_call(world, lambda call: world.internal(CHAT, BODY, call=call))
    assert (status, body["code"]) == (502, "model-rejected")


async def test_an_agent_calls_another_that_it_lists(world: Any) -> None:
    tools = (AgentTool(name="helper", agent="helper"),)
    await world.agent(document=builders.document("agent", tools=tools))
    await world.agent("helper")
    await world.agent("stranger")

    async def ask(call: str) -> Any:
        good = await world.internal("/internal/v1/agents/helper/invoke", {"message": "hi"}, call=call)
        bad = await world.internal("/internal/v1/agents/stranger/invoke", {"message": "hi"}, call=call)
        return good, bad

    good, bad = await during_a_call(world, ask)
    assert good == (200, {"output": "done"})
    assert (bad[0], bad[1]["code"]) == (403, "forbidden")


async def test_agents_that_call_each_other_without_end_are_stopped(make_world: Any) -> None:
    async with make_world(settings={"admission": {"depth": 3}}) as world:
        tools = (AgentTool(name="me", agent="agent"),)
        await world.agent(document=builders.document("agent", tools=tools))
        codes: list[str] = []

        async def again(request: InvokeRequest) -> str:
            path = "/internal/v1/agents/agent/invoke"
            status, body = await world.internal(path, {"message": "hi"}, call=request.call)
            if status != 200:
                codes.append(body["code"])
            return "ok"

        host = await world.host(answer=again)
        assert (await world.invoke())[0] == 200
        assert codes == ["call-loop"]
        assert len(host.requests) == 4


async def test_credentials_are_those_that_the_document_holds(world: Any) -> None:
    tool = FunctionTool(
        name="look",
        function="tools:look",
        credentials={"KEY": "secret:FROM_FILE", "OTHER": "secret:FROM_ENVIRONMENT", "OPEN": "secret:TOO_OPEN"},
    )
    await world.agent(document=builders.document("agent", tools=(tool,)))
    folder = world.folder / "secrets"
    folder.mkdir()
    for name, mode in (("FROM_FILE", 0o600), ("TOO_OPEN", 0o644), ("NOT_HELD", 0o600)):
        (folder / name).write_text("value\n")
        (folder / name).chmod(mode)

    async def ask(call: str) -> Any:
        return [
            await world.internal("/internal/v1/credentials", {"names": names}, call=call)
            for names in (["secret:FROM_FILE", "secret:FROM_ENVIRONMENT"], ["secret:NOT_HELD"], ["secret:TOO_OPEN"])
        ]

    given, not_held, too_open = await during_a_call(world, ask)
    assert given == (200, {"secret:FROM_FILE": "value", "secret:FROM_ENVIRONMENT": "e"})
    assert (not_held[0], not_held[1]["code"]) == (403, "credential-refused")
    assert (too_open[0], too_open[1]["code"]) == (403, "credential-refused")


async def test_a_client_that_leaves_cancels_the_model(world: Any) -> None:
    await world.agent()
    asked = asyncio.Event()

    async def forever(_: Any) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    world.model.say = forever

    async def answer(request: InvokeRequest) -> str:
        await world.internal(CHAT, BODY, call=request.call)
        return "never"

    await world.host(answer=answer)
    task = asyncio.create_task(world.invoke())
    await asked.wait()
    task.cancel()
    for _ in range(400):
        if world.model.cancelled:
            break
        await asyncio.sleep(0.005)
    assert world.model.cancelled == 1
