"""Events as callers read them on a real gateway: pages, and streams that resume, are bounded, and end in time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import delete

from chimera.adapters.storage.schema.journal import event as table

from .eventing import QUICK, TENANT, happen, until


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_world(settings={"events": QUICK, "http": {"stream_comment": 0.1, "stream_idle": 1.0}}) as made:
        yield made


class Stream:
    """A stream's events as they come."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.last = ""

    async def next(self, within: float = 10.0) -> tuple[str, dict[str, Any]]:
        """The next event's name and data."""
        name = "message"
        async with asyncio.timeout(within):
            async for line in self.answer.content:
                text = line.decode().rstrip("\n")
                if text.startswith("id: "):
                    self.last = text[4:]
                elif text.startswith("event: "):
                    name = text[7:]
                elif text.startswith("data: "):
                    return name, json.loads(text[6:])
        return "end", {}


def stream(world: Any, query: str = "", **headers: str) -> Any:
    sent = {"Accept": "text/event-stream", **headers}
    return world.http.get(f"{world.url}{TENANT}/events{query}", headers=sent)


async def test_pages_go_on_where_the_last_one_ended(world: Any) -> None:
    await happen(world, "a", "b", "a", "b", "a")
    await happen(world, "x", tenant="other")
    places, after = [], 0
    while True:
        status, page = await world.get(f"{TENANT}/events?limit=2&after={after}&subject=a")
        assert status == 200
        places += [int(one["sequence"]) for one in page["events"]]
        after = page["next"]
        if not page["more"]:
            break
    assert places == [1, 3, 5] and after == 6
    newest = (await world.get(f"{TENANT}/events?last=2"))[1]
    assert [int(one["sequence"]) for one in newest["events"]] == [4, 5] and newest["next"] == 6
    everything = (await world.get("/v1/tenants/*/events"))[1]
    assert len(everything["events"]) == 6
    filtered = json.dumps([{"not": {"exact": {"subject": "a"}}}])
    found = (await world.get(f"{TENANT}/events?type=tenant.,agent.&filters={filtered}"))[1]
    assert [one["subject"] for one in found["events"]] == ["b", "b"]
    for query in ("type=nothing", "after=x", "limit=0", "filters=x", "filters=[1]", "last=0", f"after={'9' * 30}"):
        assert (await world.get(f"{TENANT}/events?{query}"))[0] == 400, query


async def test_a_stream_tells_what_comes_and_resumes_without_a_gap(world: Any) -> None:
    await happen(world, "before")
    async with stream(world, "?subject=a") as answer:
        assert answer.content_type == "text/event-stream"
        reader = Stream(answer)
        await until(lambda: _is(world.gateway.events.events.streams == 1))
        await happen(world, "a", "b")
        assert (await reader.next())[1]["subject"] == "a"
        await asyncio.sleep(0.3)
    await happen(world, "b", "a", "b", "a")
    async with stream(world, "?subject=a", **{"Last-Event-ID": "2"}) as answer:
        again = Stream(answer)
        assert [int((await again.next())[1]["sequence"]) for _ in range(2)] == [5, 7]
    async with stream(world, "?subject=a", **{"Last-Event-ID": ""}) as answer:
        assert answer.status == 400  # a reader that has seen nothing sends none
    async with stream(world, "?after=0") as answer:
        whole = Stream(answer)
        assert [int((await whole.next())[1]["sequence"]) for _ in range(7)] == list(range(1, 8))
    await until(lambda: _is(world.gateway.events.events.streams == 0))


async def _is(value: bool) -> bool:
    return value


async def test_a_reader_of_rare_events_is_moved_on(world: Any) -> None:
    async with stream(world, "?subject=rare") as answer:
        reader = Stream(answer)
        await until(lambda: _is(world.gateway.events.events.streams == 1))
        await happen(world, *["often"] * 5)

        async def told() -> bool:
            with pytest.raises(TimeoutError):
                await reader.next(0.1)
            return reader.last == "5"

        await until(told)


async def test_a_place_that_is_gone_is_said(world: Any) -> None:
    await happen(world, *["a"] * 5)
    await world.database.write(lambda connection: connection.execute(delete(table).where(table.c.seq <= 3)))
    for query in ("after=0", "after=2", "after=99"):
        status, problem = await world.get(f"{TENANT}/events?{query}")
        assert (status, problem["code"]) == (410, "events-gone")
        async with stream(world, f"?{query}") as answer:
            assert answer.status == 410
    assert [one["sequence"][-1] for one in (await world.get(f"{TENANT}/events?after=3"))[1]["events"]] == ["4", "5"]


async def test_streams_are_bounded_and_end_so_that_readers_are_asked_again(make_world: Callable[..., Any]) -> None:
    settings = {"events": {**QUICK, "streams": 1, "stream_life": 0.5}, "http": {"stream_comment": 0.1}}
    async with make_world(settings=settings) as world, stream(world) as answer:
        await until(lambda: _is(world.gateway.events.events.streams == 1))
        async with stream(world) as refused:
            assert (refused.status, (await refused.json(content_type=None))["code"]) == (503, "too-many-streams")
        assert await Stream(answer).next() == ("end", {})


async def test_a_reader_whose_right_is_taken_is_cut_off(world: Any) -> None:
    status, made = await world.post(f"{TENANT}/keys", {"name": "k", "roles": ["viewer"]})
    assert status == 201
    async with stream(world, Authorization=f"Bearer {made['token']}") as answer:
        await until(lambda: _is(world.gateway.events.events.streams == 1))
        async with world.http.delete(f"{world.url}{TENANT}/keys/{made['key']['id']}") as done:
            assert done.status == 200
        name, problem = await Stream(answer).next()
        assert (name, problem["status"]) == ("error", 401)


async def test_a_reader_that_takes_nothing_is_cut_off(world: Any) -> None:
    async with stream(world) as answer:
        await until(lambda: _is(world.gateway.events.events.streams == 1))
        for _ in range(30):  # more than the buffers of both ends hold
            await happen(world, *[f"s{number}" for number in range(20)], size=50_000)
        await until(lambda: _is(world.gateway.events.events.streams == 0))
        answer.close()


async def test_every_type_of_event_is_served_with_its_schema(world: Any) -> None:
    status, found = await world.get("/v1/event-types")
    assert status == 200
    types = {one["type"]: one for one in found["types"]}
    assert types["chimera.task.failed"]["schema"]["properties"]["task"] == {"type": "string"}
    assert types["chimera.subscription.paused"]["subject"] == "subscriptions/{subscription}"
