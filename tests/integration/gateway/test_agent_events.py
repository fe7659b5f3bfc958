"""Events that start agents, on a real gateway with fake hosts: facts, events of others, dead letters, circles."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from chimera.adapters.storage.events.bus import BusRows
from chimera.adapters.storage.schema.journal import journal_head
from chimera.agents.subscriptions import TakenEvents
from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import InvokeRequest
from chimera_host.errors import AgentFailed

from .eventing import QUICK, TENANT, happen, until

EVENTS = f"{TENANT}/events"
LETTERS = f"{TENANT}/dead-letters"
TASKS = {"poll": 0.02, "lease": 2.0, "backoff": 0.01, "rest": 0.1, "attempts": 2, "request_bytes": 65_536}


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_world(settings={"events": {**QUICK, "hops": 3}, "tasks": TASKS}) as made:
        await open_bus(made)
        yield made


async def open_bus(world: Any) -> None:
    """What applying the first agent that takes events does."""
    rows = BusRows(world.database)

    def job(connection: Any) -> None:
        rows.open(connection, "default", connection.execute(journal_head.select()).one().event_seq, 1.0)

    await world.database.write(job)


async def reader(
    world: Any, name: str = "reader", *, types: tuple[str, ...] = ("chimera.tenant.*",), **fields: Any
) -> None:
    """An agent with one subscription."""
    taken = TakenEvents(name="sub", types=types, **fields)
    await world.agent(name, subscriptions=[taken], protocols=["events", "http"])


async def said(host: FakeHost, count: int) -> list[str]:
    async def enough() -> list[str] | None:
        texts = [one.messages[-1].content for one in host.requests]
        return texts if len(texts) >= count else None

    return list(await until(enough))


async def letters(world: Any, query: str = "") -> list[dict[str, Any]]:
    return list((await world.get(LETTERS + query))[1]["dead_letters"])


def order(id_: str = "1", **fields: Any) -> dict[str, Any]:
    made = {"specversion": "1.0", "id": id_, "source": "shop", "type": "com.example.order.paid"}
    return {**made, "data": {"order": {"state": "paid", "total": 12.5}}, **fields}


async def publish(world: Any, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return await world.post(EVENTS, event, **{"Content-Type": "application/cloudevents+json"})


async def tasks(world: Any, agent: str = "reader") -> list[dict[str, Any]]:
    return list((await world.get(f"{TENANT}/agents/{agent}/tasks"))[1]["tasks"])


async def test_a_fact_starts_each_agent_that_subscribed_and_no_other(world: Any) -> None:
    host = await world.host()
    await reader(world, input="{type} {subject} {data.name} {data}")
    await reader(world, "other", types=("chimera.task.failed",))
    await reader(world, "narrow", subjects=("b",))
    await happen(world, "a", "b")

    texts = await said(host, 3)

    whole = '{"name":"a","by":"system:test"}'
    assert f"chimera.tenant.resumed a a {whole}" in texts
    assert sorted(one.agent for one in host.requests) == ["narrow", "reader", "reader"]
    found = await until(lambda: ended(world, 2))
    assert {(one["state"], one["subscription"], one["by"]) for one in found} == {("succeeded", "sub", "agent:reader")}


async def ended(world: Any, count: int, agent: str = "reader") -> list[dict[str, Any]] | None:
    found = await tasks(world, agent)
    return found if len(found) == count and all(one.get("finished") for one in found) else None


async def test_an_event_of_others_starts_an_agent_once_however_often_it_comes(world: Any) -> None:
    host = await world.host()
    await reader(world, types=("com.example.*",), data={"order.state": "paid"}, input="{data.order.total}")

    assert await publish(world, order()) == (202, {"started": 1})
    assert await publish(world, order()) == (202, {"started": 1})
    assert await publish(world, order("2", data={"order": {"state": "open"}})) == (202, {"started": 0})
    headers = {f"ce-{name}": text for name, text in order("3").items() if name != "data"}
    async with world.http.post(
        world.url + EVENTS,
        data=b'{"order": {"state": "paid"}}',
        headers={**headers, "Content-Type": "application/json"},
    ) as answer:
        assert answer.status == 202, await answer.text()

    await until(lambda: ended(world, 2))
    assert sorted(await said(host, 2)) == ["", "12.5"]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"id": "1"}, "invalid-event"),
        (order(type="chimera.task.failed"), "invalid-event"),
        (order(specversion="0.3"), "invalid-event"),
        (order(**{"Bad-Name": "x"}), "invalid-event"),
    ],
)
async def test_what_is_no_event_is_refused(world: Any, event: dict[str, Any], code: str) -> None:
    status, problem = await publish(world, event)
    assert (status, problem["code"]) == (400, code)


async def test_what_an_agent_does_not_take_is_a_dead_letter_that_can_be_replayed(world: Any) -> None:
    host = await world.host()
    heals = asyncio.Event()

    async def answer(request: InvokeRequest) -> str:
        if not heals.is_set():
            raise AgentFailed("no", agent=request.agent)
        return "done"

    host.answer = answer
    await reader(world, types=("com.example.*",), attempts=1)
    await publish(world, order())

    (letter,) = await until(lambda: letters(world))

    assert (letter["agent"], letter["subscription"], letter["attempts"]) == ("reader", "sub", 1)
    assert letter["event"] == order() and letter["reason"].startswith("agent-failed")
    assert await letters(world, "?agent=other") == [] and await letters(world, "?subscription=sub") == []
    assert len(await letters(world, "?agent=reader&subscription=sub")) == 1
    assert (await world.get(f"{LETTERS}/{letter['letter']}"))[1] == letter
    heals.set()
    assert (await world.post(LETTERS + "/replay", {"dead_letters": [letter["letter"]]}))[1]["dead_letters"] == 1
    found = await until(lambda: ended(world, 2))
    assert {one["state"] for one in found} == {"failed", "succeeded"} and await letters(world) == []


async def test_a_dead_letter_is_dropped_or_refused_where_nobody_wants_it_any_more(world: Any) -> None:
    host = await world.host()

    async def answer(request: InvokeRequest) -> str:
        raise AgentFailed("no", agent=request.agent)

    host.answer = answer
    await reader(world, types=("com.example.*",), attempts=1)
    await publish(world, order())
    await until(lambda: letters(world))
    world.store.remove_agent("default", "reader")
    status, problem = await world.post(LETTERS + "/replay", {"agent": "reader"})
    assert (status, problem["code"]) == (404, "dead-letter-not-found")
    assert await world.post(LETTERS + "/drop", {"agent": "reader"}) == (200, {"dead_letters": 1, "more": False})
    assert await letters(world) == []


async def test_a_circle_of_agents_ends_and_says_so(world: Any) -> None:
    host = await world.host()
    for name, other in (("ping", "pong"), ("pong", "ping")):
        await reader(world, name, types=("chimera.task.succeeded",), subjects=(f"agents/{other}/*",))
    assert (await world.post(f"{TENANT}/agents/ping/tasks", {"input": "go"}))[0] == 202

    (letter,) = await until(lambda: letters(world))

    # ping by the caller, then pong, ping and pong by events; the fourth is one too many.
    assert len(host.requests) == 4 and letter["reason"].startswith("event-loop")
    assert letter["event"]["chimerahops"] == 3 and letter["agent"] == "ping"


async def test_an_agent_is_not_started_by_what_is_told_of_itself(world: Any) -> None:
    host = await world.host()
    await reader(world, types=("chimera.task.*",), subjects=("agents/reader/*",))
    assert (await world.post(f"{TENANT}/agents/reader/tasks", {"input": "go"}))[0] == 202
    await until(lambda: ended(world, 1))
    await reader(world, "last")
    await happen(world, "later")
    await until(lambda: ended(world, 1, "last"))
    assert [one.agent for one in host.requests] == ["reader", "last"]


async def test_events_of_a_subject_share_a_session_where_the_subscription_says_so(world: Any) -> None:
    host = await world.host()
    await reader(world, types=("com.example.*",), session="subject")
    for id_, subject in (("1", "a"), ("2", "b"), ("3", "a")):
        await publish(world, order(id_, subject=subject))
        await until(lambda id_=id_: ended(world, int(id_)))  # type: ignore[misc]
    sessions = [one["session"] for one in reversed(await tasks(world))]
    assert sessions[0] == sessions[2] != sessions[1]
    assert [len(one.session.messages) if one.session else None for one in host.requests] == [0, 0, 2]


async def test_an_agent_that_a_policy_forbids_is_not_started_and_its_event_is_a_dead_letter(world: Any) -> None:
    await world.host()
    text = 'forbid (principal == Agent::"default/reader", action == Action::"agent:invoke", resource) when '
    text += '{ context.protocol == "event" };'
    async with world.http.put(f"{world.url}{TENANT}/policies", json={"policies": {"quiet": text}}) as put:
        assert put.status < 300, await put.text()
    await reader(world, types=("com.example.*",))
    await publish(world, order())
    (letter,) = await until(lambda: letters(world))
    assert letter["reason"].startswith("not-allowed")


async def test_what_happened_before_an_agent_took_events_does_not_start_it(world: Any) -> None:
    host = await world.host()
    await happen(world, "early")
    last = (await world.get(EVENTS + "?last=1"))[1]["next"]
    taken = TakenEvents(name="sub", types=("chimera.tenant.*",), input="{subject}")
    await world.agent("reader", subscriptions=[taken], protocols=["events"], events_since=last)
    await happen(world, "late")
    assert await said(host, 1) == ["late"]
