"""A cell's new hosts have loaded what the old ones had, before they get calls."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from chimera.gateway.calls import CallTable
from chimera.gateway.hosts import HostClient
from chimera.gateway.warming import Warmer
from chimera.platform import routing
from chimera.platform.model import Route
from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import LoadRequest
from chimera_host.errors import AgentLoadError

CELL = "cell-1"


class Routes:
    """The one thing that a `Warmer` asks of the routes."""

    def __init__(self) -> None:
        self.live: dict[tuple[str, str], Route] = {}

    def put(self, agent: str, *, cell: str = CELL) -> None:
        self.live["default", agent] = Route(
            tenant="default", agent=agent, revision=f"now-{agent}", cell=cell, framework="function", sequence=1
        )

    def known(self, tenant: str, agent: str) -> Route | None:
        return self.live.get((tenant, agent))


class Rig:
    def __init__(self) -> None:
        self.routes = Routes()
        self.calls = CallTable(depth=4, family=100)
        self.hosts = HostClient()
        self.warmer = Warmer(
            calls=self.calls,
            hosts=self.hosts,
            routes=self.routes,  # type: ignore[arg-type]
            platform_url="http://gateway:8081",
        )
        self.old = [FakeHost(f"old-{number}") for number in range(2)]
        self.new = [FakeHost(f"new-{number}") for number in range(3)]

    async def warm(self) -> int:
        return await self.warmer.warm(CELL, [one.endpoint for one in self.old], [one.endpoint for one in self.new])


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    async with AsyncExitStack() as stack:
        for host in (*made.old, *made.new):
            await stack.enter_async_context(host)
        yield made
    await made.hosts.aclose()


def held(*agents: str) -> list[dict[str, str]]:
    return [{"tenant": "default", "agent": agent, "revision": f"then-{agent}"} for agent in agents]


async def test_each_agent_is_loaded_once_where_its_calls_will_go_as_it_is_live_now(rig: Rig) -> None:
    agents = [f"agent-{number}" for number in range(40)]
    for agent in agents:
        rig.routes.put(agent)
    rig.old[0].holds, rig.old[1].holds = held(*agents[:25]), held(*agents[15:])
    assert await rig.warm() == 40
    for host in rig.new:
        for asked in host.loads:
            assert host.host == routing.ranked(f"default/{asked.agent}", [one.host for one in rig.new])[0]
            assert (asked.revision, asked.platform_url) == (f"now-{asked.agent}", "http://gateway:8081")
    assert sorted(asked.agent for host in rig.new for asked in host.loads) == sorted(agents)


async def test_a_host_may_read_what_it_is_to_load_and_only_meanwhile(rig: Rig) -> None:
    rig.routes.put("anna")
    rig.old[0].holds = held("anna")
    seen: list[frozenset[str]] = []

    async def load(asked: LoadRequest) -> None:
        for host in rig.new:
            seen.append(rig.calls.revisions_on(host.host, cell=CELL))
        assert rig.calls.revisions_on(rig.new[0].host, cell="another") == frozenset()

    for host in rig.new:
        host.load = load
    assert await rig.warm() == 1
    assert sorted(seen, key=len) == [frozenset(), frozenset(), frozenset({"now-anna"})]
    assert all(rig.calls.revisions_on(host.host, cell=CELL) == frozenset() for host in rig.new)


async def test_what_is_gone_moved_or_broken_keeps_nothing_else_back(rig: Rig) -> None:
    for agent in ("fine", "broken"):
        rig.routes.put(agent)
    rig.routes.put("moved", cell="another")
    rig.old[0].holds = held("fine", "broken", "moved", "gone")
    await rig.old[1].stop()

    async def load(asked: LoadRequest) -> None:
        if asked.agent == "broken":
            raise AgentLoadError("its module has a fault")

    for host in rig.new:
        host.load = load
    assert await rig.warm() == 1
    assert sorted(asked.agent for host in rig.new for asked in host.loads) == ["broken", "fine"]
    for host in rig.new:
        await host.stop()
    assert await rig.warm() == 0
