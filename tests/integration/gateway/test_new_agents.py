"""Agents that are new while they are rolled out: their green side is all there is, and gets all calls."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.sides.store import SideStorage
from chimera.agents.compile import CompiledAgent
from chimera.bootstrap.side_parts import SidePorts
from chimera.delivery.sides.model import WHOLE, Green, Seen
from chimera.gateway.errors import AgentNotFound
from chimera.gateway.routes import RouteTable
from chimera.kernel.leases import Lease
from chimera.platform.model import CellSpec, Route
from chimera.testing.definitions import compiled, staged
from chimera_host.contract.call import InvokeRequest

from .conftest import World

TENANT, ROLLOUT = "default", "ro-1"
PATIENCE = 60.0
QUICK = {"poll": 0.02, "lease": 2.0, "backoff": 0.01, "attempts": 2}
TOOLS = [
    {"type": "agent", "name": "ask", "agent": "helper"},
    {"type": "message", "name": "tell", "agent": "helper", "reply": False},
]


class Rolled(World):
    """A gateway on the real catalogue; its agents say their names, and what `helper` says where they may call it."""

    def __init__(self, folder: Path, database: Database) -> None:
        settings = {"routes": {"poll": 3_600.0, "observe": 3_600.0}, "tasks": QUICK, "events": {"poll": 0.02}}
        super().__init__(folder, database, settings=settings)
        self.catalogue = Catalogue(database, max_hosts=1)
        self.rollouts = SideStorage(database, max_hosts=1)
        self.source = GatewayStorage(database)
        self.sides = SidePorts(loads=self.rollouts, observations=self.rollouts.observing)
        self.pool.on_wake = self._wake
        self.asking: set[str] = set()
        self.heard: asyncio.Queue[InvokeRequest] = asyncio.Queue()
        self.go = asyncio.Event()
        self.go.set()

    async def _wake(self, cell: CellSpec) -> None:
        await self.host(f"host-{len(self.pool.hosts)}", cell.cell, answer=self._answer)

    async def _answer(self, request: InvokeRequest) -> str:
        if request.agent == "helper":
            self.heard.put_nowait(request)
            await self.go.wait()
            return f"helper {request.revision}"
        if request.revision not in self.asking:
            return f"{request.agent} alone"
        running = self.gateway.calls._calls[request.call]
        token = self.token(str(running.host), running.route.cell)
        status, body = await self.internal(
            "/internal/v1/agents/helper/invoke",
            {"message": "hi"},
            call=request.call,
            Authorization=f"Bearer {token}",
        )
        return str(body["output"] if status == 200 else body["code"])

    async def live(self, *agents: CompiledAgent) -> None:
        await self.catalogue.apply(TENANT, staged(*agents), keep_going=False, expect=None, by=None)
        await self.gateway.routes.refresh()

    async def roll(self, *pairs: tuple[CompiledAgent, str | None]) -> None:
        """Agents are rolled out, each with what was live before."""
        batch = await self.catalogue.open_batch(TENANT)
        await self.catalogue.stage(TENANT, batch, staged(*(new for new, _ in pairs)))
        held = await self.held()
        assert await self.rollouts.set_green(TENANT, greens(*pairs), rollout=ROLLOUT, held=held) == {}
        weights = {new.value.agent.name: WHOLE for new, before in pairs if before is not None}
        await self.rollouts.set_weights(TENANT, weights, rollout=ROLLOUT, held=held)
        await self.gateway.routes.refresh()

    async def end(self, *pairs: tuple[CompiledAgent, str | None], back: bool = False, now: bool = False) -> None:
        ends: dict[str, Any] = {"blue" if back else "green": greens(*pairs), "now": now, "keep": 60.0, "by": "ann"}
        assert await self.rollouts.finish(TENANT, rollout=ROLLOUT, held=await self.held(), **ends) == {}
        await self.gateway.routes.refresh()

    async def held(self) -> Lease:
        lease = await StoredLeases(self.database).acquire("rollouts", "me", 600.0)
        assert lease is not None
        return lease

    async def seen(self) -> Sequence[Seen]:
        """What was seen of the rollout so far."""
        watcher = self.gateway._sides.watcher
        assert watcher is not None
        await watcher.flush()
        return (await self.rollouts.observations(TENANT, ROLLOUT, 0)).seen


def greens(*pairs: tuple[CompiledAgent, str | None]) -> list[Green]:
    return [Green(agent=new.value.agent.name, revision=new.digest, before=before) for new, before in pairs]


HELPER = compiled("helper", capabilities={"communication_protocols": ["http", "events"]})


@pytest.fixture
async def rolled(tmp_path: Path, migrated_file: Path) -> AsyncIterator[Rolled]:
    file = tmp_path / "chimera.db"
    shutil.copy(migrated_file, file)
    database = open_database(file)
    async with Rolled(tmp_path, database) as made:
        yield made
    await asyncio.to_thread(database.close)


async def test_an_agent_that_is_changed_may_call_one_that_is_new_with_the_same_change(rolled: Rolled) -> None:
    old, new = compiled("clerk"), compiled("clerk", tools=TOOLS)
    rolled.asking.add(new.digest)
    await rolled.live(old)
    pairs = [(new, old.digest), (HELPER, None)]
    await rolled.roll(*pairs)

    for _ in range(3):
        status, body = await rolled.invoke("clerk")
        assert (status, body["output"]) == (200, f"helper {HELPER.digest}")

    seen = [(one.agent, one.green, one.calls, one.failures) for one in await rolled.seen()]
    assert sorted(seen) == [("clerk", True, 3, 0), ("helper", True, 3, 0)], "both are judged by their calls"
    await rolled.end(*pairs, back=True)
    assert (await rolled.invoke("clerk"))[1]["output"] == "clerk alone"
    status, body = await rolled.invoke("helper")
    assert (status, body["code"]) == (404, "agent-not-found")


async def test_calls_turns_and_tasks_reach_an_agent_that_is_new(rolled: Rolled) -> None:
    await rolled.roll((HELPER, None))
    url = f"{rolled.url}/v1/tenants/default/agents/helper/invoke"
    async with rolled.http.post(url, json={"input": "hi", "session": "s"}) as answer:
        assert (answer.status, answer.headers["Chimera-Side"]) == (200, "green")
        assert answer.headers["Chimera-Revision"] == HELPER.digest
    assert (await rolled.invoke("helper", session="s"))[0] == 200
    status, task = await rolled.post("/v1/tenants/default/agents/helper/tasks", {"input": "hi"})
    assert status == 202
    _, done = await rolled.get(f"/v1/tenants/default/agents/helper/tasks/{task['task']}?wait=20")
    assert done["state"] == "succeeded", done
    await rolled.end((HELPER, None))
    async with rolled.http.post(url, json={"input": "hi", "session": "s"}) as answer:
        assert (answer.status, answer.headers["Chimera-Side"]) == (200, "live")


async def test_a_message_reaches_an_agent_that_is_new_though_it_is_the_first_that_takes_any(rolled: Rolled) -> None:
    clerk = compiled("clerk", tools=TOOLS)
    await rolled.live(clerk)
    await rolled.roll((HELPER, None))
    told: list[Any] = []

    async def tell(request: InvokeRequest) -> str:
        running = rolled.gateway.calls._calls[request.call]
        token = rolled.token(str(running.host), running.route.cell)
        path = "/internal/v1/agents/helper/messages"
        told.append(
            await rolled.internal(
                path, {"message": "hello", "reply": False}, call=request.call, Authorization=f"Bearer {token}"
            )
        )
        return "told"

    async def wake(cell: CellSpec) -> None:
        async def answer(request: InvokeRequest) -> str:
            return await (tell(request) if request.agent == "clerk" else rolled._answer(request))

        await rolled.host(f"host-{len(rolled.pool.hosts)}", cell.cell, answer=answer)

    rolled.pool.on_wake = wake
    assert (await rolled.invoke("clerk"))[0] == 200
    assert told[0][0] in (200, 202), told
    request = await asyncio.wait_for(rolled.heard.get(), PATIENCE)
    assert "hello" in str(request.messages[-1].content)


@pytest.mark.parametrize("now", [False, True])
async def test_what_is_taken_back_is_not_there_and_calls_that_run_end_or_are_ended(rolled: Rolled, now: bool) -> None:
    await rolled.roll((HELPER, None))
    rolled.go.clear()
    running = asyncio.create_task(rolled.invoke("helper"))
    await asyncio.wait_for(rolled.heard.get(), PATIENCE)
    await rolled.end((HELPER, None), back=True, now=now)
    assert (await rolled.invoke("helper"))[0] == 404
    rolled.go.set()
    status, body = await running
    assert (status, body.get("code")) == ((503, "revision-withdrawn") if now else (200, None))


async def test_a_call_that_waits_for_a_host_is_told_that_the_agent_is_gone(rolled: Rolled) -> None:
    woken, go = asyncio.Event(), asyncio.Event()

    async def wake(cell: CellSpec) -> None:
        woken.set()
        await go.wait()
        await rolled._wake(cell)

    rolled.pool.on_wake = wake
    await rolled.roll((HELPER, None))
    waiting = asyncio.create_task(rolled.invoke("helper"))
    await asyncio.wait_for(woken.wait(), PATIENCE)
    await rolled.end((HELPER, None), back=True)
    go.set()
    status, body = await waiting
    assert (status, body["code"]) == (404, "agent-not-found")
    assert rolled.heard.empty()


@pytest.mark.parametrize("now", [False, True])
async def test_what_has_become_live_and_is_taken_back_ends_its_calls_and_keeps_its_sessions(
    rolled: Rolled, now: bool
) -> None:
    await rolled.roll((HELPER, None))
    await rolled.end((HELPER, None))
    assert (await rolled.invoke("helper", session="s"))[0] == 200
    await asyncio.wait_for(rolled.heard.get(), PATIENCE)
    rolled.go.clear()
    running = asyncio.create_task(rolled.invoke("helper"))
    await asyncio.wait_for(rolled.heard.get(), PATIENCE)
    await rolled.end((HELPER, None), back=True, now=now)
    assert (await rolled.invoke("helper"))[0] == 404
    rolled.go.set()
    status, body = await running
    assert (status, body.get("code")) == ((503, "revision-withdrawn") if now else (200, None))
    url = f"{rolled.url}/v1/tenants/default/agents/helper/sessions/s/export"
    async with rolled.http.get(url) as exported:
        assert exported.status == 200 and HELPER.digest in await exported.text()


@pytest.mark.parametrize("back", [True, False], ids=["taken back", "deleted"])
async def test_a_call_that_waits_for_a_host_of_an_agent_that_goes_is_told_so(rolled: Rolled, back: bool) -> None:
    woken, go = asyncio.Event(), asyncio.Event()

    async def wake(cell: CellSpec) -> None:
        woken.set()
        await go.wait()
        await rolled._wake(cell)

    rolled.pool.on_wake = wake
    await rolled.live(HELPER)
    waiting = asyncio.create_task(rolled.invoke("helper", session="s"))
    await asyncio.wait_for(woken.wait(), PATIENCE)
    if back:
        await rolled.end((HELPER, None), back=True)
    else:
        await rolled.catalogue.delete_agents(TENANT, ["helper"])
        await rolled.gateway.routes.refresh()
    go.set()
    status, body = await waiting
    assert (status, body["code"]) == (404, "agent-not-found")
    assert rolled.heard.empty()


class Late(GatewayStorage):
    """Something happens between a table's two readings."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.between: Any = None

    async def changed_routes(self, after: int, limit: int) -> Sequence[Route]:
        if self.between is not None:
            await self.between()
            self.between = None
        return await super().changed_routes(after, limit)


