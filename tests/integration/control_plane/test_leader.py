"""Three control planes on one PostgreSQL server and one cluster: one of them keeps cells, and any may be lost."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yaml
from aiohttp import web

from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.leases import lease
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.testing.cluster import FakeCluster
from chimera.testing.definitions import definition
from chimera.testing.postgresql import PostgreSQLServer

PATIENCE = 120.0


class Plane:
    """A control plane as a process. What it asks the cluster it asks with a token of its own."""

    def __init__(self, folder: Path, number: int, database: str, cluster: str) -> None:
        self.token = f"plane-{number}"
        self.socket = str(folder / f"{number}.sock")
        kubeconfig = folder / f"{number}.kubeconfig"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "clusters": [{"name": "it", "cluster": {"server": cluster}}],
                    "users": [{"name": "it", "user": {"token": self.token}}],
                }
            )
        )
        self.config = folder / f"{number}.json"
        knative = {"namespace": "cells", "poll": 0.05}
        config = ControlPlaneConfig(database=database, socket=self.socket, kubeconfig=str(kubeconfig), knative=knative)
        self.config.write_bytes(msgspec.json.encode(config))
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "chimera.bootstrap.control_plane", "--config", str(self.config)]
        with self.config.with_suffix(".log").open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket)) as session,
            session.request(method, f"http://c{path}", json=body) as answer,
        ):
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async def leads(self) -> bool:
        """What its metrics say."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(self.socket)) as session,
            session.get("http://c/metrics") as answer,
        ):
            return "chimera_control_plane_leading 1.0" in (await answer.text()).splitlines()

    async def ready(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.ask("GET", "/readyz")
                    return
                except (aiohttp.ClientError, AssertionError):
                    assert self.process is not None and self.process.returncode is None
                    await asyncio.sleep(0.05)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()


class Seen:
    """Who asked the cluster for what."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.writers: list[str] = []
        self.askers: set[str] = set()
        cluster.faults.append(self._look)

    def _look(self, request: web.BaseRequest) -> None:
        who = request.headers["Authorization"].removeprefix("Bearer ")
        self.askers.add(who)
        if request.method in ("PATCH", "DELETE"):
            self.writers.append(who)

    async def cells(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.cluster.objects("services")) < count:  # noqa: ASYNC110 - other processes' doing
                await asyncio.sleep(0.02)


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    async with FakeCluster() as cluster:
        yield Seen(cluster)


@pytest.fixture
async def planes(tmp_path: Path, seen: Seen, postgresql_server: PostgreSQLServer) -> AsyncIterator[list[Plane]]:
    url = postgresql_server.new_database()
    made = [Plane(tmp_path, number, url, seen.cluster.url) for number in range(3)]
    database = open_database(url)
    try:
        yield made
    finally:
        for one in made:
            await one.end()
        await asyncio.to_thread(database.close)
        postgresql_server.drop_database(url)


async def expire(url: str) -> None:
    """What a quarter of a minute does: the leases of who is gone end."""
    database = open_database(url)
    await database.write(lambda connection: connection.execute(lease.update().values(expires=0.0)).rowcount)
    await asyncio.to_thread(database.close)


@pytest.mark.slow
async def test_one_of_three_keeps_cells_and_when_it_is_killed_another_does(planes: list[Plane], seen: Seen) -> None:
    """The first makes the database; all take changes; the cluster hears from one at a time."""
    for one in planes:
        await one.start()
    await asyncio.gather(*(one.ready() for one in planes))
    url = msgspec.json.decode(planes[0].config.read_bytes())["database"]
    alive = list(planes)
    frameworks = ["LangGraph", "AutoGen", "CrewAI"]
    leaders: list[str] = []
    for number, framework in enumerate(frameworks, 1):
        seen.askers.clear()
        seen.writers.clear()
        applied = definition(f"agent-{number}", specification={"framework": framework})
        # Whoever is asked, and it needn't be the one that keeps cells.
        await alive[-1].ask("POST", "/v1/tenants/default/apply", {"items": [{"definition": applied}]})
        await seen.cells(number)
        (leader,) = set(seen.writers)
        assert seen.writers == [leader], "one write for one cell"
        assert leader not in leaders
        assert [one.token for one in alive if await one.leads()] == [leader]
        leaders.append(leader)
        if number == len(frameworks):
            break
        (lost,) = [one for one in alive if one.token == leader]
        await lost.kill()
        alive.remove(lost)
        await expire(url)
    for one in alive:
        assert (await one.ask("GET", "/v1/tenants/default/agents"))["agents"]
