"""Scans by processes of their own (`chimera.bootstrap.scanner`), since what they read comes from strangers.

A scan that takes too long, or that nobody waits for any more, ends with its process, whatever it was doing; one that
needs too much memory ends alone. There are never more processes than are allowed at once, those included that wait for
work. The index of advisories is in the memory of the processes that judge by it: a second one reads it again, so it is
started where the first has been waited for in vain.
"""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import msgspec
from msgspec import Struct

from chimera.adapters.workers import WorkerEnded, Workers
from chimera.delivery.scanning.errors import ScanningError
from chimera.delivery.scanning.model import Report, Scanner, Unjudged, report
from chimera.delivery.scanning.packed import Ask

KNOWING: frozenset[Scanner] = frozenset(["dependencies", "images"])
"""Scanners that hold an index of advisories."""
PATIENCE = 60.0
"""Seconds for which a scan waits for the process that has the index, before it has another one read it too."""


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

    def __init__(self, command: Sequence[str], first: Struct, *, at_once: int, seconds: float) -> None:
        """By Python with `command` as its arguments, told `first` when it starts. Nothing runs yet.

        There are `at_once` processes at most, and one request may take `seconds`, without its wait for its turn.
        """
        self._knowing = Workers(command, kept=1, first=first)
        self._others = Workers(command, kept=1, first=first)
        self._index = asyncio.Lock()
        self._at_once = at_once
        self._running = 0
        self._slots = asyncio.Semaphore(at_once)
        self._seconds = seconds

    async def aclose(self) -> None:
        """End the processes."""
        await self._knowing.aclose()
        await self._others.aclose()

    async def scan(self, ask: Ask) -> Report:
        """See `Scans`. One that takes too long has judged nothing, and says so of each agent."""
        async with AsyncExitStack() as stack:
            if ask.scanner in KNOWING:
                await self._wait_for_index(stack)
            await stack.enter_async_context(self._slots)
            self._running += 1
            try:
                return await self._scan(ask)
            finally:
                self._running -= 1

    async def _wait_for_index(self, stack: AsyncExitStack) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._index.acquire()
            stack.callback(self._index.release)

    async def _scan(self, ask: Ask) -> Report:
        workers, others = self._knowing, self._others
        if ask.scanner not in KNOWING:
            workers, others = others, workers
        try:
            async with asyncio.timeout(self._seconds):
                if not workers.idle and self._running + others.idle > self._at_once:
                    await others.rest()
                async with workers.one() as worker:
                    await worker.send(ask)
                    answer = _decoder.decode(await worker.read())
                    worker.answered = True
        except TimeoutError:
            return _late(ask, self._seconds)
        except WorkerEnded as error:
            raise ScanningError(
                f"the process that looks for {ask.scanner} has no answer: {error}", next_step=_next_step(error)
            ) from None
        if isinstance(answer, Failed):
            raise ScanningError(answer.detail, next_step=answer.next_step)
        return answer.report


def _late(ask: Ask, seconds: float) -> Report:
    message = f"looking for {ask.scanner} took longer than {seconds:g} s"
    step = "take out of source folders and images what is large, or raise `delivery.check_seconds`"
    unjudged = [
        Unjudged(scanner=ask.scanner, message=message, next_step=step, agent=agent.agent) for agent in ask.agents
    ]
    return report(unjudged, {ask.scanner: len(ask.agents)})


def _next_step(error: WorkerEnded) -> str:
    match error.signal:
        case signal.SIGKILL:
            return (
                "the kernel's log says whether the machine or the pod had too little memory: give it more "
                "(`--control-plane-memory` in a cluster), or lower `scanning.memory_bytes`"
            )
        case signal.SIGXCPU:
            return "it took more of a processor than `delivery.check_seconds`: raise that, or scan fewer agents at once"
        case _:
            return "see the control plane's log"
