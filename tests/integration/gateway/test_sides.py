"""An agent with two sides in the way of a call: weights, sessions, what is taken back, no call that fails for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from chimera.delivery.sides.model import WHOLE
from chimera.gateway.audit import CallEntries
from chimera.gateway.state.runs import Runs
from chimera.platform.model import Route, Withdrawn
from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import InvokeRequest
from chimera_host.errors import AgentLoadError
from chimera_host.testing import builders

KEY = "k" * 32


class Answer(NamedTuple):
    """What a call came to."""

    status: int
    headers: dict[str, str]
    text: str
    json: Any


class Pair:
    """The agent anna of a world, with a live revision in one cell and a green one in another."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.store = world.store
        self.one = FakeHost("one", cell="cell-1", answer=_revision)
        self.two = FakeHost("two", cell="cell-2", answer=_revision)
        self.blue = self.store.put_agent(builders.document("anna"), "cell-1")
        other = self.store.put_agent(builders.document("anna", description="Another."), "cell-2")
        self.green = replace(other, side="green", rollout="ro-1")
        self.set()

    def set(self, weight: int | None = None, **fields: Any) -> Route:
        """The blue side is live, the green one has this weight; None: there is none."""
        others = () if weight is None else (replace(self.green, weight=weight),)
        return self.store.put_route(replace(self.blue, others=others, **fields))

    def switched(self, until: float | None = 4e9) -> None:
        """Green is live, and blue is kept."""
        kept = replace(self.blue, side="kept", until=until)
        self.store.put_route(replace(self.green, side="live", rollout=None, others=(kept,)))

    def back(self, *, cancelled: bool = False) -> None:
        """Blue is live, and green was taken back."""
        self.set(withdrawn=(Withdrawn(revision=self.green.revision, cancelled=cancelled),))

    async def seen(self) -> None:
        await self.world.gateway.routes.refresh()

    async def call(self, *, key: str | None = None, **body: Any) -> "Answer":
        headers = {"Authorization": f"Bearer {KEY}"} | ({} if key is None else {"Idempotency-Key": key})
        url = f"{self.world.url}/v1/tenants/default/agents/anna/invoke"
        async with self.world.http.post(url, json={"input": "hi", **body}, headers=headers) as answer:
            text = await answer.text()
            return Answer(answer.status, dict(answer.headers), text, msgspec.json.decode(text))

    async def side(self, **body: Any) -> str:
        """The side that answered."""
        answer = await self.call(**body)
        assert answer.status == 200, answer.text
        return "green" if answer.json["output"] == self.green.revision else "blue"


async def _revision(request: InvokeRequest) -> str:
    return request.revision


@pytest.fixture
async def pair(world: Any) -> AsyncIterator[Pair]:
    made = Pair(world)
    async with AsyncExitStack() as stack:
        for host in (made.one, made.two):
            await stack.enter_async_context(host)
            world.pool.add(host.endpoint)
        yield made


async def test_calls_are_drawn_by_weight_and_say_who_answered(pair: Pair) -> None:
    pair.set(0)
    await pair.seen()
    assert {await pair.side() for _ in range(20)} == {"blue"}
    pair.set(5_000)
    await pair.seen()
    drawn = Counter([await pair.side() for _ in range(100)])
    assert 20 < drawn["green"] < 80
    pair.set(WHOLE)
    await pair.seen()
    answer = await pair.call()
    assert answer.headers["Chimera-Side"] == "green"
    assert answer.headers["Chimera-Revision"] == answer.json["revision"] == pair.green.revision


async def test_a_session_stays_on_the_revision_that_it_began_on_also_after_the_switch(pair: Pair) -> None:
    pair.set(0)
    await pair.seen()
    assert await pair.side(session="old") == "blue"
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side(session="new") == "green"
    pair.set(0)
    await pair.seen()
    assert (await pair.side(session="old"), await pair.side(session="new")) == ("blue", "green")
    pair.switched()
    await pair.seen()
    assert (await pair.side(session="old"), await pair.side(session="new")) == ("blue", "green")
    assert await pair.side() == "green"
    pair.switched(until=1.0)
    await pair.seen()
    assert await pair.side(session="old") == "green", "what it was on isn't kept any more"


async def test_a_key_goes_on_by_the_revision_that_it_began_on(pair: Pair) -> None:
    pair.set(0)
    await pair.seen()
    pair.one.answer = _dies
    assert (await pair.call(key="k")).status in (502, 503)
    pair.one.answer = _revision
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side(key="k") == "blue"
    assert await pair.side(key="another") == "green"


