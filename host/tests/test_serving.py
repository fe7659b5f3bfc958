"""The HTTP contract, on a host in this process with the function framework."""

import asyncio

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera_host.agents import Agents
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.call import ENCODER as LOADING
from chimera_host.contract.call import LoadRequest
from chimera_host.ports import RunResult
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import Gate, ScriptedAdapter, refused, saying, until
from chimera_host.testing.platform import FakePlatform, problem
from chimera_host.trace import new_trace


async def test_a_declared_agent_asks_the_model(platform, local_host):
    host = await local_host()
    agent = document(
        "poet",
        behaviour=Behaviour(function=FunctionBehaviour(system_message="You rhyme on {input}, {nothing}.")),
        model={"name": "big", "temperature": 0.5},
    )
    agent = msgspec.convert(msgspec.to_builtins(agent), type(agent))
    revision = platform.add(agent)
    platform.say("a rhyme")
    answer = await host.invoke(
        invoke_request(agent, revision, "cats", deadline=20.0, session=session(("user", "before")))
    )
    assert answer.output == "a rhyme" and answer.model_calls == 1 and answer.timings.loaded
    (chat,) = platform.chats
    assert [m["content"] for m in chat.body["messages"]] == ["You rhyme on cats, {nothing}.", "before", "cats"]
    assert chat.body["model"] == "big" and chat.body["temperature"] == 0.5 and "tools" not in chat.body
    assert chat.call == answer.call and 19 < chat.deadline <= 20
    assert [m.content for m in answer.session.messages] == ["before", "cats", "a rhyme"]


async def test_a_call_of_another_gateway_is_served_by_that_one(platform, local_host):
    host = await local_host()
    async with FakePlatform() as other:
        agent = document("poet", behaviour=Behaviour(function=FunctionBehaviour(system_message="You rhyme.")))
        request = invoke_request(agent, other.add(agent))
        answer = await host.invoke(msgspec.structs.replace(request, platform_url=other.url))
        assert answer.output.startswith("echo: ")
        assert len(other.chats) == 1 and not platform.chats and not platform.fetched


async def test_the_trace_goes_from_the_caller_to_the_model(platform, local_host):
    host = await local_host()
    agent = document()
    trace = new_trace()
    await host.invoke(invoke_request(agent, platform.add(agent)), traceparent=trace.header())
    assert platform.chats[0].traceparent.split("-")[1] == trace.trace_id
    assert platform.chats[0].traceparent.split("-")[2] != trace.span_id


async def test_a_stream_gives_the_text_and_then_the_whole_answer(platform, local_host):
    host = await local_host()
    agent = document()
    platform.say("one two three")
    events = [event async for event in host.stream(invoke_request(agent, platform.add(agent)))]
    assert [name for name, _ in events] == ["delta"] * 3 + ["done"]
    assert "".join(data["text"] for name, data in events if name == "delta") == "one two three"
    assert events[-1][1]["output"] == "one two three"


async def test_a_failed_stream_ends_with_the_problem(platform, local_host):
    host = await local_host()
    agent = document()
    platform.say(problem("budget-exceeded", 429, "nothing left", retry_after=60.0))
    events = [event async for event in host.stream(invoke_request(agent, platform.add(agent)))]
    assert [name for name, _ in events] == ["error"]
    assert events[0][1]["code"] == "budget-exceeded" and events[0][1]["agent"] == "agent"


async def test_values_are_kept_in_the_session(platform, local_host):
    async def count(call):
        return RunResult(output="x", values={"n": call.session.values.get("n", 0) + 1})

    host = await local_host(ScriptedAdapter(count))
    agent = document()
    revision = platform.add(agent)
    first = await host.invoke(invoke_request(agent, revision, session=session()))
    second = await host.invoke(invoke_request(agent, revision, session=first.session))
    assert second.session.values == {"n": 2} and len(second.session.messages) == 4
    assert (await host.invoke(invoke_request(agent, revision))).session is None


async def test_a_model_override_reaches_the_model(platform, local_host):
    host = await local_host()
    agent = document()
    await host.invoke(invoke_request(agent, platform.add(agent), model_override="other"))
    assert platform.chats[0].body["model"] == "other"


