"""A host as a real process, started in any environment's Python, and a small client for it.

    async with FakePlatform() as platform, HostProcess(platform, "function") as host:
        revision = platform.add(document("agent"))
        answer = await host.invoke(invoke_request(...))

The process has the pipes that the node agent gives it: a listening socket, a lifeline, and a pipe for its log.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

import chimera_host
from chimera_host.config import HostConfig
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.call import ENCODER, RESPONSE_DECODER, InvokeRequest, InvokeResponse
from chimera_host.contract.problem import Problem, RemoteProblem
from chimera_host.testing.platform import FakePlatform

KEY = "host-key"
START_TIMEOUT = 120.0


def listen() -> socket.socket:
    """A listening socket on a free port of 127.0.0.1, as the node agent binds it."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    bound.listen(128)
    return bound


def host_config(platform_url: str, framework: FrameworkName, work_dir: Path, **fields: Any) -> HostConfig:
    """Settings of a host under test."""
    fields.setdefault("host", "host-1")
    fields.setdefault("cell", "cell-1")
    fields.setdefault("platform_token", "platform-token")
    fields.setdefault("host_key", KEY)
    fields.setdefault("black_box", str(work_dir / "black-box"))
    return HostConfig(framework=framework, platform_url=platform_url, work_dir=str(work_dir), **fields)


def environment() -> dict[str, str]:
    """What a host's process gets from ours: nothing of the test run's own settings, and the host's source."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(chimera_host.__file__).parent.parent)}


class HostProcess:
    """A running `python -m chimera_host serve`; use as an asynchronous context manager.

    `python` chooses the environment, `command` another program with the same contract; `fields` are fields of
    `HostConfig`. After the end, `returncode` is the exit code (negative: the signal) and `log_text()` what it logged.
    """

    def __init__(
        self,
        platform: FakePlatform,
        framework: FrameworkName = "function",
        *,
        python: str = sys.executable,
        command: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> None:
        """Prepare a host of `framework` behind `platform`."""
        self._platform = platform
        self._framework: FrameworkName = framework
        self._command = tuple(command or (python, "-m", "chimera_host", "serve"))
        self._environ = {**environment(), **(environ or {})}
        self._fields = fields
        self._folder = tempfile.TemporaryDirectory(prefix="chimera-host-")
        self.folder = Path(self._folder.name)
        self._log = self.folder / "log"
        self.client: HostClient
        self.process: asyncio.subprocess.Process
        self._lifeline = -1

    async def __aenter__(self) -> Self:
        """Start it and wait until it is ready."""
        config = host_config(self._platform.url, self._framework, self.folder, **self._fields)
        bound = listen()
        config_read, config_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        os.write(config_write, msgspec.json.encode(config))
        os.close(config_write)
        fds = (config_read, bound.fileno(), lifeline_read)
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                *(f"--config-fd={fds[0]}", f"--listen-fd={fds[1]}", f"--lifeline-fd={fds[2]}"),
                pass_fds=fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
            )
        os.close(config_read)
        os.close(lifeline_read)
        port = bound.getsockname()[1]
        bound.close()
        self.client = HostClient(f"http://127.0.0.1:{port}", config.host_key)
        try:
            await self.client.until_ready(START_TIMEOUT)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, gently if it bears that."""
        await self.client.close()
        self.cut_lifeline()
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def black_box(self) -> Path:
        """Its black box."""
        return self.folder / "black-box"

    async def invoke(self, request: InvokeRequest, **headers: str) -> InvokeResponse:
        """One call, whole."""
        return await self.client.invoke(request, **headers)

    def terminate(self) -> None:
        """Ask it to drain."""
        self.process.send_signal(signal.SIGTERM)

    def cut_lifeline(self) -> None:
        """Close the pipe that tells it that its parent lives."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def ended(self, within: float = 60.0) -> int:
        """Wait for its end; the exit code."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    def log_text(self) -> str:
        """All it wrote."""
        return self._log.read_text(errors="replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """Its log records."""
        return [msgspec.json.decode(line) for line in self.log_text().splitlines() if line.startswith("{")]


class HostClient:
    """Speaks the host's HTTP contract."""

    def __init__(self, url: str, key: str = KEY) -> None:
        """A client of the host at `url`."""
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def until_ready(self, within: float) -> None:
        """Wait for the readiness probe."""
        async with asyncio.timeout(within):
            while True:
                status, _ = await self.get("/readyz")
                if status == 200:
                    return
                await asyncio.sleep(0.02)

    async def get(self, path: str, *, key: bool = True) -> tuple[int, str]:
        """A status and a body."""
        async with self._session.get(self.url + path, headers=self.headers if key else None) as answer:
            return answer.status, await answer.text()

    async def request(self, method: str, path: str, data: bytes, **headers: str) -> tuple[int, str]:
        """Anything: a status and a body."""
        async with self._session.request(
            method, self.url + path, data=data, headers={**self.headers, **headers}
        ) as answer:
            return answer.status, await answer.text()

    async def invoke(self, request: InvokeRequest, **headers: str) -> InvokeResponse:
        """One call, whole; a problem is raised as `RemoteProblem`."""
        status, body = await self.request("POST", "/v1/invoke", ENCODER.encode(request), **headers)
        if status != 200:
            raise RemoteProblem(msgspec.json.decode(body, type=Problem))
        return RESPONSE_DECODER.decode(body)

    async def stream(self, request: InvokeRequest) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """One call as events; comments come as the event `comment`. Closing the iterator cancels the call."""
        data = ENCODER.encode(msgspec.structs.replace(request, stream=True))
        async with self._session.post(self.url + "/v1/invoke", data=data, headers=self.headers) as answer:
            if answer.status != 200:
                raise RemoteProblem(msgspec.json.decode(await answer.read(), type=Problem))
            event = ""
            async for raw in answer.content:
                line = raw.decode().rstrip("\n")
                if line.startswith(":"):
                    yield "comment", {}
                elif line.startswith("event: "):
                    event = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield event, msgspec.json.decode(line.removeprefix("data: "))

    async def cancel(self, call: str) -> int:
        """Cancel a call; the status."""
        return (await self.request("DELETE", f"/v1/calls/{call}", b""))[0]

    async def loaded(self) -> dict[str, Any]:
        """The report of what is loaded."""
        return msgspec.json.decode((await self.get("/v1/loaded"))[1], type=dict[str, Any])
