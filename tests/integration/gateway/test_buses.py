"""One suite for both buses, within the gateway and by a broker: whoever subscribes or writes can't tell which it is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chimera.gateway.eventing.seals import SEAL
from chimera.testing.broker import FakeBroker
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.tools import MessageTool
from chimera_host.errors import AgentFailed
from chimera_host.testing import builders

from .eventing import QUICK, TENANT, happen, until
from .test_agent_events import TASKS, ended, letters, open_bus, order, publish, reader, said

RETRIED = {"attempts": 50, "give_up": 60.0}


class Bus:
    """A world with one of the buses, and the broker where it has one."""

    def __init__(self, world: Any, broker: FakeBroker | None) -> None:
        self.world = world
        self.broker = broker


@pytest.fixture(params=["within", "broker"])
async def bus(request: pytest.FixtureRequest, make_world: Callable[..., Any]) -> AsyncIterator[Bus]:
    settings: dict[str, Any] = {"events": {**QUICK, **RETRIED, "hops": 3}, "tasks": TASKS}
    if request.param == "within":
        async with make_world(settings=settings) as world:
            await open_bus(world)
            yield Bus(world, None)
        return
    async with FakeBroker() as broker:
        settings["events"]["broker"] = broker.url
        async with make_world(settings=settings, internal_host="127.0.0.1") as world:
            broker.subscriber = world.gateway.broker_url + "/events"
            broker.sink = world.gateway.broker_url + "/dead-letters"
            await open_bus(world)
            yield Bus(world, broker)


async def test_every_fact_starts_each_agent_that_wants_it_once(bus: Bus) -> None:
    host = await bus.world.host()
    await reader(bus.world, input="{subject}")
    await reader(bus.world, "narrow", subjects=("s3",), input="narrow {subject}")
    names = [f"s{number}" for number in range(20)]
    await happen(bus.world, *names)
    assert sorted(await said(host, 21)) == sorted([*names, "narrow s3"])
    await until(lambda: ended(bus.world, 20))
    await asyncio.sleep(0.2)
    assert len(host.requests) == 21


async def test_a_message_and_its_reply_find_their_agents(bus: Bus) -> None:
    host = await bus.world.host()
    for name, tools in (("anna", (MessageTool(name="tell", agent="bert"),)), ("bert", ())):
        document = builders.document(name, tools=tools)
        await bus.world.agent(document=document, protocols=["events", "http"])

    async def answer(request: InvokeRequest) -> str:
        if request.messages[-1].content == "begin":
            body = {"message": "hello"}
            await bus.world.internal("/internal/v1/agents/bert/messages", body, call=request.call)
        return f"{request.agent} heard"

    host.answer = answer
    await bus.world.invoke("anna", "begin", session="s1")
    await until(lambda: ended(bus.world, 1, "anna"))
    kept = (await bus.world.get(f"{TENANT}/agents/anna/sessions/s1"))[1]["state"]["messages"]
    assert kept[2]["content"] == "Agent bert answers your message 'hello':\nbert heard"
    if bus.broker is not None:
        sent = [one for one in bus.broker.accepted if one["ce-type"] == "chimera.message.sent"]
        assert len(sent) == 2 and sent[1]["ce-correlationid"] == sent[0]["ce-correlationid"]


async def test_an_agents_failure_is_a_dead_letter_that_starts_it_anew(bus: Bus) -> None:
    host = await bus.world.host()
    heals = asyncio.Event()

    async def answer(request: InvokeRequest) -> str:
        if not heals.is_set():
            raise AgentFailed("no", agent=request.agent)
        return "done"

    host.answer = answer
    await reader(bus.world, attempts=1)
    await happen(bus.world, "a")
    (letter,) = await until(lambda: letters(bus.world))
    heals.set()
    done = (await bus.world.post(f"{TENANT}/dead-letters/replay", {"dead_letters": [letter["letter"]]}))[1]
    assert done["dead_letters"] == 1 and letter["agent"] == "reader"
    found = await until(lambda: ended(bus.world, 2))
    assert {one["state"] for one in found} == {"failed", "succeeded"}


async def test_a_circle_ends(bus: Bus) -> None:
    host = await bus.world.host()
    for name, other in (("ping", "pong"), ("pong", "ping")):
        await reader(bus.world, name, types=("chimera.task.succeeded",), subjects=(f"agents/{other}/*",))
    assert (await bus.world.post(f"{TENANT}/agents/ping/tasks", {"input": "go"}))[0] == 202
    (letter,) = await until(lambda: letters(bus.world))
    assert letter["reason"].startswith("event-loop") and len(host.requests) == 4


async def test_events_of_others_start_agents(bus: Bus) -> None:
    host = await bus.world.host()
    await reader(bus.world, types=("com.example.*",), input="{data.order.total}")
    assert await publish(bus.world, order()) == (202, {"started": 1})
    assert await said(host, 1) == ["12.5"]


# -- what only a broker does -------------------------------------------------------------------------------------------

by_broker = pytest.mark.parametrize("bus", ["broker"], indirect=True)
PAID = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "shop", "ce-type": "com.example.paid"}


async def send(bus: Bus, url: str, headers: dict[str, str], data: bytes = b"{}") -> int:
    async with bus.world.http.post(url, data=data, headers={"Content-Type": "application/json", **headers}) as answer:
        assert await answer.read() == b""
        return int(answer.status)


@by_broker
async def test_nothing_is_lost_while_the_broker_is_away_or_rests(bus: Bus) -> None:
    broker = bus.broker
    assert broker is not None
    host = await bus.world.host()
    await reader(bus.world, input="{subject}")
    broker.away = True
    await happen(bus.world, "a", "b")
    await asyncio.sleep(0.3)
    assert not broker.accepted and not host.requests
    broker.running.clear()
    broker.away = False
    await until(lambda: asyncio.sleep(0, len(broker.accepted) == 2))
    assert not host.requests
    broker.running.set()
    assert sorted(await said(host, 2)) == ["a", "b"]


@by_broker
async def test_an_event_sent_into_the_broker_starts_agents_and_a_forged_one_does_not(bus: Bus) -> None:
    broker = bus.broker
    assert broker is not None
    host = await bus.world.host()
    await reader(bus.world, types=("com.example.*", "chimera.task.failed"), input="{type}")
    assert await send(bus, broker.url, PAID) == 202
    assert await said(host, 1) == ["com.example.paid"]
    forged = {**PAID, "ce-type": "chimera.task.failed", f"ce-{SEAL}": "0" * 64}
    assert await send(bus, broker.subscriber, forged) == 403
    assert await send(bus, broker.subscriber, {"ce-id": "1"}) == 400
    assert await send(bus, broker.subscriber, {**PAID, "ce-id": "2", "ce-tenant": "No/Tenant"}) == 403
    assert await send(bus, bus.world.gateway.broker_url + "/v1/tenants", PAID) == 404
    assert len(host.requests) == 1


@by_broker
async def test_what_the_broker_gives_up_is_a_dead_letter_once_and_can_be_replayed(bus: Bus) -> None:
    broker = bus.broker
    assert broker is not None
    host = await bus.world.host()
    subscriber, broker.subscriber = broker.subscriber, bus.world.gateway.broker_url + "/nowhere"
    assert await send(bus, broker.url, {**PAID, "ce-subject": "orders/1"}) == 202
    (letter,) = await until(lambda: letters(bus.world))
    assert letter["reason"] == "the broker gave it up: 404" and letter["subscription"] == "broker"
    assert letter["agent"] is None and letter["event"]["subject"] == "orders/1"
    broker.subscriber = subscriber
    await reader(bus.world, types=("com.example.*",), input="{subject}")
    done = (await bus.world.post(f"{TENANT}/dead-letters/replay", {"dead_letters": [letter["letter"]]}))[1]
    assert done["dead_letters"] == 1 and await said(host, 1) == ["orders/1"]
    assert await letters(bus.world) == []
