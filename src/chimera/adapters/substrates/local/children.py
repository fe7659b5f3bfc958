"""The platform's own processes on one machine, started and kept running: control plane, gateway, local model.

Each is started again when it ends, after a delay that doubles up to half a minute and starts over once it has run for
a while. Each holds one end of a lifeline pipe, and ends when this process does. Sockets that a child listens on are
bound here and handed down, so that connections wait while a child is started again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
SETTLED = 10.0
FALLS = 3
"""Ends before it settled, one after another, after which somebody who waits for it should give up."""
LAST_WORDS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    """A process to keep running. `arguments` gets the lifeline's descriptor; `descriptors` are handed down."""

    name: str
    arguments: Callable[[int], Sequence[str]]
    log: Path
    descriptors: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class Child:
    """One process of the platform, kept running until `stop`."""

    def __init__(self, spec: ChildSpec) -> None:
        """Nothing runs before `run`."""
        self.spec = spec
        self.process: asyncio.subprocess.Process | None = None
        self.restarts = 0
        self.fallen = asyncio.Event()
        self._falls = 0
        self._stopping = False

    async def run(self) -> None:
        """Start it, and again whenever it ends, until `stop`."""
        delay = FIRST_DELAY
        while not self._stopping:
            began = time.monotonic()
            code: int | str
            try:
                code = await self._run_once()
            except OSError as error:  # no process, memory or descriptor to be had; there may be later
                code = str(error)
            if self._stopping:
                return
            self.restarts += 1
            settled = time.monotonic() - began > SETTLED
            delay = FIRST_DELAY if settled else min(LONGEST_DELAY, delay * 2)
            self._falls = 0 if settled else self._falls + 1
            if self._falls >= FALLS:
                self.fallen.set()
            log.error("process ended", extra={"name_of_process": self.spec.name, "code": code, "again_in": delay})
            await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        lifeline_read, lifeline_write = os.pipe()
        try:
            try:
                with self.spec.log.open("ab") as output:
                    self.process = await asyncio.create_subprocess_exec(
                        *self.spec.arguments(lifeline_read),
                        pass_fds=(*self.spec.descriptors, lifeline_read),
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env={**os.environ, **self.spec.environment},
                    )
            finally:
                os.close(lifeline_read)
            return await self.process.wait()
        finally:
            os.close(lifeline_write)

    def last_words(self) -> str:
        """The last line that it wrote, for a message to a person."""
        with self.spec.log.open("rb") as log_file:
            log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = log_file.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else ""

    async def stop(self, grace: float) -> None:
        """Ask it to end; after `grace` seconds it is killed."""
        self._stopping = True
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
