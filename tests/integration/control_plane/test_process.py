"""The control plane as a process: starting, telling the node agent, ending."""

import asyncio
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import msgspec
import pytest
from aiohttp import web
from sqlalchemy import Connection, func, select, text

from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.leases import lease
from chimera.adapters.storage.schema.state import stored_answer
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.platform.model import CellSpec
from chimera.testing.definitions import definition


class Node:
    """A node agent that remembers which cells it was told to keep."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[list[CellSpec]] = asyncio.Queue()

    async def put_cells(self, request: web.Request) -> web.Response:
        self.told.put_nowait(msgspec.json.decode(await request.read(), type=list[CellSpec]))
        return web.Response(status=204)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    made = Node()
    app = web.Application()
    app.router.add_put("/v1/cells", made.put_cells)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "node.sock")).start()
    yield made
    await runner.cleanup()


class Process:
    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession, lifeline: BinaryIO) -> None:
        self.process = process
        self.session = session
        self.lifeline = lifeline

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, f"http://c{path}", json=body) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json()

    async def until_ready(self) -> None:
        async with asyncio.timeout(120):
            while True:
                assert self.process.returncode is None
                try:
                    await self.ask("GET", "/readyz")
                    return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)


@asynccontextmanager
async def control_plane(folder: Path, **groups: Any) -> AsyncIterator[Process]:
    config = ControlPlaneConfig(
        database=str(folder / "chimera.db"),
        socket=str(folder / "control.sock"),
        node_socket=str(folder / "node.sock"),
        **groups,
    )
    file = folder / "config.json"
    file.write_bytes(msgspec.json.encode(config))
    read, write = os.pipe()
    command = ["-m", "chimera.bootstrap.control_plane", "--config", str(file), "--lifeline-fd", str(read)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, pass_fds=(read,), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    os.close(read)
    lifeline = os.fdopen(write, "wb", buffering=0)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(config.socket)) as session:
            yield Process(process, session, lifeline)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        lifeline.close()


async def test_it_migrates_serves_keeps_and_ends_when_told(tmp_path: Path, node: Node) -> None:
    async with control_plane(tmp_path) as running:
        await running.until_ready()
        assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
        assert await asyncio.wait_for(node.told.get(), 60) == []

        kept = definition("anna", scaling={"min_instances": 2})
        body = {"items": [{"definition": kept}, {"definition": definition("bert")}]}
        assert (await running.ask("POST", "/v1/tenants/default/apply", body))["created"] == 2
        (spec,) = await asyncio.wait_for(node.told.get(), 60)
        assert spec.min_hosts == 2

        await running.ask("DELETE", "/v1/tenants/default/agents/anna")
        assert await asyncio.wait_for(node.told.get(), 60) == []

        running.process.terminate()
        output, _ = await asyncio.wait_for(running.process.communicate(), 60)
        assert running.process.returncode == 0, output
        assert not (tmp_path / "control.sock").exists()
        lines = [json.loads(line) for line in output.splitlines()]
        assert any("ready" in line["message"] for line in lines)
        assert any("ended" in line["message"] for line in lines)

    async with control_plane(tmp_path) as again:
        await again.until_ready()
        assert (await again.ask("GET", "/v1/status"))["agents"] == 1


async def test_it_goes_on_while_the_node_agent_is_away(tmp_path: Path) -> None:
    async with control_plane(tmp_path) as running:
        await running.until_ready()
        body = {"items": [{"definition": definition("anna", scaling={"min_instances": 1})}]}
        for _ in range(3):
            await running.ask("POST", "/v1/tenants/default/apply", body)
        assert running.process.returncode is None


async def test_it_ends_with_its_parent(tmp_path: Path, node: Node) -> None:
    async with control_plane(tmp_path) as running:
        await running.until_ready()
        running.lifeline.close()
        assert await asyncio.wait_for(running.process.wait(), 60) != 0


async def test_after_a_kill_it_serves_again_on_the_same_socket(tmp_path: Path, node: Node) -> None:
    async with control_plane(tmp_path) as running:
        await running.until_ready()
        body = {"items": [{"definition": definition("anna")}]}
        await running.ask("POST", "/v1/tenants/default/apply", body)
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()
    async with control_plane(tmp_path) as again:
        await again.until_ready()
        assert (await again.ask("GET", "/v1/status"))["agents"] == 1


async def test_a_newer_database_is_refused_plainly(tmp_path: Path) -> None:
    database = open_database(tmp_path / "chimera.db")
    await migrate(database)
    later = text("UPDATE alembic_version SET version_num = '9999'")
    await database.write(lambda connection: connection.execute(later).rowcount)
    database.close()

    async with control_plane(tmp_path) as running:
        output, _ = await asyncio.wait_for(running.process.communicate(), 60)

    assert running.process.returncode == 1
    last = json.loads(output.splitlines()[-1])
    assert "9999" in last["error"]
    assert last["next_step"]
    assert b"Traceback" not in output


async def test_upkeep_that_is_killed_in_the_middle_loses_nothing_kept_and_counts_right(
    tmp_path: Path, node: Node
) -> None:
    old, kept = 20_000, 500
    database = open_database(tmp_path / "chimera.db")
    await migrate(database)
    row = {"tenant": "t", "run": "r", "digest": b"d", "answer": b"a" * 200, "created": 0.0}

    def fill(connection: Connection) -> None:
        ends = [0.0] * old + [time.time() + 86_400] * kept
        connection.execute(
            stored_answer.insert(), [{**row, "key": f"k{n}", "expires": at} for n, at in enumerate(ends)]
        )

    await database.write(fill)
    counting = select(func.count()).select_from(stored_answer)
    left = old + kept
    slow = {"batch": 0.001, "share": 0.05}

    async def rows() -> int:
        return await database.read(lambda connection: int(connection.execute(counting).scalar() or 0))

    async def of_answers(running: Process) -> dict[str, Any]:
        return next(one for one in (await running.ask("GET", "/v1/upkeep"))["kinds"] if one["kind"] == "answers")

    for _ in range(3):
        async with control_plane(tmp_path, upkeep=slow) as running:
            await running.until_ready()
            async with asyncio.timeout(60):
                while await rows() >= left:  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(0.02)
            running.process.kill()
        # Its lease would end in a quarter of a minute.
        await database.write(lambda connection: connection.execute(lease.update().values(expires=0.0)).rowcount)
        left = await rows()
        assert kept < left, "it was killed in the middle"
    async with control_plane(tmp_path) as running:
        await running.until_ready()
        async with asyncio.timeout(90):
            while (await of_answers(running))["finished"] is None:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.1)
        told = await of_answers(running)
        async with running.session.get("http://c/metrics") as answer:
            page = await answer.text()
    assert await rows() == kept == told["rows"]
    assert told["removed"] == old, "every row was counted once, whoever was killed"
    assert f'chimera_upkeep_removed_total{{kind="answers"}} {old}.0' in page
    assert f'chimera_upkeep_rows{{kind="answers"}} {kept}.0' in page
    await asyncio.to_thread(database.close)
