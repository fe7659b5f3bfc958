"""The gateway as a process beside a control plane: starts on an empty home, says where it listens, ends cleanly."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig


class Processes:
    """A control plane and a gateway on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[asyncio.subprocess.Process] = []
        for name in ("key", "secret"):
            (folder / name).write_text(secrets.token_urlsafe(32))
            (folder / name).chmod(0o600)
        self.key = (folder / "key").read_text()

    async def start(self, name: str, config: msgspec.Struct, *descriptors: int, lifeline: int | None = None) -> Any:
        file = self.folder / f"{name}.json"
        file.write_bytes(msgspec.json.encode(config))
        arguments = ["-m", f"chimera.bootstrap.{name}", "--config", str(file)]
        if lifeline is not None:
            arguments.append(f"--lifeline-fd={lifeline}")
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, pass_fds=descriptors, stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    async def control_plane(self) -> Any:
        config = ControlPlaneConfig(
            database=str(self.folder / "db"), socket=str(self.folder / "cp"), node_socket=str(self.folder / "node")
        )
        return await self.start("control_plane", config)

    async def gateway(self, *, metrics_port: int = 0) -> tuple[Any, str, int]:
        """The process, its public URL, and our end of its lifeline."""
        ready_read, ready_write = os.pipe()
        lifeline_read, lifeline = os.pipe()
        config = GatewayConfig(
            home=str(self.folder),
            key_file=str(self.folder / "key"),
            token_secret_file=str(self.folder / "secret"),
            database=str(self.folder / "db"),
            control_plane_socket=str(self.folder / "cp"),
            node_socket=str(self.folder / "node"),
            port=0,
            internal_socket=str(self.folder / "int"),
            models={"default": ModelConfig(provider="scripted")},
            drain=1.0,
            metrics_port=metrics_port,
            ready_fd=ready_write,
        )
        process = await self.start("gateway", config, ready_write, lifeline_read, lifeline=lifeline_read)
        os.close(ready_write)
        os.close(lifeline_read)
        with os.fdopen(ready_read, "rb") as file:
            line = await asyncio.wait_for(asyncio.to_thread(file.readline), 120)
        return process, msgspec.json.decode(line)["public"], lifeline

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def end(self) -> None:
        for process in self.started:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
async def processes(tmp_path: Path) -> Any:
    made = Processes(tmp_path)
    yield made
    await made.end()


async def test_it_serves_and_ends_cleanly(processes: Processes) -> None:
    await processes.control_plane()
    gateway, url, lifeline = await processes.gateway()
    headers = {"Authorization": f"Bearer {processes.key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        for path in ("/readyz", "/metrics", "/v1/models", "/openapi.json"):
            async with http.get(url + path) as answer:
                assert answer.status == 200
        for _ in range(1_200):
            async with http.get(url + "/v1/status") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.05)
        assert answer.status == 200
    assert (processes.folder / "int").stat().st_mode & 0o077 == 0
    gateway.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(gateway.wait(), 60) == 0
    assert "gateway ended" in processes.log("gateway")
    os.close(lifeline)


async def test_its_metrics_have_a_port_of_their_own_where_it_is_told_so(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await processes.control_plane()
    gateway, _, lifeline = await processes.gateway(metrics_port=port)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.status == 200 and "chimera_gateway_calls_total" in await answer.text()
        for method, path in (("GET", "/v1/models"), ("POST", "/metrics"), ("GET", "/")):
            async with http.request(method, f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 404
    gateway.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(gateway.wait(), 60) == 0
    os.close(lifeline)


async def test_it_ends_with_its_parent(processes: Processes) -> None:
    await processes.control_plane()
    gateway, _, lifeline = await processes.gateway()
    os.close(lifeline)
    assert await asyncio.wait_for(gateway.wait(), 60) != 0


async def test_calls_go_on_while_the_control_plane_is_away(processes: Processes) -> None:
    control = await processes.control_plane()
    _, url, lifeline = await processes.gateway()
    control.kill()
    await control.wait()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {processes.key}"}) as http:
        async with http.get(url + "/v1/models") as answer:
            assert answer.status == 200
        async with http.get(url + "/v1/tenants/default/agents") as answer:
            assert answer.status == 503
            assert (await answer.json(content_type=None))["code"] == "control-plane-unavailable"
    os.close(lifeline)


async def test_wrong_settings_end_it_with_what_is_wrong(processes: Processes) -> None:
    config = GatewayConfig(
        home="/h",
        key_file="/nowhere",
        token_secret_file="/nowhere",
        database="/nowhere",
        control_plane_socket="/c",
        node_socket="/n",
    )
    process = await processes.start("gateway", config)
    assert await asyncio.wait_for(process.wait(), 60) == 78
    assert "key_file" in processes.log("gateway")
