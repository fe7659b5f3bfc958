"""The node agent's end of a zygote: ask for forks over a socket pair, hear of forks and exits.

Replies are read by one thread for each zygote (a handful) and handed to the event loop, since descriptors travel by
`sendmsg`, which asyncio's streams don't offer. The protocol is `chimera_host.zygote`'s.
"""

import array
import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from chimera.platform.errors import HostStartFailed
from chimera_host.config import HostConfig
from chimera_host.contract.zygote import Reply

PRELOAD_TIMEOUT = 120.0
FORK_TIMEOUT = 20.0


class Zygote:
    """A warm parent of one runtime environment. `on_exit` hears (host id, wait status) of each child that ended."""

    def __init__(self, framework: str, on_exit: Callable[[str, int], None]) -> None:
        """Nothing runs before `start`; made inside a running event loop."""
        self._framework = framework
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[int] = self._loop.create_future()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._children: set[str] = set()
        self._stuck = False
        self._channel: socket.socket | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, python: Path, environment: Mapping[str, str], log: Path) -> None:
        """Start it and return at once; `fork` waits until it is warm."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await self._spawn(theirs, python, environment, log)
        except BaseException:
            self._channel.close()
            self._channel = None
            raise
        threading.Thread(
            target=self._read, args=(self._channel,), name=f"zygote-{self._framework}", daemon=True
        ).start()

    async def _spawn(self, theirs: socket.socket, python: Path, environment: Mapping[str, str], log: Path) -> None:
        with theirs, log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                str(python),
                *("-m", "chimera_host", "zygote", "--framework", self._framework, f"--control-fd={theirs.fileno()}"),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs, listens, and has not failed to answer in time."""
        return self.runs and self._channel is not None and not self._stuck

    @property
    def runs(self) -> bool:
        """Whether the process is there, stuck or not."""
        return self.process is not None and self.process.returncode is None

    async def warm(self) -> None:
        """Wait until it has imported its framework."""
        try:
            async with asyncio.timeout(PRELOAD_TIMEOUT):
                await asyncio.shield(self._ready)
        except TimeoutError:
            self._stuck = True
            if self.process is not None and self.runs:
                self.process.kill()  # it has no children yet
            raise self._failed(f"was not warm after {PRELOAD_TIMEOUT:.0f} s") from None

    async def fork(self, config: HostConfig, descriptors: tuple[int, int, int]) -> int:
        """Fork a host with these descriptors (listening socket, log, lifeline); its process id."""
        await self.warm()
        forked: asyncio.Future[int] = self._loop.create_future()
        self._forks[config.host] = forked
        request = {"op": "fork", "id": config.host, "config": msgspec.to_builtins(config)}
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            if self._channel is None:
                raise self._failed("has hung up")
            self._channel.sendmsg([msgspec.json.encode(request) + b"\n"], rights)
            async with asyncio.timeout(FORK_TIMEOUT):
                return await forked
        except TimeoutError:
            self._stuck = True
            raise self._failed(f"did not fork in {FORK_TIMEOUT:.0f} s") from None
        except OSError as error:
            raise self._failed(str(error)) from error
        finally:
            self._forks.pop(config.host, None)

    async def close(self) -> None:
        """Hang up: the zygote ends its children and itself."""
        if self._channel is not None:
            self._channel.shutdown(socket.SHUT_RDWR)
        if self.process is None:
            return
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def _read(self, channel: socket.socket) -> None:
        pending = b""
        while True:
            try:
                data = channel.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            self._post(self._heard, [msgspec.json.decode(line, type=Reply) for line in lines])
        self._post(self._hung_up)

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        # The loop may be closed when the last zygote hangs up; nobody is left to hear of it then.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _heard(self, replies: list[Reply]) -> None:
        for reply in replies:
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        name = reply.id or ""
        match reply.op:
            case "ready":
                self._resolve(self._ready, reply.pid or 0)
            case "forked":
                self._children.add(name)
                if name in self._forks:
                    self._resolve(self._forks[name], reply.pid or 0)
            case "failed":
                if name in self._forks and not self._forks[name].done():
                    self._forks[name].set_exception(self._failed(reply.error or "failed without a word"))
            case "exited":
                self._children.discard(name)
                self._on_exit(name, reply.status or 0)

    def _hung_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for waiting in (self._ready, *self._forks.values()):
            if not waiting.done():
                waiting.set_exception(self._failed("ended"))
                waiting.exception()  # somebody may never have waited for it
        # Its children die with it; nobody is left to tell their status.
        for name in tuple(self._children):
            self._children.discard(name)
            self._on_exit(name, 9)

    @staticmethod
    def _resolve(future: "asyncio.Future[int]", value: int) -> None:
        if not future.done():
            future.set_result(value)

    def _failed(self, what: str) -> HostStartFailed:
        return HostStartFailed(
            f"the warm parent of {self._framework} hosts {what}",
            next_step=f"see `chimera logs --process zygote-{self._framework}`",
            retry_after=1,
        )