async def test_a_new_agent_that_becomes_live_is_there_at_every_moment_and_at_every_gateway(rolled: Rolled) -> None:
    source = Late(rolled.database)
    other, third = RouteTable(source, page=10), RouteTable(source, page=10)
    gone: list[Route] = []
    other.on_change(lambda route: gone.append(route) if route.status == "deleted" else None)
    await other.refresh()
    await rolled.roll((HELPER, None))
    await other.refresh()
    await third.refresh()  # it starts in the middle
    assert [table.find(TENANT, "helper").side for table in (other, third)] == ["green"] * 2
    assert other.find(TENANT, "helper").cell in other.cells_of("helper")
    assert (len(other), other.page(TENANT, after=None, limit=10)) == (0, ([], False)), "it is not listed as live"

    async def promote() -> None:
        await rolled.end((HELPER, None))

    source.between = promote
    await rolled.live(compiled("somebody"))
    await other.refresh()
    assert other.find(TENANT, "helper").side == "live"
    await other.refresh()
    assert other.find(TENANT, "helper").side == "live" and gone == []
    await third.refresh()
    assert third.find(TENANT, "helper").side == "live"
    await rolled.catalogue.delete_agents(TENANT, ["helper"])
    await other.refresh()
    with pytest.raises(AgentNotFound):
        other.find(TENANT, "helper")
    await rolled.roll((HELPER, None))
    await other.refresh()
    assert other.find(TENANT, "helper").side == "green", "it was deleted before"
