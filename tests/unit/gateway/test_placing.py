"""Calls that wait for a host: woken once for all, placed in their order."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chimera.gateway.admission import Admission
from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.errors import CellUnavailable
from chimera.gateway.placing import Placer
from chimera.platform.model import CellSpec, Endpoint, Route
from chimera.testing.pool import FakeHostPool
from chimera_host.trace import new_trace

ROUTE = Route(tenant="default", agent="anna", revision="r", cell="c", framework="function", sequence=1)


class Cells:
    """The one thing that a `Placer` asks of the routes."""

    async def cell(self, _: str) -> Any:
        return CellSpecStandIn()


class CellSpecStandIn:
    cell = "c"


class Line:
    """A placer over one cell, its pool and its calls."""

    def __init__(self, *, room: int, hold: float = 5.0) -> None:
        self.pool = FakeHostPool()
        self.calls = CallTable(depth=4, family=100)
        self.placer = Placer(
            pool=self.pool,
            routes=Cells(),  # type: ignore[arg-type]
            calls=self.calls,
            admission=Admission(total=1000, held=1000),
            host_concurrency=room,
            hold=hold,
        )
        self.pool.on_change(self.placer.freed)
        self.order: list[str] = []

    def host(self, name: str, **side: Any) -> None:
        self.pool.add(Endpoint(host=name, cell="c", url="http://127.0.0.1:1", key="k", **side))

    def call(
        self, name: str, *, depth: int = 0, within: float = 60.0, avoid: Sequence[str] = ()
    ) -> "asyncio.Task[Any]":
        deadline = asyncio.get_running_loop().time() + within
        made = InFlightCall(call=name, route=ROUTE, deadline=deadline, trace=new_trace(), depth=depth)

        async def place() -> InFlightCall:
            self.calls.add(made)
            try:
                await self.placer.place(made, avoid)
            except BaseException:
                self.calls.remove(made)
                raise
            self.order.append(name)
            return made

        return asyncio.create_task(place())

    def end(self, task: "asyncio.Task[Any]") -> None:
        self.calls.remove(task.result())
        self.placer.freed("c")


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_waits_is_placed_in_order_before_who_comes_later() -> None:
    line = Line(room=2)  # one for calls from outside, one in reserve
    line.host("h")
    running = line.call("first")
    await turns()
    waiting = [line.call(name) for name in ("a", "b", "c")]
    await turns()
    line.end(running)
    late = line.call("late")
    await turns()
    assert line.order == ["first", "a"]
    for task in (*waiting, late):
        await turns()
        line.end(task)
    assert line.order == ["first", "a", "b", "c", "late"]


async def test_the_reserve_is_for_calls_of_agents() -> None:
    line = Line(room=2)
    line.host("h")
    line.call("outside")
    await turns()
    waiting = line.call("waits")
    line.call("inside", depth=1)
    await turns()
    assert line.order == ["outside", "inside"]
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_one_who_leaves_gives_its_turn_on() -> None:
    line = Line(room=2)
    line.host("h")
    running = line.call("first")
    await turns()
    a, b = line.call("a"), line.call("b")
    await turns()
    line.end(running)
    a.cancel()
    await asyncio.gather(a, return_exceptions=True)
    await turns()
    assert line.order == ["first", "b"] and b.done()


async def test_a_new_host_takes_all_that_it_has_room_for() -> None:
    line = Line(room=4)  # three for calls from outside
    line.host("h")
    for number in range(3):
        line.call(f"early-{number}")
    await turns()
    for name in "abcd":
        line.call(name)
    await turns()
    line.host("i")
    await turns(40)
    assert line.order[3:] == ["a", "b", "c"]


async def test_a_sleeping_cell_is_woken_once_for_all() -> None:
    line = Line(room=100)

    async def wake(_: CellSpec) -> None:
        await asyncio.sleep(0.01)
        line.host("h")

    line.pool.on_wake = wake
    tasks = [line.call(str(number)) for number in range(20)]
    await asyncio.gather(*tasks)
    assert line.pool.woken == ["c"] and len(line.order) == 20


async def test_who_waits_too_long_is_told() -> None:
    line = Line(room=2, hold=0.05)
    line.host("h")
    line.call("first")
    await turns()
    with pytest.raises(CellUnavailable):
        await line.call("late")
    assert line.placer._line == {}


async def test_a_cell_whose_hosts_are_all_avoided_is_not_woken_without_a_pause() -> None:
    line = Line(room=4, hold=0.35)
    line.host("h")

    async def wake(_: CellSpec) -> None:
        pass

    line.pool.on_wake = wake
    with pytest.raises(CellUnavailable):
        await line.call("retry", avoid=["h"])
    assert len(line.pool.woken) <= 5


async def test_calls_go_to_each_side_by_its_weight_and_over_to_the_other_where_it_is_full() -> None:
    line = Line(room=1_000)
    line.host("blue-1", side="blue", weight=80)
    line.host("blue-2", side="blue", weight=80)
    line.host("green-1", side="green", weight=20)
    for number in range(500):
        line.call(f"call-{number}")
    await turns(5)
    loads = {host: line.calls.on_host(host) for host in ("blue-1", "blue-2", "green-1")}
    assert sum(loads.values()) == 500 and 70 < loads["green-1"] < 130
    assert max(loads["blue-1"], loads["blue-2"]) <= 1.25 * (loads["blue-1"] + loads["blue-2"] + 1) / 2 + 1

    small = Line(room=10)  # nine from outside
    small.host("blue-1", side="blue", weight=1)
    small.host("green-1", side="green", weight=99)
    for number in range(18):
        small.call(f"call-{number}")
    await turns(5)
    assert {host: small.calls.on_host(host) for host in ("blue-1", "green-1")} == {"blue-1": 9, "green-1": 9}
