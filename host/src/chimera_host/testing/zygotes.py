"""A zygote as a real process, driven as the node agent drives it.

async with FakePlatform() as platform, ZygoteProcess("autogen", python=...) as zygote:
    host = await zygote.fork(host_config(platform.url, "autogen", folder))
    answer = await host.client.invoke(...)
"""

import array
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from chimera_host.config import HostConfig
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.zygote import Reply
from chimera_host.testing.process import START_TIMEOUT, HostClient, environment, listen


@dataclass(slots=True, kw_only=True)
class ForkedHost:
    """A host that a zygote forked."""

    id: str
    pid: int
    client: HostClient
    log: Path
    lifeline: int

    def cut_lifeline(self) -> None:
        """Close the pipe that tells it that its parent lives."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1


class ZygoteProcess:
    """A running `python -m chimera_host zygote`; use as an asynchronous context manager. `ready` is its first reply."""

    def __init__(
        self, framework: FrameworkName, *, python: str = sys.executable, environ: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a zygote of `framework` in the environment of `python`."""
        self._framework = framework
        self._python = python
        self._environ = {**environment(), **(environ or {})}
        self._channel: socket.socket
        self._reader: asyncio.StreamReader
        self._hosts: list[ForkedHost] = []
        self.process: asyncio.subprocess.Process
        self.ready: Reply

    async def __aenter__(self) -> Self:
        """Start it and wait until it is warm."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.process = await asyncio.create_subprocess_exec(
            self._python,
            *("-m", "chimera_host", "zygote", "--framework", self._framework, f"--control-fd={theirs.fileno()}"),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environ,
        )
        theirs.close()
        # Replies are read from a duplicate: requests must go through sendmsg, which streams don't offer.
        self._reader, self._writer = await asyncio.open_connection(sock=self._channel.dup())
        try:
            self.ready = await self.reply(START_TIMEOUT)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it and its hosts."""
        for host in self._hosts:
            host.cut_lifeline()
            await host.client.close()
        self.hang_up()
        self._writer.close()
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        finally:
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    self.process.send_signal(signal.SIGKILL)
                await self.process.wait()

    def hang_up(self) -> None:
        """Close the control socket, as the death of the node agent does."""
        if self._channel.fileno() >= 0:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel.close()

    async def reply(self, within: float = 10.0) -> Reply:
        """The next reply."""
        async with asyncio.timeout(within):
            line = await self._reader.readline()
        if not line:
            raise ConnectionError("the zygote closed its control socket; its log says why")
        return msgspec.json.decode(line, type=Reply)

    def send(self, request: Mapping[str, Any], descriptors: tuple[int, ...]) -> None:
        """Send a request as it is."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._channel.setblocking(True)
        self._channel.sendmsg([msgspec.json.encode(request) + b"\n"], rights)
        self._channel.setblocking(False)

    async def fork(self, config: HostConfig) -> ForkedHost:
        """Fork a host by `config` and wait until it is ready."""
        bound = listen()
        port = bound.getsockname()[1]
        lifeline_read, lifeline_write = os.pipe()
        log = Path(config.work_dir) / f"{config.host}.log"
        with log.open("wb") as file:
            self.send(
                {"op": "fork", "id": config.host, "config": msgspec.to_builtins(config)},
                (bound.fileno(), file.fileno(), lifeline_read),
            )
            answer = await self.reply()
        bound.close()
        os.close(lifeline_read)
        if answer.op != "forked" or answer.pid is None:
            os.close(lifeline_write)
            raise RuntimeError(f"the zygote answered {answer}")
        client = HostClient(f"http://127.0.0.1:{port}", config.host_key)
        host = ForkedHost(id=config.host, pid=answer.pid, client=client, log=log, lifeline=lifeline_write)
        self._hosts.append(host)
        await client.until_ready(START_TIMEOUT)
        return host
