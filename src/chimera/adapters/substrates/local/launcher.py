"""Starts and stops hosts as local processes: forked from a warm zygote, or started whole where there is no fork.

The listening socket is bound here and handed down, so a connection that comes before the host is ready waits in its
backlog instead of being refused. Every host holds one end of a pipe whose other end is this process (the lifeline):
when this process dies, however it dies, the pipe closes and the host ends.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.substrates.local import procfs
from chimera.adapters.substrates.local.limits import ControlGroups, bound_files
from chimera.adapters.substrates.local.nodejs import NodeProgram
from chimera.adapters.substrates.local.zygote import Zygote
from chimera.platform.errors import HostStartFailed, RuntimeMissing
from chimera.platform.model import CellSpec, Endpoint, RuntimeClass
from chimera.platform.ports import HostExit, RunningCall
from chimera_host.blackbox import read_black_box
from chimera_host.config import HostConfig
from chimera_host.contract.agent import FrameworkName

log = logging.getLogger(__name__)

KEPT_HOST_LOGS = 50
PROBE_TIMEOUT = 5.0
DRAIN_MARGIN = 5.0
TELL_TIMEOUT = 5.0
"""How long the end of a killed host may take to be told."""
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, kw_only=True, slots=True)
class LauncherOptions:
    """Where hosts live.

    `mint` makes the token that a host shows the gateway, from (host, cell); `requirements` fetches an agent's
    hash-locked requirements file by digest. The bounds of calls are the gateway's, one step further in.
    """

    home: Path
    platform_url: str
    mint: Callable[[str, str], str]
    requirements: Callable[[str], Awaitable[bytes]]
    request_timeout: float = 590.0
    stream_idle: float = 120.0
    concurrency: int = 100
    fork: bool = True
    grace: float = 10.0
    node_program: str = ""


@dataclass(kw_only=True, slots=True)
class _Running:
    cell: str
    endpoint: Endpoint
    pid: int
    lifeline: int
    black_box: Path
    gone: asyncio.Event
    process: asyncio.subprocess.Process | None = None
    asked: bool = False


class LocalLauncher:
    """Hosts as processes of this machine (the port `HostLauncher`)."""

    def __init__(self, options: LauncherOptions, runtimes: Runtimes, groups: ControlGroups) -> None:
        """Nothing runs before `warm` or `start`."""
        self._options = options
        self._runtimes = runtimes
        self._groups = groups
        self._node = NodeProgram(options.node_program, runtimes)
        self._zygotes: dict[tuple[str, Path], Zygote] = {}
        self._starting: dict[tuple[str, Path], asyncio.Lock] = {}
        self._retired: list[Zygote] = []
        self._running: dict[str, _Running] = {}
        self._forking: dict[str, int | None] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._callback: Callable[[HostExit], None] = lambda _: None
        self._session: aiohttp.ClientSession | None = None

    def on_exit(self, callback: Callable[[HostExit], None]) -> None:
        """See `HostLauncher`."""
        self._callback = callback

    async def warm(self, framework: FrameworkName) -> bool:
        """Have the zygote of an installed runtime warm; False where the runtime isn't installed."""
        try:
            python = self._python(framework)
        except RuntimeMissing:
            return False
        if self._options.fork:
            await (await self._zygote(framework, python)).warm()
        return True

    async def start(self, cell: CellSpec, host: str) -> Endpoint:
        """See `HostLauncher`."""
        runtime = cell.runtime_class
        config = self._config(cell, host)
        for folder in (Path(config.work_dir), self._log(host).parent):
            folder.mkdir(parents=True, exist_ok=True)
        self._forget_old_logs()
        process, ended_at_once = None, None
        with _opened(self._log(host)) as (listener, log_file, lifeline_read, lifeline_write):
            port = listener.getsockname()[1]
            descriptors = (listener.fileno(), log_file, lifeline_read)
            if runtime.runtime == "node":
                process = await self._spawn(await self._node.command(config), config, descriptors)
                bound_files(process.pid, runtime.resources.open_files)
                pid = process.pid
            elif self._options.fork:
                zygote = await self._zygote(runtime.framework, await self._python_of(runtime))
                self._forking[host] = None
                try:
                    pid = await zygote.fork(config, descriptors)
                finally:
                    ended_at_once = self._forking.pop(host, None)
            else:
                python = await self._python_of(runtime)
                process = await self._spawn((str(python), "-m", "chimera_host", "serve"), config, descriptors)
                pid = process.pid
        endpoint = Endpoint(host=host, cell=cell.cell, url=f"http://127.0.0.1:{port}", key=config.host_key)
        running = _Running(
            cell=cell.cell,
            endpoint=endpoint,
            pid=pid,
            lifeline=lifeline_write,
            black_box=Path(config.black_box or ""),
            gone=asyncio.Event(),
            process=process,
        )
        self._running[host] = running
        if ended_at_once is not None:
            self._forget(host, running)
            raise HostStartFailed(
                f"the host ended at its start: {_cause(ended_at_once)}",
                next_step=f"see `chimera logs --process {host}`",
                retry_after=5,
            )
        if self._groups.folders and not self._groups.place(host, pid, runtime.resources):
            log.warning("a host runs without limits of memory and CPU", extra={"host": host})
        if process is not None:
            watcher = asyncio.create_task(self._watch(host, process), name=f"watch-{host}")
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)
        return endpoint

    async def ready(self, host: str) -> bool:
        """See `HostLauncher`."""
        return await self._probe(host, "/readyz")

    async def alive(self, host: str) -> bool:
        """See `HostLauncher`."""
        return await self._probe(host, "/livez")

    async def stop(self, host: str, grace: float) -> None:
        """See `HostLauncher`."""
        running = self._running.get(host)
        if running is None:
            return
        running.asked = True
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, TELL_TIMEOUT)):
            self._signal(running.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await running.gone.wait()
                    return
        # Nothing outlives SIGKILL; it is the parent that is stuck and does not tell.
        self._ended(host, signal.SIGKILL)

    def memory(self) -> dict[str, int]:
        """See `HostLauncher`."""
        return {host: procfs.resident_bytes(running.pid) for host, running in self._running.items()}

    def processes(self) -> dict[str, int]:
        """Process ids of hosts and zygotes by name, for `top` and for benchmarks."""
        found = {host: running.pid for host, running in self._running.items()}
        for (framework, _), zygote in self._zygotes.items():
            if zygote.alive and zygote.process is not None:
                found[f"zygote-{framework}"] = zygote.process.pid
        return found

    async def close(self) -> None:
        """See `HostLauncher`."""
        await asyncio.gather(*(self.stop(host, self._options.grace) for host in tuple(self._running)))
        await asyncio.gather(*(zygote.close() for zygote in (*self._zygotes.values(), *self._retired)))
        if self._session is not None:
            await self._session.close()

    # -- starting ------------------------------------------------------------------------------------------------

    async def _zygote(self, framework: FrameworkName, python: Path) -> Zygote:
        key = (framework, python)
        async with self._starting.setdefault(key, asyncio.Lock()):
            zygote = self._zygotes.get(key)
            if zygote is None or not zygote.alive:
                if zygote is not None:
                    # Its hosts go on: one that is stuck still has them as children.
                    self._retired = [*(one for one in self._retired if one.runs), *([zygote] if zygote.runs else [])]
                zygote = self._zygotes[key] = Zygote(framework, self._ended)
                await zygote.start(python, self._environment(), self._log(f"zygote-{framework}"))
        return zygote

    async def _spawn(
        self, command: tuple[str, ...], config: HostConfig, descriptors: tuple[int, int, int]
    ) -> asyncio.subprocess.Process:
        listener, output, lifeline = descriptors
        read, write = os.pipe()
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                *(f"--config-fd={read}", f"--listen-fd={listener}", f"--lifeline-fd={lifeline}"),
                pass_fds=(read, listener, lifeline),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(),
            )
        finally:
            with contextlib.suppress(OSError):  # where it didn't start, that is the error to tell
                os.write(write, msgspec.json.encode(config))
            os.close(read)
            os.close(write)

    def _config(self, cell: CellSpec, host: str) -> HostConfig:
        resources = cell.runtime_class.resources
        return HostConfig(
            host=host,
            cell=cell.cell,
            framework=cell.runtime_class.framework,
            platform_url=self._options.platform_url,
            platform_token=self._options.mint(host, cell.cell),
            host_key=secrets.token_urlsafe(32),
            work_dir=str(self._options.home / "work" / cell.cell),
            black_box=str(self._options.home / "run" / "hosts" / f"{host}.box"),
            memory_bytes=resources.memory_bytes,
            open_files=resources.open_files,
            idle_unload=cell.idle_timeout,
            grace=self._options.grace,
            request_timeout=self._options.request_timeout,
            drain=self._options.request_timeout + DRAIN_MARGIN,
            stream_idle=self._options.stream_idle,
            concurrency=self._options.concurrency,
        )

    def _python(self, framework: FrameworkName) -> Path:
        return self._runtimes.python(framework)

    async def _python_of(self, runtime: RuntimeClass) -> Path:
        if runtime.requirements is None:
            return self._python(runtime.framework)
        # Kept in a file, so that a cell wakes while the control plane is away.
        kept = self._options.home / "requirements" / f"{runtime.requirements.removeprefix('sha256:')}.txt"
        if not kept.exists():
            data = await self._options.requirements(runtime.requirements)
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            partial = kept.with_suffix(".partial")
            partial.write_bytes(data)
            partial.rename(kept)
        return await asyncio.to_thread(self._runtimes.install, runtime.framework, kept.read_bytes())

    def _environment(self) -> Mapping[str, str]:
        # A host gets nothing of this process's environment but what a program needs to run: no key, no tracing switch.
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {
            **environment,
            "HOME": str(self._options.home / "work"),
            "PYTHONPATH": str(self._runtimes.host_path()),
            "PYTHONUNBUFFERED": "1",
        }

    def _log(self, name: str) -> Path:
        folder = self._options.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.jsonl"

    def _forget_old_logs(self) -> None:
        kept = sorted((self._options.home / "logs").glob("host_*.jsonl"))
        for file in kept[:-KEPT_HOST_LOGS]:
            if file.stem not in self._running:
                file.unlink(missing_ok=True)

    # -- watching ------------------------------------------------------------------------------------------------

    async def _probe(self, host: str, path: str) -> bool:
        running = self._running.get(host)
        if running is None:
            return False
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT))
        try:
            async with self._session.get(running.endpoint.url + path) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _watch(self, host: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self._ended(host, -code if code < 0 else code << 8)

    def _ended(self, host: str, status: int) -> None:
        running = self._running.get(host)
        if running is None:
            if host in self._forking:  # told in one breath with its fork; `start` looks
                self._forking[host] = status
            return
        self._forget(host, running)
        self._callback(self._exit(host, running, status))
        running.black_box.unlink(missing_ok=True)

    def _forget(self, host: str, running: _Running) -> None:
        del self._running[host]
        running.gone.set()
        os.close(running.lifeline)
        self._groups.remove(host)
        self._groups.sweep()

    def _exit(self, host: str, running: _Running, status: int) -> HostExit:
        recording = read_black_box(running.black_box)
        words = recording.last_words if recording else None
        calls = recording.calls if recording else ()
        if words is not None and words.calls:
            calls = tuple(call for call in calls if call.call in words.calls) or calls
        until = recording.heartbeat if recording else 0.0
        return HostExit(
            host=host,
            cell=running.cell,
            cause=words.reason if words else _cause(status),
            expected=running.asked and words is None,
            calls=tuple(
                RunningCall(agent=f"{call.tenant}/{call.agent}", call=call.call, seconds=call.seconds(until))
                for call in calls
            ),
        )

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def _opened(log_file: Path) -> Iterator[tuple[socket.socket, int, int, int]]:
    """What a host is given: a listening socket, its log, its end of the lifeline; and the other end, which is kept.

    Ours are closed again, the kept one too where the host doesn't start, whatever it is that fails.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as kept:
        try:
            listener = ours.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
            read, write = os.pipe()
            ours.callback(os.close, read)
            kept.callback(os.close, write)
            output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            ours.callback(os.close, output)
            yield listener, output, read, write
        except OSError as error:
            raise HostStartFailed(f"the host's process could not be started: {error}", retry_after=5) from error
        kept.pop_all()


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"killed by {name}" + (" (out of memory, or by hand)" if number == signal.SIGKILL else "")
    return f"ended with exit code {os.WEXITSTATUS(status)}"
