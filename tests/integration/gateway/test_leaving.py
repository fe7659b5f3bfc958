"""How a gateway ends: it says so, accepts for a pause, lets calls finish until one deadline, and loses nothing.

Whoever balances connections learns of an end a little later than the gateway itself. So callers here do as callers
behind a balancer do: they make a new connection for each call, for as long as the gateway takes any.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import aiohttp

from chimera_host.contract.call import InvokeRequest

from .conftest import KEY
from .eventing import QUICK, until
from .test_event_streams import Stream, stream

CALL = "/v1/tenants/default/agents/agent/invoke"
LONG = "/v1/tenants/default/agents/long/invoke"
CHAT = "/internal/v1/chat/completions"
PAUSE = 1.5


def settings(pause: float, drain: float, **more: Any) -> dict[str, Any]:
    return {"http": {"drain_pause": pause, "drain": drain, **more}}


class Held:
    """Answers of a host and of a model that come when they are let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = 0

    async def __call__(self, request: Any) -> str:
        if isinstance(request, InvokeRequest) and request.agent == "agent":
            return "short"
        self.begun += 1
        await self.open.wait()
        return "long"


async def called(url: str) -> tuple[int, str | None]:
    """A call by a connection of its own: its status, and what is said of the connection."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
        http.post(url, json={"input": "hi"}) as answer,
    ):
        await answer.read()
        return answer.status, answer.headers.get("Connection")


async def refused(url: str) -> bool:
    """Whether nobody listens. What is asked in that very moment asyncio's listener may leave without an answer."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    except OSError:
        return True
    writer.close()
    return False


async def test_calls_under_way_and_calls_that_still_come_are_answered(make_world: Callable[..., Any]) -> None:
    held = Held()
    async with make_world(settings=settings(PAUSE, 20.0)) as world:
        await world.host(answer=held)
        for name in ("agent", "long"):
            await world.agent(name)
        begun = asyncio.create_task(called(world.url + LONG))
        await until(lambda: _is(held.begun == 1))

        loop = asyncio.get_running_loop()
        since = loop.time()
        ending = asyncio.create_task(world.gateway.stop())
        reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]))
        body = b'{"input": "hi"}'
        head = f"POST {CALL} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:5])
        await writer.drain()
        await asyncio.sleep(0)
        for url in (world.url, world.gateway.internal_url):
            async with world.http.get(url + "/readyz") as answer:
                assert answer.status == 503
        answered = [await called(world.url + CALL)]
        while loop.time() - since < PAUSE / 3:
            answered.append(await called(world.url + CALL))
        # Whoever keeps connections is told to make the next one elsewhere.
        assert set(answered) == {(200, "close")}
        await until(lambda: refused(world.url))
        assert loop.time() - since >= PAUSE, "nothing is refused before the pause is over"

        writer.write(body[5:])
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        assert not begun.done() and not ending.done()
        held.open.set()
        assert (await begun)[0] == 200
        await ending


async def test_on_one_machine_nothing_waits(make_world: Callable[..., Any]) -> None:
    async with make_world() as world:
        assert (world.gateway.settings.http.drain_pause, world.gateway.settings.http.drain) == (0.0, 0.2)
        kept = await world.get("/readyz")
        assert kept[0] == 200
        async with asyncio.timeout(10):
            await world.gateway.stop()


async def test_there_is_one_deadline_for_all_and_then_all_is_written_down(
    make_world: Callable[..., Any],
) -> None:
    """Calls that never end, at each of the listeners; one of them is within another."""
    drain = 3.0
    held = Held()
    async with make_world(settings=settings(0.0, drain)) as world:
        inner: list[asyncio.Task[Any]] = []

        async def answer(request: InvokeRequest) -> str:
            body = {"messages": [{"role": "user", "content": "x"}]}
            inner.append(asyncio.ensure_future(world.internal(CHAT, body, call=request.call)))
            return await held(request)

        world.model.say = held
        await world.host(answer=answer)
        await world.agent("long")
        outer = asyncio.create_task(called(world.url + LONG))
        _, task = await world.post("/v1/tenants/default/agents/long/tasks", {"input": "hi"})
        await until(lambda: _is(held.begun == 4))
        gateway = world.gateway
        assert world.quota.alive

        since = asyncio.get_running_loop().time()
        await gateway.stop()
        assert asyncio.get_running_loop().time() - since < 2 * drain
        done = await asyncio.gather(outer, *inner, return_exceptions=True)
        assert not any(isinstance(one, tuple) and one[0] == 200 for one in done)
        assert not world.quota.alive, "it is counted no more"
        outcomes = [entry.outcome for entry in world.audit.records if entry.action == "agent:invoke"]
        assert "cancelled" in outcomes, outcomes
        assert task["state"] == "queued"


async def test_the_audit_log_is_written_though_the_quotas_store_is_away(make_world: Callable[..., Any]) -> None:
    held = Held()
    async with make_world(settings={**settings(0.0, 0.1), "audit": {"flush": 1.0}}) as world:
        await world.host(answer=held)
        await world.agent("long")
        under_way = asyncio.create_task(called(world.url + LONG))
        await until(lambda: _is(held.begun == 1))
        world.quota.away = ConnectionError("gone")
        with contextlib.suppress(ConnectionError):
            await world.gateway.stop()
        assert "cancelled" in [entry.outcome for entry in world.audit.records if entry.action == "agent:invoke"]
        world.quota.away = None
        await asyncio.gather(under_way, return_exceptions=True)


async def test_streams_of_events_end_in_order_so_that_readers_resume_elsewhere(make_world: Callable[..., Any]) -> None:
    async with make_world(settings={"events": QUICK, **settings(0.0, 600.0, stream_comment=60.0)}) as world:
        async with stream(world) as answer:
            await until(lambda: _is(world.gateway.events.events.streams == 1))
            ending = asyncio.create_task(world.gateway.stop())
            assert await Stream(answer).next() == ("end", {})
        await asyncio.wait_for(ending, 10)


async def _is(value: bool) -> bool:
    return value
