"""An agent that stands for a function: its host asks, the gateway calls, with the credential that no host sees."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_binary_event
from cloudevents.core.formats.json import JSONFormat

from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour, FunctionEndpoint
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.function import PATH_FUNCTION
from chimera_host.testing import builders

ASK = {"messages": [{"role": "user", "content": "before"}, {"role": "user", "content": "hello"}]}
ALLOWED = {"functions": {"allow": ["127.0.0.0/8"]}}


class Function:
    """A function on loopback, which answers `say` and keeps what it was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.bodies: list[bytes] = []
        self.say: Any = {"output": "an answer"}
        self.status = 200
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.bodies.append(await request.read())
        self.seen.append((dict(request.headers), await request.json()))
        return web.json_response(self.say, status=self.status, headers=self.headers)


@pytest.fixture
async def function() -> AsyncIterator[Function]:
    made = Function()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/fn"
    yield made
    await runner.cleanup()


def remote(url: str, **fields: Any) -> Any:
    behaviour = Behaviour(function=FunctionBehaviour(endpoint=FunctionEndpoint(url=url, **fields)))
    return builders.document("agent", behaviour=behaviour)


async def asked(world: Any, document: Any, body: Any = ASK, **headers: str) -> Any:
    """What a host is answered that asks for the function while a call runs."""
    await world.agent(document=document)
    found: list[Any] = []

    async def answer(request: InvokeRequest) -> str:
        found.append(await world.internal(PATH_FUNCTION, body, call=request.call, **headers))
        found.append(request.call)
        return "done"

    await world.host(answer=answer)
    assert (await world.invoke())[0] == 200
    return found


async def test_it_is_sent_the_conversation_and_its_credential(make_world: Any, function: Function) -> None:
    async with make_world(settings=ALLOWED) as world:
        document = remote(function.url, credential="secret:FROM_ENVIRONMENT", timeout_seconds=20)
        (status, body), call = await asked(world, document)
    assert (status, body) == (200, {"output": "an answer"})
    ((headers, sent),) = function.seen
    assert sent["input"] == "hello" and [one["content"] for one in sent["messages"]] == ["before", "hello"]
    assert (sent["agent"], sent["tenant"], sent["call"]) == ("agent", "default", call)
    assert headers["Authorization"] == "Bearer e" and headers["Chimera-Call"] == call
    assert 0 < float(headers["Chimera-Deadline"]) <= 20 and headers["traceparent"].startswith("00-")
    assert "Idempotency-Key" not in headers


async def test_it_is_sent_an_event_that_others_can_read(make_world: Any, function: Function) -> None:
    async with make_world(settings=ALLOWED) as world:
        (status, body), call = await asked(world, remote(function.url, format="cloudevents"))
    assert (status, body) == (200, {"output": "an answer"})
    ((headers, _),) = function.seen
    message = HTTPMessage(headers={key.lower(): value for key, value in headers.items()}, body=function.bodies[0])
    event = from_binary_event(message, JSONFormat())
    assert (event.get_type(), event.get_id()) == ("chimera.agent.call", call)
    assert event.get_source() == "/v1/tenants/default/agents/agent" and event.get_data()["input"] == "hello"


@pytest.mark.parametrize(
    ("status", "said", "headers", "expected", "code"),
    [
        (500, {"a": 1}, {}, 502, "function-failed"),
        (404, {}, {}, 502, "function-failed"),
        (401, {}, {}, 502, "function-failed"),
        (302, {}, {"Location": "http://127.0.0.1:1/"}, 502, "function-failed"),
        (429, {}, {"Retry-After": "9"}, 503, "function-unavailable"),
        (503, {}, {}, 503, "function-unavailable"),
        (200, {"answer": "a"}, {}, 502, "function-failed"),
        (200, {"output": "x" * 400_000}, {}, 502, "function-failed"),
    ],
)
async def test_what_its_answers_mean(
    make_world: Any, function: Function, status: int, said: Any, headers: dict[str, str], expected: int, code: str
) -> None:
    function.status, function.say, function.headers = status, said, headers
    async with make_world(settings=ALLOWED) as world:
        (answered, body), _ = await asked(world, remote(function.url))
    assert (answered, body["code"], body["agent"]) == (expected, code, "agent") and body["next_step"]
    if headers.get("Retry-After"):
        assert body["retry_after"] == 9


async def test_a_network_that_nobody_allowed_is_not_called(make_world: Any, function: Function) -> None:
    async with make_world() as world:
        (status, body), _ = await asked(world, remote(function.url))
    assert (status, body["code"]) == (403, "function-refused") and function.seen == []


async def test_a_credential_that_is_not_there(make_world: Any, function: Function) -> None:
    async with make_world(settings=ALLOWED) as world:
        (status, body), _ = await asked(world, remote(function.url, credential="secret:NOTHING"))
    assert (status, body["code"]) == (404, "credential-not-found") and function.seen == []


async def test_a_host_can_not_say_where_it_is(make_world: Any, function: Function) -> None:
    """The address is the document's, whatever is asked; an agent that stands for no function has none."""
    async with make_world(settings=ALLOWED) as world:
        (status, body), _ = await asked(world, builders.document("agent"), {**ASK, "url": function.url})
        assert (status, body["code"]) == (400, "invalid-request")
        assert (await world.internal(PATH_FUNCTION, ASK))[0] == 401, "nor does anybody without a call"
        assert (await world.internal(PATH_FUNCTION, ASK, call="call-1"))[0] == 403
    assert function.seen == []


async def test_a_call_that_ends_lets_go_of_it(make_world: Any) -> None:
    ended = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.Response:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return web.Response()

    runner = web.ServerRunner(web.Server(wait, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with make_world(settings=ALLOWED) as world:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        (status, body), _ = await asked(world, remote(url), **{"Chimera-Deadline": "0.2"})
        assert (status, body["code"]) == (504, "function-timeout")
        async with asyncio.timeout(10):
            await ended.wait()
    await runner.cleanup()
