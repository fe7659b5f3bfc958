"""A gateway and a control plane as processes, as a caller meets them: one listener, one key."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.gateway_config import GatewayConfig, ModelConfig


class Platform:
    """Both processes. `url` and `key` are what a caller knows."""

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self.settings = settings or {}
        self.key = secrets.token_urlsafe(32)
        self.url = ""
        self.http: aiohttp.ClientSession
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        for name, text in (("key", self.key), ("secret", secrets.token_urlsafe(32))):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o600)
        places = {"database": str(self.folder / "db"), "node_socket": str(self.folder / "node")}
        await self._run("control_plane", ControlPlaneConfig(socket=str(self.folder / "cp"), **places))
        read, write = os.pipe()
        config = GatewayConfig(
            home=str(self.folder),
            key_file=str(self.folder / "key"),
            token_secret_file=str(self.folder / "secret"),
            control_plane_socket=str(self.folder / "cp"),
            port=0,
            internal_socket=str(self.folder / "int"),
            models={"default": ModelConfig(provider="scripted")},
            drain=1.0,
            ready_fd=write,
            settings=self.settings,
            **places,
        )
        await self._run("gateway", config, write)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            line = await asyncio.wait_for(asyncio.to_thread(file.readline), 120)
        self.url = msgspec.json.decode(line)["public"]
        self.http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.key}"})
        for _ in range(6_000):
            if (await self.ask("GET", "/v1/status"))[0] == 200:
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(self.log("control_plane"))

    async def _run(self, name: str, config: msgspec.Struct, *descriptors: int) -> None:
        file = self.folder / f"{name}.json"
        file.write_bytes(msgspec.json.encode(config))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", f"chimera.bootstrap.{name}", "--config", str(file)),
                pass_fds=descriptors,
                stdout=log,
                stderr=log,
            )

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Status, headers and the body, as data where it is JSON."""
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.request(method, self.url + path, headers=headers, **data) as answer:
            content = await answer.read()
            is_json = content and answer.content_type.endswith("json") and "ndjson" not in answer.content_type
            return answer.status, answer.headers, msgspec.json.decode(content) if is_json else content

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def end(self) -> None:
        if hasattr(self, "http"):
            await self.http.close()
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
def settings() -> dict[str, dict[str, Any]]:
    """Settings of the gateway beside the tests' own; a module may say others."""
    return {}


@pytest.fixture
async def platform(tmp_path: Path, settings: dict[str, dict[str, Any]]) -> AsyncIterator[Platform]:
    made = Platform(tmp_path, settings)
    try:
        await made.start()
        yield made
    finally:
        await made.end()
