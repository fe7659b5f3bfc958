"""Calls through a gateway to hosts: whole and streamed, placed, held, retried, cancelled."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from chimera.platform.model import CellSpec
from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.tools import AgentTool
from chimera_host.errors import AgentFailed, HostBusy, HostDraining
from chimera_host.testing import builders
from chimera_host.testing.doubles import until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def events(answer: aiohttp.ClientResponse) -> list[tuple[str, Any]]:
    """All events of a stream; comments as the event `comment`."""
    found: list[tuple[str, Any]] = []
    name = ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            found.append(("comment", None))
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            found.append((name, json.loads(line[6:]) if line != "data: [DONE]" else None))
    return found


async def never(_: InvokeRequest) -> str:
    await asyncio.Event().wait()
    return ""


async def dies(_: InvokeRequest) -> str:
    raise ConnectionError


async def test_a_call_is_answered_by_a_host(world: Any) -> None:
    host = await world.host()
    route = await world.agent()
    status, body = await world.invoke(text="hello")
    assert (status, body["output"], body["agent"], body["tenant"]) == (200, "echo: hello", "agent", "default")
    assert body["revision"] == route.revision == host.requests[0].revision
    assert body["call"] == host.requests[0].call
    assert 0 < host.requests[0].deadline <= 590


async def test_the_trace_goes_on_to_the_host(world: Any) -> None:
    host = await world.host()
    await world.agent()
    await world.post("/v1/tenants/default/agents/agent/invoke", {"input": "x"}, traceparent=TRACE)
    assert host.traces[0] is not None
    assert host.traces[0].split("-")[1] == TRACE.split("-")[1]
    assert host.traces[0] != TRACE


async def test_a_streamed_call_says_words_and_then_the_answer(world: Any) -> None:
    await world.host()
    await world.agent()
    url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
    async with world.http.post(url, json={"input": "a b", "stream": True}) as answer:
        assert answer.content_type == "text/event-stream"
        found = await events(answer)
    assert [data["text"] for name, data in found if name == "delta"] == ["echo:", " a", " b"]
    assert found[-1][0] == "done"
    assert found[-1][1]["output"] == "echo: a b"


async def test_accepting_events_streams_too(world: Any) -> None:
    await world.host()
    await world.agent()
    url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
    async with world.http.post(url, json={"input": "a"}, headers={"Accept": "text/event-stream"}) as answer:
        assert (await events(answer))[-1][0] == "done"


async def test_a_silent_stream_has_comments(make_world: Any) -> None:
    async with make_world(settings={"http": {"stream_comment": 0.05}}) as world:

        async def slow(_: InvokeRequest) -> str:
            await asyncio.sleep(0.3)
            return "late"

        await world.host(answer=slow)
        await world.agent()
        url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
        async with world.http.post(url, json={"input": "a", "stream": True}) as answer:
            found = await events(answer)
    assert found.count(("comment", None)) >= 2
    assert found[-1][0] == "done"


async def test_an_error_before_the_stream_is_a_plain_problem(world: Any) -> None:
    status, body = await world.invoke("nobody", stream=True)
    assert (status, body["code"]) == (404, "agent-not-found")


async def test_a_host_that_dies_in_a_stream_is_an_error_event(world: Any) -> None:
    async def half(_: InvokeRequest) -> str:
        return "one die two"

    await world.host(answer=half)
    await world.agent()
    url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
    async with world.http.post(url, json={"input": "a", "stream": True}) as answer:
        found = await events(answer)
    assert found[-1][0] == "error"
    assert found[-1][1]["code"] == "host-failed"
    assert world.pool.reports == [("host-1", "crashed", "agent")]


async def test_a_call_that_did_nothing_runs_again_after_its_host_died(world: Any) -> None:
    first = await world.host("host-1", answer=dies)
    second = await world.host("host-2")
    await world.agent()
    status, body = await world.invoke(text="x")
    assert (status, body["output"]) == (200, "echo: x")
    assert len(second.requests) == 1
    assert len(first.requests) <= 1


async def test_a_call_that_asked_a_model_does_not_run_again(world: Any) -> None:
    async def asks_then_dies(request: InvokeRequest) -> str:
        body = {"messages": [{"role": "user", "content": "x"}]}
        status, _ = await world.internal("/internal/v1/chat/completions", body, call=request.call)
        assert status == 200
        raise ConnectionError

    host = await world.host(answer=asks_then_dies)
    await world.agent()
    status, body = await world.invoke()
    assert (status, body["code"], body["agent"]) == (502, "host-failed", "agent")
    assert len(host.requests) == 1
    assert world.pool.reports == [("host-1", "crashed", "agent")]


async def test_an_agent_with_tools_does_not_run_again(world: Any) -> None:
    host = await world.host(answer=dies)
    await world.host("host-2", answer=dies)
    tools = (AgentTool(name="other", agent="other"),)
    await world.agent(document=builders.document("agent", tools=tools))
    status, body = await world.invoke()
    assert (status, body["code"]) == (502, "host-failed")
    assert len(world.pool.reports) == 1
    assert len(host.requests) <= 1


async def test_a_poisonous_call_kills_two_hosts_at_most(world: Any) -> None:
    hosts = [await world.host(f"host-{n}", answer=dies) for n in range(4)]
    await world.agent()
    status, _ = await world.invoke()
    assert status == 502
    assert sum(len(host.requests) for host in hosts) == 2


async def test_a_host_that_is_gone_is_reported_and_another_tried(world: Any) -> None:
    gone = await world.host("host-1")
    await world.host("host-2")
    await gone.stop()
    for n in range(4):
        await world.agent(f"agent-{n}")
        status, _ = await world.invoke(f"agent-{n}")
        assert status == 200
    assert {report[:2] for report in world.pool.reports} <= {("host-1", "unreachable")}
    assert world.pool.reports


async def test_a_draining_host_passes_the_call_on(world: Any) -> None:
    async def draining(_: InvokeRequest) -> str:
        raise HostDraining("no more")

    await world.host("host-1", answer=draining)
    await world.host("host-2")
    await world.agent()
    status, _ = await world.invoke()
    assert status == 200


async def test_an_agents_failure_is_told_as_it_is(world: Any) -> None:
    async def fails(_: InvokeRequest) -> str:
        raise AgentFailed("it broke", agent="agent")

    await world.host(answer=fails)
    await world.agent()
    status, body = await world.invoke()
    assert (status, body["code"], body["detail"]) == (502, "agent-failed", "it broke")


async def test_a_sleeping_cell_is_woken_once_for_all_who_wait(world: Any) -> None:
    async def wake(cell: CellSpec) -> None:
        await asyncio.sleep(0.1)
        await world.host()

    world.pool.on_wake = wake
    await world.agent()
    answers = await asyncio.gather(*(world.invoke() for _ in range(10)))
    assert {status for status, _ in answers} == {200}
    assert world.pool.woken == ["cell-1"]
    assert world.gateway.admission.held == 0


async def test_a_cell_that_cannot_start_says_why(world: Any) -> None:
    await world.agent()
    status, body = await world.invoke()
    assert (status, body["code"]) == (503, "cell-unavailable")


async def test_the_only_host_is_asked_again_when_it_was_full_for_a_moment(world: Any) -> None:
    busy = [HostBusy("full"), HostBusy("full")]

    async def full_at_first(request: InvokeRequest) -> str:
        if busy:
            raise busy.pop()
        return "at last"

    host = await world.host(answer=full_at_first)
    await world.agent()
    status, body = await world.invoke()
    assert (status, body["output"], len(host.requests)) == (200, "at last", 3)

    busy += [HostBusy("full")] * 10
    status, body = await world.invoke()
    assert (status, body["code"]) == (503, "host-busy")


async def test_a_full_queue_refuses(make_world: Any) -> None:
    async with make_world(settings={"admission": {"held": 2, "hold": 0.5}}) as world:
        world.pool.on_wake = lambda _: asyncio.sleep(0.3)
        await world.agent()
        answers = await asyncio.gather(*(world.invoke() for _ in range(6)))
        codes = sorted(body["code"] for _, body in answers)
        assert codes.count("overloaded") == 4


async def test_calls_wait_for_a_full_host_in_turn(make_world: Any) -> None:
    async with make_world(settings={"admission": {"host_concurrency": 2}}) as world:

        async def slow(request: InvokeRequest) -> str:
            await asyncio.sleep(0.02)
            return request.messages[-1].content

        host = await world.host(answer=slow)
        await world.agent(concurrency=100)
        answers = await asyncio.gather(*(world.invoke(text=str(n)) for n in range(20)))
        assert [body["output"] for _, body in answers] == [str(n) for n in range(20)]
        assert host.most_at_once <= 2


async def test_an_agents_own_limit_and_everybodys(make_world: Any) -> None:
    async with make_world(settings={"admission": {"total": 3}}) as world:
        host = await world.host(answer=never)
        await world.agent("one", concurrency=1)
        await world.agent("many", concurrency=10)
        running = [asyncio.create_task(world.invoke(name)) for name in ("one", "many", "many")]
        await until(lambda: len(host.requests) == 3)
        assert (await world.invoke("one"))[1]["code"] == "agent-busy"
        assert (await world.invoke("many"))[1]["code"] == "overloaded"
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await until(lambda: world.gateway.admission.in_flight == 0)
        await until(lambda: len(host.cancelled) == 3)


async def test_a_client_that_leaves_cancels_its_call(world: Any) -> None:
    host = await world.host(answer=never)
    await world.agent()
    task = asyncio.create_task(world.invoke())
    await until(lambda: host.requests)
    task.cancel()
    await until(lambda: host.cancelled)
    await until(lambda: len(world.gateway.calls) == 0)
    assert world.pool.in_flight == {"cell-1": 0}


async def test_a_client_that_leaves_a_stream_cancels_its_call(world: Any) -> None:
    host = await world.host()
    host.delay = 0.05
    await world.agent()
    url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
    async with world.http.post(url, json={"input": "a b c d e f g h i", "stream": True}) as answer:
        await answer.content.readline()
        answer.close()
    await until(lambda: host.cancelled)


async def test_a_deadline_ends_the_call(world: Any) -> None:
    host = await world.host(answer=never)
    await world.agent()
    status, body = await world.invoke(deadline=0.1)
    assert (status, body["code"]) == (504, "deadline-exceeded")
    assert host.requests[0].deadline < 0.1
    assert world.pool.reports == [("host-1", "timeout", "agent")]


async def test_what_can_not_run_here_is_refused(world: Any) -> None:
    await world.host()
    await world.agent(unservable="needs Kubernetes")
    status, body = await world.invoke()
    assert (status, body["code"]) == (501, "not-servable")


AGENT = "/v1/tenants/default/agents/agent/invoke"
CHAT = {"model": "agent/agent", "messages": [{"role": "user", "content": "hi"}]}
WAYS: list[tuple[str, str, dict[str, Any], dict[str, str]]] = [
    ("http", AGENT, {"input": "hi"}, {}),
    ("sse", AGENT, {"input": "hi", "stream": True}, {}),
    ("sse", AGENT, {"input": "hi"}, {"Accept": "text/event-stream"}),
    ("openai", "/v1/chat/completions", CHAT, {}),
    ("openai", "/v1/chat/completions", {**CHAT, "stream": True}, {}),
    ("openai", "/v1/tenants/default/chat/completions", CHAT, {}),
]


@pytest.mark.parametrize(("protocol", "path", "body", "headers"), WAYS)
async def test_an_agent_is_served_by_the_protocols_it_names_alone(
    world: Any, protocol: str, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    host = await world.host()
    others = [one for one in ("http", "sse", "openai", "events") if one != protocol]
    for offered in (others, []):
        await world.agent(protocols=offered)
        async with world.http.post(world.url + path, json=body, headers=headers) as answer:
            problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["code"], problem["agent"]) == (403, "protocol-not-offered", "agent")
        assert protocol in problem["detail"]
        assert all(one in problem["next_step"] for one in offered or ["nothing"])
        if protocol == "openai":
            assert problem["error"]["code"] == "protocol-not-offered"
    assert not host.requests

    await world.agent(protocols=[protocol])
    async with world.http.post(world.url + path, json=body, headers=headers) as answer:
        assert answer.status == 200
        assert "echo" in await answer.text()
    assert len(host.requests) == 1


async def test_models_are_the_agents_that_offer_openai(world: Any) -> None:
    await world.agent("quiet", protocols=["http"])
    await world.agent("open")
    assert [card["id"] for card in (await world.get("/v1/models"))[1]["data"]] == ["agent/open"]
    status, body = await world.get("/v1/models/agent/quiet")
    assert (status, body["code"]) == (403, "protocol-not-offered")
    await world.agent("quiet", protocols=["openai"])
    await world.agent("open", protocols=["sse"])
    assert [card["id"] for card in (await world.get("/v1/models"))[1]["data"]] == ["agent/quiet"]


async def test_sessions_carry_what_was_said(world: Any) -> None:
    host = await world.host()
    await world.agent()
    await world.invoke(text="one", session="s-1")
    await world.invoke(text="two", session="s-1")
    seen = host.requests[1].session
    assert seen is not None
    assert [message.content for message in seen.messages] == ["one", "echo: one"]
    status, body = await world.get("/v1/tenants/default/agents/agent/sessions/s-1")
    assert (status, body["version"], len(body["state"]["messages"])) == (200, 2, 4)
    async with world.http.delete(f"{world.url}/v1/tenants/default/agents/agent/sessions/s-1") as answer:
        assert answer.status == 204
    status, body = await world.get("/v1/tenants/default/agents/agent/sessions/s-1")
    assert (status, body["code"]) == (404, "not-found")


async def test_two_calls_of_one_session_at_once_conflict(world: Any) -> None:
    host = await world.host()
    await world.agent()
    together = asyncio.Barrier(2)

    async def both(request: InvokeRequest) -> str:
        await together.wait()
        return "ok"

    host.answer = both
    answers = await asyncio.gather(*(world.invoke(session="s") for _ in range(2)))
    assert sorted(status for status, _ in answers) == [200, 409]


async def test_a_fake_host_refuses_strangers() -> None:
    async with FakeHost() as host, aiohttp.ClientSession() as http, http.post(host.endpoint.url + "/v1/invoke") as got:
        assert got.status == 401
