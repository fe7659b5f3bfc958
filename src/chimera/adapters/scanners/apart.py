"""Scans by processes of their own (`chimera.bootstrap.scanner`), since what they read comes from strangers.

A scan that takes too long, or that nobody waits for any more, ends with its process, whatever it was doing; one that
needs too much memory ends alone. The index of advisories is in the memory of the process that judges dependencies,
which is one: a second one would have it again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
from msgspec import Struct

from chimera.adapters.workers import WorkerEnded, Workers
from chimera.delivery.scanning.errors import ScanningError
from chimera.delivery.scanning.model import Report, Scanner
from chimera.delivery.scanning.packed import Ask

ALONE: frozenset[Scanner] = frozenset(["dependencies", "images"])
"""Scanners with a process each, since they hold an index of advisories. The others share what processes they need."""


class Scanned(Struct, frozen=True, tag="scanned"):
    """What is found."""

    report: Report


class Failed(Struct, frozen=True, tag="failed"):
    """Nothing can be said, and why."""

    detail: str
    next_step: str


Answer = Scanned | Failed
_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class ScansApart:
    """The port `Scans`. Made inside the event loop; `aclose` it."""

    def __init__(self, command: Sequence[str], first: Struct) -> None:
        """By Python with `command` as its arguments, told `first` when it starts. Nothing runs yet."""
        self._alone = {scanner: Workers(command, kept=1, first=first) for scanner in ALONE}
        self._shared = Workers(command, kept=1, first=first)
        self._turn = asyncio.Lock()

    async def aclose(self) -> None:
        """End the processes."""
        for workers in (*self._alone.values(), self._shared):
            await workers.aclose()

    async def scan(self, ask: Ask) -> Report:
        """See `Scans`."""
        async with AsyncExitStack() as stack:
            if ask.scanner == "dependencies":
                await stack.enter_async_context(self._turn)
            worker = await stack.enter_async_context(self._alone.get(ask.scanner, self._shared).one())
            await worker.send(ask)
            try:
                answer = _decoder.decode(await worker.read())
            except WorkerEnded as error:
                raise ScanningError(
                    f"the process that looks for {ask.scanner} has no answer: {error}",
                    next_step="see the control plane's log, and raise `scanning.memory_bytes` if it had too little",
                ) from None
            worker.answered = True
        if isinstance(answer, Failed):
            raise ScanningError(answer.detail, next_step=answer.next_step)
        return answer.report
