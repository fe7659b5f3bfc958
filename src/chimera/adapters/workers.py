"""Processes that read what strangers sent, beside the one that asks.

They are started when they are first wanted, kept while they have nothing to do, and killed when their answer is late or
nobody wants it any more. Each has a folder for its temporary files, which goes with it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from chimera.adapters.framing import MOST_FRAME, framed
from chimera.adapters.scratch import Scratch

INHERITED = (
    *("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("https_proxy", "http_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"),
)
"""What such a process sees of the environment: no credential is in it."""

IDLE = 300.0
"""Seconds without work after which processes that wait for some are ended."""


ENDING = 5.0
"""Seconds that a process which says nothing any more has to end by itself."""


class WorkerEnded(Exception):
    """The process ended before its answer did, or answers more than can be; `signal` is what killed it, else 0."""

    def __init__(self, what: str, code: int | None = None) -> None:
        """`code` is what the process ended with, negative for a signal."""
        self.signal = -code if code is not None and code < 0 else 0
        how = "" if code is None else f" with exit code {code}"
        super().__init__(what + (f", killed by {_signal_name(self.signal)}" if self.signal else how))


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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENDING):
                    await self._process.wait()
            raise WorkerEnded("it ended before its answer", self._process.returncode) from None


class _Started(NamedTuple):
    process: asyncio.subprocess.Process
    folder: Path


class Workers:
    """Processes of one kind. Made inside the event loop; `aclose` them."""

    def __init__(
        self, command: Sequence[str], *, kept: int, first: Struct | None = None, idle_seconds: float = IDLE
    ) -> None:
        """Python with `command` as its arguments, told `first` when it starts; `kept` wait for work at most."""
        self._command = command
        self._kept = kept
        self._first = first
        self._idle: list[_Started] = []
        self._idle_seconds = idle_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._scratch = Scratch()
        self._ending: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End those that wait."""
        if self._timer is not None:
            self._timer.cancel()
        await self.rest()
        await asyncio.gather(*self._ending)
        await asyncio.to_thread(self._scratch.close)

    @property
    def idle(self) -> int:
        """How many wait for work."""
        return sum(one.process.returncode is None for one in self._idle)

    async def rest(self) -> None:
        """End those that wait now."""
        idle, self._idle = self._idle, []
        for one in idle:
            await _end(one)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Worker]:
        """A process to ask one thing; it is killed unless its answer was read to the end."""
        started = await self._waiting() or await self._start()
        worker = Worker(started.process)
        try:
            yield worker
        finally:
            if worker.answered and started.process.returncode is None and len(self._idle) < self._kept:
                self._idle.append(started)
                self._wait_for_work()
            else:
                await _end(started)

    async def _waiting(self) -> _Started | None:
        """One that waits for work; one may have been killed meanwhile, as by a machine that is short of memory."""
        while self._idle:
            one = self._idle.pop()
            if one.process.returncode is None:
                return one
            await _end(one)
        return None

    def _wait_for_work(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._let_go)

    def _let_go(self) -> None:
        ending = asyncio.get_running_loop().create_task(self.rest())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _start(self) -> _Started:
        folder = await asyncio.to_thread(self._scratch.make)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", *self._command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**environment, "TMPDIR": str(folder)},
        )
        started = _Started(process, folder)
        try:
            if self._first is not None:
                await Worker(process).send(self._first)
        except BaseException:  # nobody waits for it any more
            await _end(started)
            raise
        return started


async def _end(one: _Started) -> None:
    with contextlib.suppress(ProcessLookupError):
        one.process.kill()
    await one.process.wait()
    await asyncio.to_thread(shutil.rmtree, one.folder, ignore_errors=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