async def test_everything_but_the_probes_wants_the_key(local_host):
    host = await local_host()
    for path in ("/livez", "/readyz"):
        assert (await host.client.get(path, key=False))[0] == 200
    for path in ("/metrics", "/v1/loaded", "/v1/invoke", "/elsewhere"):
        status, body = await host.client.get(path, key=False)
        assert status == 401 and msgspec.json.decode(body)["code"] == "unauthorized"
    host.client.headers["Authorization"] = "Bearer host-keY"
    assert (await host.client.get("/v1/loaded"))[0] == 401


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/invoke"), ("POST", "/v1/loaded"), ("DELETE", "/v1/calls/none")]
)
async def test_what_is_not_there_is_said(local_host, method, path):
    host = await local_host()
    status, body = await host.client.request(method, path, b"")
    assert status == 404 and msgspec.json.decode(body)["code"] == "not-found"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.one_of(st.binary(max_size=200), st.text().map(str.encode), st.just(b'{"call":"a"}')))
async def test_any_body_gets_a_problem(local_host, body):
    host = await local_host()
    status, answer = await host.client.request("POST", "/v1/invoke", body)
    assert status == 400 and msgspec.json.decode(answer)["code"] == "invalid-call"


async def test_a_body_too_large_is_refused(platform, local_host):
    host = await local_host(max_body_bytes=10_000)
    agent = document()
    problem = await refused(host.invoke(invoke_request(agent, platform.add(agent), "x" * 20_000)))
    assert (problem.code, problem.status) == ("call-too-large", 413)


async def test_a_call_without_messages_and_one_that_runs_already(platform, local_host):
    gate = Gate()
    host = await local_host(ScriptedAdapter(gate.run))
    agent = document()
    request = invoke_request(agent, platform.add(agent))
    assert (await refused(host.invoke(msgspec.structs.replace(request, messages=())))).code == "invalid-call"
    first = asyncio.ensure_future(host.invoke(request))
    await gate.entered.wait()
    assert (await refused(host.invoke(request))).code == "invalid-call"
    gate.open.set()
    assert (await first).output == "late"


async def test_an_agent_takes_as_many_calls_as_it_says(platform, local_host):
    gate = Gate()
    host = await local_host(ScriptedAdapter(gate.run))
    agent, other = document(concurrency=2), document("other")
    revision = platform.add(agent)
    running = [asyncio.ensure_future(host.invoke(invoke_request(agent, revision))) for _ in range(2)]
    await until(lambda: gate.inside == 2)
    busy = await refused(host.invoke(invoke_request(agent, revision)))
    assert (busy.code, busy.status, busy.agent) == ("agent-busy", 429, "agent") and busy.retry_after
    elsewhere = asyncio.ensure_future(host.invoke(invoke_request(other, platform.add(other))))
    await until(lambda: gate.inside == 3)
    gate.open.set()
    assert [answer.output for answer in await asyncio.gather(*running, elsewhere)] == ["late"] * 3
    assert (await host.invoke(invoke_request(agent, revision))).output == "late"


async def test_a_host_takes_as_many_calls_as_it_may(platform, local_host):
    gate = Gate()
    host = await local_host(ScriptedAdapter(gate.run), concurrency=1)
    agent = document()
    request = invoke_request(agent, platform.add(agent))
    first = asyncio.ensure_future(host.invoke(request))
    await gate.entered.wait()
    busy = await refused(host.invoke(msgspec.structs.replace(request, call="another")))
    assert (busy.code, busy.status) == ("host-busy", 503)
    gate.open.set()
    await first


async def test_an_agents_error_is_its_own(platform, local_host):
    async def fail(call):
        raise KeyError("what")

    host = await local_host(ScriptedAdapter(fail))
    agent = document("clumsy")
    failed = await refused(host.invoke(invoke_request(agent, platform.add(agent))))
    assert (failed.code, failed.status, failed.agent) == ("agent-failed", 502, "clumsy") and "KeyError" in failed.detail


