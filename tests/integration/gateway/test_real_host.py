"""The gateway with a real host process of the function framework: the whole way of a call, there and back."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from chimera.gateway.sides.loading import Loader
from chimera.gateway.sides.ports import Loads
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease
from chimera.platform.model import WHOLE_WEIGHT as WHOLE
from chimera.platform.model import Endpoint
from chimera_host.testing import builders
from chimera_host.testing.process import HostProcess


def host_process(world: Any, name: str = "host-1", **fields: Any) -> Any:
    """A real host behind the world's gateway."""

    class Platform:
        url = world.gateway.internal_url

    return HostProcess(
        Platform(),  # type: ignore[arg-type]
        "function",
        python=sys.executable,
        host=name,
        cell="cell-1",
        platform_token=world.token(name),
        **fields,
    )


def add(world: Any, host: Any, name: str = "host-1") -> None:
    world.pool.add(Endpoint(host=name, cell="cell-1", url=host.client.url, key="host-key"))


async def test_a_call_goes_the_whole_way(world: Any) -> None:
    await world.agent()
    async with host_process(world) as host:
        add(world, host)
        status, body = await world.invoke(text="hello")
        assert (status, body["output"], body["model_calls"]) == (200, "model: hello", 1)
        assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        assert body["timings"]["loaded"] is True
        request = world.model.requests[0]
        assert request.body["messages"][0]["role"] == "system"
        assert 0 < request.deadline <= 120

        await world.invoke(text="one", session="s")
        status, body = await world.invoke(text="two", session="s")
        assert status == 200
        assert [m["content"] for m in world.model.requests[-1].body["messages"]][1:] == ["one", "model: one", "two"]


async def test_green_is_loaded_on_the_host_of_blue_before_its_first_call(world: Any) -> None:
    told: list[Loads] = []

    class Store:
        async def loaded(self, loads: Sequence[Loads], *, held: Lease) -> None:
            told.extend(loads)

    gateway = world.gateway
    loader = Loader(
        Store(), routes=gateway.routes, pool=world.pool, hosts=gateway._hosts, calls=gateway.calls, clock=SystemClock()
    )
    blue = await world.agent()
    async with host_process(world) as host:
        add(world, host)
        assert (await world.invoke())[0] == 200
        other = await world.agent(document=builders.document("agent", description="Another."))
        green = replace(other, side="green", rollout="ro-1", weight=WHOLE)
        world.store.put_route(replace(blue, others=(green,)))
        await gateway.routes.refresh()
        await loader.look(Lease(name="sides", owner="me", token=1, expires=9e9))
        assert [(one.wanted, one.holding, one.problem) for one in told] == [(1, 1, None)]
        assert len((await host.client.loaded())["agents"]) == 2
        status, body = await world.invoke()
        assert (status, body["revision"], body["timings"].get("loaded")) == (200, green.revision, None)


async def test_a_model_that_streams_reaches_the_caller_in_pieces(world: Any) -> None:
    await world.agent()
    async with host_process(world) as host:
        add(world, host)
        url = f"{world.url}/v1/tenants/default/agents/agent/invoke"
        async with world.http.post(url, json={"input": "a b c", "stream": True}) as answer:
            text = await answer.text()
        assert text.count("event: delta") >= 3
        assert text.count("event: done") == 1


async def test_a_killed_host_is_named_and_the_next_call_goes_elsewhere(world: Any) -> None:
    await world.agent()
    asked = asyncio.Event()
    real = world.model.say

    async def forever(_: Any) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    world.model.say = forever
    async with host_process(world) as first, host_process(world, "host-2") as second:
        add(world, first)
        task = asyncio.create_task(world.invoke())
        await asked.wait()
        first.process.kill()
        status, body = await task
        assert (status, body["code"], body["agent"]) == (502, "host-failed", "agent")
        assert ("host-1", "crashed", "agent") in world.pool.reports
        world.model.say = real
        add(world, second, "host-2")
        for _ in range(4):
            assert (await world.invoke())[0] == 200


async def test_a_client_that_leaves_cancels_down_to_the_model(world: Any) -> None:
    await world.agent()
    asked = asyncio.Event()

    async def forever(_: Any) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    world.model.say = forever
    async with host_process(world) as host:
        add(world, host)
        task = asyncio.create_task(world.invoke())
        await asked.wait()
        task.cancel()
        for _ in range(600):
            if world.model.cancelled:
                break
            await asyncio.sleep(0.005)
        assert world.model.cancelled == 1


async def test_a_call_with_a_key_goes_on_when_its_host_is_killed(world: Any) -> None:
    """kill -9 in the middle of a model call: the gateway goes on on another host, and the caller sees one answer."""
    await world.agent()
    asked = asyncio.Event()
    real = world.model.say

    async def first_never(request: Any) -> str:
        if not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return str(await real(request))

    world.model.say = first_never
    url = f"{world.url}/v1/tenants/default/agents/agent/invoke"

    async def call() -> tuple[int, Any, bool]:
        body = {"input": "hello", "session": "s", "subject": "ann"}
        async with world.http.post(url, json=body, headers={"Idempotency-Key": "one"}) as answer:
            return answer.status, await answer.json(), "Idempotent-Replayed" in answer.headers

    async with host_process(world) as first, host_process(world, "host-2") as second:
        add(world, first)
        task = asyncio.create_task(call())
        await asked.wait()
        add(world, second, "host-2")
        first.process.kill()
        status, body, replayed = await task
        assert (status, body["output"], replayed) == (200, "model: hello", False)
        assert ("host-1", "crashed", "agent") in world.pool.reports
        status, again, replayed = await call()
        assert (status, again["output"], again["run"], replayed) == (200, "model: hello", body["run"], True)
        assert len(world.model.requests) == 2
        status, session = await world.get("/v1/tenants/default/agents/agent/sessions/s")
        assert (session["version"], len(session["state"]["messages"])) == (1, 2)
