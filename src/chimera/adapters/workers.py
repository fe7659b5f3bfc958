"""Processes that read what strangers sent, beside the one that asks.

They are started when they are first wanted, kept while they have nothing to do, and killed when their answer is late or
nobody wants it any more.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from chimera.adapters.framing import MOST_FRAME, framed

INHERITED = (
    *("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("https_proxy", "http_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"),
)
"""What such a process sees of the environment: no credential is in it."""

IDLE = 300.0
"""Seconds without work after which processes that wait for some are ended."""


class WorkerEnded(Exception):
    """The process ended before its answer did, or answers more than can be."""


class Worker:
    """One process while it is asked one thing."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """It runs."""
        self._process = process
        self.answered = False

    async def send(self, ask: Struct) -> None:
        """Ask; a process that has ended says so when its answer is read."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(framed(ask))
            await self._process.stdin.drain()

    async def read(self) -> bytes:
        """The next frame of its answer; raises `WorkerEnded`. Whoever has read the last one sets `answered`."""
        assert self._process.stdout is not None
        try:
            length = int.from_bytes(await self._process.stdout.readexactly(4), "big")
            if length > MOST_FRAME:
                raise WorkerEnded(f"an answer of {length} bytes")
            return await self._process.stdout.readexactly(length)
        except asyncio.IncompleteReadError:
            raise WorkerEnded("it ended before its answer") from None


class Workers:
    """Processes of one kind. Made inside the event loop; `aclose` them."""

    def __init__(
        self, command: Sequence[str], *, kept: int, first: Struct | None = None, idle_seconds: float = IDLE
    ) -> None:
        """Python with `command` as its arguments, told `first` when it starts; `kept` wait for work at most."""
        self._command = command
        self._kept = kept
        self._first = first
        self._idle: list[asyncio.subprocess.Process] = []
        self._idle_seconds = idle_seconds
        self._timer: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """End those that wait."""
        if self._timer is not None:
            self._timer.cancel()
        idle, self._idle = self._idle, []
        for process in idle:
            await _end(process)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Worker]:
        """A process to ask one thing; it is killed unless its answer was read to the end."""
        process = self._idle.pop() if self._idle else await self._start()
        worker = Worker(process)
        try:
            yield worker
        finally:
            if worker.answered and process.returncode is None and len(self._idle) < self._kept:
                self._idle.append(process)
                self._wait_for_work()
            else:
                await _end(process)

    def _wait_for_work(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._let_go)

    def _let_go(self) -> None:
        idle, self._idle = self._idle, []
        for process in idle:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", *self._command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
        )
        if self._first is not None:
            await Worker(process).send(self._first)
        return process


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