@pytest.mark.parametrize(
    ("load", "words"), [(lambda build: 1 / 0, "ZeroDivisionError"), (lambda build: build.nothing, "AttributeError")]
)
async def test_an_agent_that_cant_be_made_says_why_and_is_tried_again(platform, local_host, load, words):
    adapter = ScriptedAdapter(saying("ok"), load)
    host = await local_host(adapter)
    agent = document()
    request = invoke_request(agent, platform.add(agent))
    failed = await refused(host.invoke(request))
    assert failed.code == "agent-load-failed" and words in failed.detail
    adapter.on_load = lambda build: None
    assert (await host.invoke(request)).output == "ok"


async def test_a_revision_that_isnt_there_or_another_agents(platform, local_host):
    host = await local_host()
    agent, other = document(), document("other")
    missing = await refused(host.invoke(invoke_request(agent, "sha256:" + "0" * 64)))
    assert (missing.code, missing.status) == ("not-found", 404)
    wrong = await refused(host.invoke(invoke_request(other, platform.add(agent))))
    assert wrong.code == "agent-load-failed" and "is agent agent" in wrong.detail
    crew = document("crew", "crewai", behaviour=Behaviour())
    assert "made for crewai" in (await refused(host.invoke(invoke_request(crew, platform.add(crew))))).detail


async def test_a_platform_that_doesnt_answer_or_wants_another_token(platform, local_host):
    agent = document()
    host = await local_host(platform_token="wrong")
    assert (await refused(host.invoke(invoke_request(agent, platform.add(agent))))).code == "unauthorized"
    gone = await local_host(platform_url="http://127.0.0.1:9")
    failed = await refused(gone.invoke(invoke_request(agent, platform.add(agent))))
    assert (failed.code, failed.status) == ("platform-unavailable", 503) and "127.0.0.1:9" in failed.detail


def load(agent, revision, **fields):
    return LOADING.encode(LoadRequest(tenant=agent.tenant, agent=agent.name, revision=revision, **fields))


async def test_an_agent_is_loaded_before_its_first_call(platform, local_host):
    host = await local_host()
    agent = document("poet")
    revision = platform.add(agent)
    for _ in range(2):
        assert (await host.client.request("POST", "/v1/load", load(agent, revision)))[0] == 204
    assert [one["agent"] for one in (await host.client.loaded())["agents"]] == ["poet"]
    answer = await host.invoke(invoke_request(agent, revision))
    assert not answer.timings.loaded and platform.fetched == [revision]


async def test_what_is_loaded_ahead_drives_nothing_out(platform, local_host, monkeypatch):
    host = await local_host()
    agents = [document(f"agent-{number}") for number in range(2)]
    revisions = [platform.add(agent) for agent in agents]
    await host.invoke(invoke_request(agents[0], revisions[0]))
    monkeypatch.setattr(Agents, "capacity", 1)
    assert (await host.client.request("POST", "/v1/load", load(agents[1], revisions[1])))[0] == 204
    assert [one["agent"] for one in (await host.client.loaded())["agents"]] == ["agent-0"]


async def test_what_is_to_have_room_takes_the_place_of_what_was_used_least(platform, local_host, monkeypatch):
    host = await local_host()
    agents = [document(f"agent-{number}") for number in range(3)]
    revisions = [platform.add(agent) for agent in agents]
    for agent, revision in zip(agents[:2], revisions[:2], strict=True):
        await host.invoke(invoke_request(agent, revision))
    monkeypatch.setattr(Agents, "capacity", 2)
    # One that is there counts as used, so the other one goes.
    assert (await host.client.request("POST", "/v1/load", load(agents[0], revisions[0])))[0] == 204
    asked = load(agents[2], revisions[2], make_room=True)
    assert (await host.client.request("POST", "/v1/load", asked))[0] == 204
    assert [one["agent"] for one in (await host.client.loaded())["agents"]] == ["agent-2", "agent-0"]


async def test_what_can_not_be_loaded_ahead_says_why(platform, local_host):
    host = await local_host()
    agent = document("poet")
    status, body = await host.client.request("POST", "/v1/load", load(agent, "sha256:" + "0" * 64))
    assert status >= 400 and msgspec.json.decode(body)["code"]
    status, body = await host.client.request("POST", "/v1/load", b"{}")
    assert (status, msgspec.json.decode(body)["code"]) == (400, "invalid-call")
    assert (await host.client.loaded())["loaded"] == 0