async def test_what_was_taken_back_gets_no_call_and_sessions_move(pair: Pair) -> None:
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side(session="s") == "green"
    pair.back()
    await pair.seen()
    assert await pair.side() == "blue"
    assert await pair.side(session="s") == "blue"
    assert (await pair.call(session="s")).json["session"] == "s"
    said = pair.one.requests[-1].session
    assert said is not None and len(said.messages) == 4, "it goes on with what was said on green"


async def test_a_session_of_another_framework_ends_with_the_reason_and_can_be_exported(pair: Pair) -> None:
    other = pair.store.put_agent(builders.document("anna", framework="crewai"), "cell-2")
    pair.green = replace(other, side="green", rollout="ro-1")
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side(session="s") == "green"
    pair.back()
    await pair.seen()
    refused = await pair.call(session="s")
    assert (refused.status, refused.json["code"]) == (409, "session-withdrawn")
    assert "crewai" in refused.json["detail"] and "export" in refused.json["next_step"]
    url = f"{pair.world.url}/v1/tenants/default/agents/anna/sessions/s/export"
    async with pair.world.http.get(url, headers={"Authorization": f"Bearer {KEY}"}) as exported:
        assert exported.status == 200 and pair.green.revision in await exported.text()
    assert await pair.side(session="other") == "blue"


async def test_running_calls_end_or_are_ended(pair: Pair) -> None:
    pair.set(WHOLE)
    await pair.seen()
    go, runs, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(request: InvokeRequest) -> str:
        runs.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            ended.set()
            raise
        return request.revision

    pair.two.answer = slow
    running = asyncio.create_task(pair.call())
    await runs.wait()
    pair.back()
    await pair.seen()
    assert not running.done()
    go.set()
    assert (await running).json["output"] == pair.green.revision

    go.clear()
    runs.clear()
    pair.set(WHOLE)
    await pair.seen()
    running = asyncio.create_task(pair.call())
    await runs.wait()
    pair.back(cancelled=True)
    await pair.seen()
    answer = await running
    assert (answer.status, answer.json["code"]) == (503, "revision-withdrawn")
    await ended.wait()
    assert await pair.side() == "blue"


async def test_an_answer_that_is_there_is_given_though_its_revision_is_taken_back_that_moment(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.set(WHOLE)
    await pair.seen()
    durable, finish = CallEntries.durable, Runs.finish
    reached, go = asyncio.Event(), asyncio.Event()

    async def before_it_is_durable(entries: CallEntries) -> None:
        reached.set()
        await go.wait()
        await durable(entries)

    async def before_it_is_finished(runs: Runs, *told: Any, **more: Any) -> None:
        reached.set()
        await go.wait()
        await finish(runs, *told, **more)

    for owner, name, late in (
        (CallEntries, "durable", before_it_is_durable),
        (Runs, "finish", before_it_is_finished),
    ):
        reached.clear()
        go.clear()
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, late)
            running = asyncio.create_task(pair.call(session=name, key=name))
            await reached.wait()
            pair.back(cancelled=True)
            await pair.seen()
            go.set()
            answer = await running
        assert (answer.status, answer.json["output"]) == (200, pair.green.revision)
        assert (await pair.call(session=name, key=name)).json["output"] == pair.green.revision, "it is kept"
        pair.set(WHOLE)
        await pair.seen()


async def test_a_call_that_waits_for_what_is_taken_back_goes_to_what_is_live(pair: Pair) -> None:
    pair.world.pool.remove("two")
    woken = asyncio.Event()

    async def wake(_: Any) -> None:
        woken.set()
        await asyncio.sleep(0.2)
        pair.world.pool.add(pair.two.endpoint)

    pair.world.pool.on_wake = wake
    pair.set(WHOLE)
    await pair.seen()
    waiting = asyncio.create_task(pair.side())
    await woken.wait()
    pair.back()
    await pair.seen()
    assert await waiting == "blue" and not pair.two.requests


async def test_no_call_fails_where_green_has_no_host_or_cannot_be_loaded(pair: Pair) -> None:
    pair.world.pool.remove("two")
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side() == "blue", "its cell can't be woken"

    async def broken(_: InvokeRequest) -> str:
        raise AgentLoadError("its code can't be imported")

    pair.two.answer = broken
    pair.world.pool.add(pair.two.endpoint)
    assert await pair.side() == "blue"
    assert await pair.side(session="s") == "blue" and await pair.side(session="s") == "blue"
    assert len(pair.two.requests) == 2, "what answered keeps the session"


async def test_a_sleeping_cell_of_green_is_woken(pair: Pair) -> None:
    pair.world.pool.remove("two")

    async def wake(_: Any) -> None:
        pair.world.pool.add(pair.two.endpoint)

    pair.world.pool.on_wake = wake
    pair.set(WHOLE)
    await pair.seen()
    assert await pair.side() == "green"


async def _dies(_: InvokeRequest) -> str:
    raise ConnectionError
