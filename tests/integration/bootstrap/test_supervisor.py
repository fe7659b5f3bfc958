"""The supervisor in this process: what its event loop alone doesn't keep alive."""

import asyncio
import dataclasses
import gc
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import uvloop

from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import open_of_settings
from chimera.adapters.substrates.local.children import Child
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.gateway_config import GatewayConfig
from chimera.bootstrap.supervisor import Supervisor, parser
from chimera.platform.settings import NodeSettings
from chimera.testing.cells import until
from chimera_host.contract.problem import ProblemError

# Holds a process back until there is the file that is its first argument.
HELD = 'until [ -e "$0" ]; do sleep 0.05; done; exec "$@"'


def of_home(home: Path) -> Supervisor:
    return Supervisor(parser().parse_args(["--home", str(home), "--port", "0", "--model", "scripted"]))


def has_a_database(home: Path) -> None:
    database = open_of_settings(NodeSettings(), home, {})
    try:
        asyncio.run(migrate(database))
    finally:
        database.close()


async def status_of(where: dict[str, Any], method: str, path: str, body: Any = None) -> int:
    key = (Path(where["home"]) / "chimera.key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    session = aiohttp.ClientSession(where["public"], headers=headers)
    async with session, session.request(method, path, json=body) as got:
        return got.status


def test_the_node_agent_still_listens_after_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")

    async def look() -> int:
        supervisor = of_home(tmp_path)
        try:
            await supervisor.start()
            gc.collect()
            connector = aiohttp.UnixConnector(str(supervisor.socket))
            async with aiohttp.ClientSession(connector=connector) as session, session.get("http://node/livez") as got:
                return got.status
        finally:
            await supervisor.stop()

    assert uvloop.run(look()) == 200
    assert not (tmp_path / "run" / "endpoint.json").exists()


def test_a_gateway_that_always_ends_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")
    made = Supervisor._gateway_config

    def without_its_key(self: Supervisor, *given: Any) -> GatewayConfig:
        return msgspec.structs.replace(made(self, *given), key_file=str(tmp_path / "nowhere"))

    monkeypatch.setattr(Supervisor, "_gateway_config", without_its_key)

    async def start() -> None:
        supervisor = of_home(tmp_path)
        try:
            await supervisor.start()
        finally:
            await supervisor.stop()

    with pytest.raises(ProblemError) as refused:
        uvloop.run(start())
    assert "the gateway ended each time it was started: " in refused.value.detail


def test_it_is_up_once_changes_can_be_made_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")
    has_a_database(tmp_path)  # so that the gateway has nothing to wait for
    free = tmp_path / "free"
    keep = Supervisor._keep

    def held(self: Supervisor, child: Child) -> Child:
        if child.spec.name == "control-plane":
            run = child.spec.arguments
            child.spec = dataclasses.replace(child.spec, arguments=lambda fd: ["sh", "-c", HELD, str(free), *run(fd)])
        return keep(self, child)

    monkeypatch.setattr(Supervisor, "_keep", held)

    async def look() -> int:
        supervisor = of_home(tmp_path)
        starting = asyncio.create_task(supervisor.start())
        try:
            gateway = tmp_path / "logs" / "gateway.jsonl"
            await until(lambda: starting.done() or (gateway.exists() and "gateway listens" in gateway.read_text()))
            assert not starting.done()
            free.touch()
            return await status_of(await starting, "POST", "/v1/tenants/default/check", {"sources": []})
        finally:
            await supervisor.stop()

    assert uvloop.run(look()) == 200


def test_it_is_up_for_calls_though_the_control_plane_always_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")
    has_a_database(tmp_path)
    made = Supervisor._control_plane_config

    def with_no_such_setting(self: Supervisor, ready_fd: int) -> ControlPlaneConfig:
        return msgspec.structs.replace(made(self, ready_fd), delivery={"no_such_setting": 1})

    monkeypatch.setattr(Supervisor, "_control_plane_config", with_no_such_setting)

    async def look() -> tuple[int, int]:
        supervisor = of_home(tmp_path)
        try:
            where = await supervisor.start()
            call = await status_of(where, "POST", "/v1/tenants/default/agents/nobody/invoke", {"input": "?"})
            return call, await status_of(where, "POST", "/v1/tenants/default/check", {"sources": []})
        finally:
            await supervisor.stop()

    assert uvloop.run(look()) == (404, 503)
    said = capfd.readouterr().err
    assert "agents can be called, but no change can be made: the control-plane ended each time it was started: " in said
    assert "no_such_setting" in said and str(tmp_path / "logs" / "control-plane.jsonl") in said
