"""Two gateways on one database, as processes: one delivers, the other takes over when it is killed; nothing is lost.

Writers go on through both and write down what was acknowledged; a receiver that fails now and then writes down what
arrived; the checker holds one against the other. `CHIMERA_TEST_KILLS` sets how often a gateway is killed.
"""

import asyncio
import os
import random
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig
from chimera.testing.deliveries import Place, repeats, violations
from chimera.testing.receivers import Got, Receiver

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "2"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
SPACES = 4
PATIENCE = 120.0
EVENTS = {
    **{"poll": 0.05, "save": 0.05, "lease": 1.0, "allow": "127.0.0.0/8", "backoff": 0.05, "backoff_cap": 0.2},
    "attempts": 100,
}

pytestmark = pytest.mark.slow


class GatewayProcess:
    """One gateway, which can be killed and started again on its port."""

    def __init__(self, folder: Path, database: str, shared: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.url = ""
        self.process: asyncio.subprocess.Process | None = None
        for name in ("key", "secret"):
            (folder / name).write_text((shared / name).read_text())
            (folder / name).chmod(0o600)
        self.config = GatewayConfig(
            home=str(folder),
            key_file=str(folder / "key"),
            token_secret_file=str(folder / "secret"),
            database=database,
            control_plane_socket=str(folder / "cp"),
            node_socket=str(folder / "node"),
            port=0,
            internal_socket=str(folder / "int"),
            models={"default": ModelConfig(provider="scripted")},
            drain=1.0,
            settings={"events": {**EVENTS, "key": str(shared / "webhooks")}},
        )

    async def start(self) -> None:
        read, write = os.pipe()
        config = msgspec.structs.replace(self.config, ready_fd=write)
        (self.folder / "config.json").write_bytes(msgspec.json.encode(config))
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "chimera.bootstrap.gateway", "--config", str(self.folder / "config.json")),
                pass_fds=(write,),
                stdout=log,
                stderr=log,
            )
        os.close(write)
        with os.fdopen(read, "rb") as file:
            line = await asyncio.wait_for(asyncio.to_thread(file.readline), PATIENCE)
        assert line, (self.folder / "log").read_text()[-2_000:]
        self.url = msgspec.json.decode(line)["public"]

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class World:
    """Two gateways, what their callers were told, and what a receiver got."""

    def __init__(self, gateways: list[GatewayProcess], key: str, receiver: Receiver) -> None:
        self.gateways = gateways
        self.receiver = receiver
        self.headers = {"Authorization": f"Bearer {key}"}
        self.acknowledged: list[Place] = []
        self.arrived: list[Place] = []
        self.refused: list[str] = []
        self.http: aiohttp.ClientSession
        self.secret = ""

    async def ask(self, gateway: int, method: str, path: str, body: Any) -> tuple[int, Any]:
        url = f"{self.gateways[gateway].url}/v1/tenants/default/{path}"
        async with self.http.request(method, url, json=body, headers=self.headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def begin(self) -> None:
        body = {"name": "shop", "url": self.receiver.url, "types": ["space.written"]}
        status, made = await self.ask(0, "POST", "subscriptions", body)
        assert status == 201, made
        self.secret = made["secret"]
        for number in range(SPACES):
            declared = {"declared": {"access": {"*": "write"}}, "version": 0}
            status, made = await self.ask(0, "PUT", f"spaces/s{number}", declared)
            assert status == 200, made

    async def write(self, space: int, gateway: int) -> None:
        with suppress(aiohttp.ClientError, TimeoutError):
            body = {"write": [{"key": "k", "value": secrets.token_hex(4)}]}
            status, answer = await self.ask(gateway, "POST", f"spaces/s{space}/entries", body)
            if status == 200:
                self.acknowledged.append((f"spaces/s{space}", int(answer["version"])))

    async def writer(self, space: int) -> None:
        turn = space
        while True:
            turn += 1
            await self.write(space, turn % 2)
            await asyncio.sleep(0.1)

    async def answer(self, got: Got) -> web.Response:
        try:
            Webhook(self.secret).verify(got.body, got.headers)
        except WebhookVerificationError as error:
            self.refused.append(repr(error))
        if got.number % 7 == 0:
            return web.Response(status=500)
        self.arrived.append((got.event["subject"], int(got.event["data"]["version"])))
        return web.Response()

    async def all_there(self) -> None:
        wanted = set(self.acknowledged)
        await self.receiver.until(lambda _: wanted <= set(self.arrived), PATIENCE)


@pytest.fixture
async def world(tmp_path: Path, database_name: str) -> AsyncIterator[World]:
    key = secrets.token_urlsafe(32)
    for name, text in (("key", key), ("secret", secrets.token_urlsafe(32)), ("webhooks", secrets.token_urlsafe(32))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    gateways = [GatewayProcess(tmp_path / name, database_name, tmp_path) for name in ("one", "other")]

    async with Receiver() as receiver:
        made = World(gateways, key, receiver)
        receiver.answer = made.answer
        timeout = aiohttp.ClientTimeout(total=20.0, sock_connect=2.0)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            made.http = http
            try:
                await asyncio.gather(*(one.start() for one in gateways))
                await made.begin()
                yield made
            finally:
                await asyncio.gather(*(one.kill() for one in gateways))


async def test_one_delivers_and_the_other_takes_over_when_it_is_killed(world: World) -> None:
    for number in range(60):
        await world.write(number % SPACES, number % 2)
    assert len(world.acknowledged) == 60
    await world.all_there()
    assert violations(world.acknowledged, world.arrived) == []
    assert repeats(world.arrived) == 0, "two delivered at once, though nobody died"

    chance = random.Random(SEED)
    writers = [asyncio.create_task(world.writer(space)) for space in range(SPACES)]
    for kill in range(KILLS):
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        victim = world.gateways[kill % 2]
        await victim.kill()
        before = len(world.arrived)
        await world.receiver.until(lambda _, before=before: len(world.arrived) > before, PATIENCE)  # type: ignore[misc]
        await victim.start()
    for task in writers:
        task.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    await world.all_there()

    assert violations(world.acknowledged, world.arrived) == []
    assert len(world.acknowledged) > 60 + KILLS
    assert world.refused == []
