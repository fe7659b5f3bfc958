"""Green is loaded where blue is, before it gets calls; elsewhere nothing is; and what is kept stays loaded."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.gateway.calls import CallTable
from chimera.gateway.hosts import HostClient
from chimera.gateway.routes import RouteTable
from chimera.gateway.sides.loading import TOUCH, Loader
from chimera.gateway.sides.ports import Loads
from chimera.kernel.leases import Lease
from chimera.testing.clock import ManualClock
from chimera.testing.hosts import FakeHost
from chimera.testing.pool import FakeHostPool
from chimera.testing.storage import MemoryStorage
from chimera_host.contract.call import LoadRequest
from chimera_host.errors import AgentLoadError
from chimera_host.testing import builders

HELD = Lease(name="sides", owner="me", token=1, expires=9e9)


class Rig:
    """Agents, hosts, and what the loader says of them."""

    def __init__(self) -> None:
        self.store = MemoryStorage()
        self.pool = FakeHostPool()
        self.hosts = HostClient()
        self.clock = ManualClock()
        self.routes = RouteTable(self.store, page=100)
        self.told: list[Loads] = []
        self.calls = CallTable(depth=4, family=100)
        self.loader = Loader(
            self, routes=self.routes, pool=self.pool, hosts=self.hosts, calls=self.calls, clock=self.clock
        )
        self.fakes: dict[str, FakeHost] = {}

    async def loaded(self, loads: Sequence[Loads], *, held: Lease) -> None:
        assert held is HELD
        self.told += loads

    async def agent(
        self, name: str, *, cell: str = "one", green: str = "one", kept: bool = False, rollout: str = "ro-1"
    ) -> None:
        blue = self.store.put_agent(builders.document(name), cell)
        other = self.store.put_agent(builders.document(name, description="Another."), green)
        until = self.clock.wall() + 1e6 if kept else None
        side = replace(other, side="kept" if kept else "green", rollout=rollout, until=until)
        self.store.put_route(replace(blue, others=(side,)))
        await self.routes.refresh()

    def holds(self, host: str, *agents: str) -> None:
        """The host has these agents' live revisions loaded."""
        self.fakes[host].holds += [
            {"tenant": "default", "agent": name, "revision": self.routes.find("default", name).revision}
            for name in agents
        ]

    async def look(self) -> list[tuple[str, int, int]]:
        self.told.clear()
        await self.loader.look(HELD)
        return [(one.agent, one.wanted, one.holding) for one in self.told]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    async with AsyncExitStack() as stack:
        for name, cell in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "two")):
            made.fakes[name] = fake = FakeHost(name, cell=cell)
            fake.load = _loads(fake)
            await stack.enter_async_context(fake)
            if cell == "one":
                made.pool.add(fake.endpoint)
        yield made
    await made.hosts.aclose()


def _loads(fake: FakeHost) -> Any:
    async def load(asked: LoadRequest) -> None:
        fake.holds.append({"tenant": asked.tenant, "agent": asked.agent, "revision": asked.revision})

    return load


async def test_green_is_loaded_on_the_hosts_that_have_blue_and_nowhere_else(rig: Rig) -> None:
    for name in ("anna", "bert", "carl"):
        await rig.agent(name)
    rig.holds("a", "anna", "bert")
    rig.holds("b", "anna")
    assert await rig.look() == [("anna", 2, 2), ("bert", 1, 1), ("carl", 0, 0)]
    assert sorted(one.agent for one in rig.fakes["a"].loads) == ["anna", "bert"]
    assert [one.agent for one in rig.fakes["b"].loads] == ["anna"]
    assert all(one.make_room for one in rig.fakes["a"].loads)


async def test_a_second_look_loads_and_tells_only_what_is_new(rig: Rig) -> None:
    await rig.agent("anna")
    rig.holds("a", "anna")
    await rig.look()
    assert await rig.look() == []
    rig.holds("b", "anna")
    assert await rig.look() == [("anna", 2, 2)]
    assert len(rig.fakes["a"].loads) == len(rig.fakes["b"].loads) == 1


async def test_a_revision_that_is_rolled_out_again_is_told_again(rig: Rig) -> None:
    await rig.agent("anna")
    rig.holds("a", "anna")
    assert await rig.look() == [("anna", 1, 1)]
    await rig.agent("anna", rollout="ro-2")
    assert await rig.look() == [("anna", 1, 1)], "the side is a new row, of which nobody has written anything"


async def test_green_in_another_cell_is_loaded_there_and_the_cell_is_woken_for_it(rig: Rig) -> None:
    async def wake(_: Any) -> None:
        for name in ("c", "d"):
            rig.pool.add(rig.fakes[name].endpoint)

    rig.pool.on_wake = wake
    await rig.agent("anna", green="two")
    await rig.agent("bert", green="two")
    rig.holds("a", "anna")
    assert await rig.look() == [("anna", 1, 1), ("bert", 0, 0)]
    assert rig.pool.woken == ["two"]
    assert len(rig.fakes["c"].loads) + len(rig.fakes["d"].loads) == 1


async def test_what_cannot_be_loaded_is_told_with_the_reason(rig: Rig) -> None:
    async def broken(_: LoadRequest) -> None:
        raise AgentLoadError("its code can't be imported")

    await rig.agent("anna")
    await rig.agent("bert", green="two")
    rig.holds("a", "anna", "bert")
    rig.fakes["a"].load = broken
    await rig.look()
    anna, bert = rig.told
    assert (anna.wanted, anna.holding, anna.problem) == (1, 0, "its code can't be imported")
    assert bert.holding < bert.wanted and bert.problem is not None and "two" in bert.problem


async def test_what_is_kept_is_touched_now_and_then_and_takes_no_place(rig: Rig) -> None:
    await rig.agent("anna", kept=True)
    rig.holds("a", "anna")
    assert await rig.look() == [] and len(rig.fakes["a"].loads) == 1
    assert not rig.fakes["a"].loads[0].make_room
    await rig.look()
    assert len(rig.fakes["a"].loads) == 1
    rig.clock.advance(TOUCH)
    await rig.look()
    assert len(rig.fakes["a"].loads) == 2
    rig.store.put_route(replace(rig.routes.find("default", "anna"), others=()))
    await rig.routes.refresh()
    await rig.look()
    await rig.agent("anna", kept=True)
    await rig.look()
    assert len(rig.fakes["a"].loads) == 3, "of what was kept no more nothing is remembered"
