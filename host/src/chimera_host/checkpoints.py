"""A call's graph checkpoints on the platform: what is saved at the same time travels in one request.

A graph that finishes a step saves the step's writes and the next checkpoint at once, and parallel branches theirs
together. One request is under way at a time, and what comes meanwhile waits for the next: so a step costs one
round trip and one commit, in whatever order a framework saves, and what was saved first is committed first. Nobody is
told that his part is kept before it is.

What can't be kept is raised as `NotKept`, so that no framework takes it for the failure of a node or a tool.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from chimera_host.contract.problem import ProblemError, RemoteProblem
from chimera_host.contract.state import CheckpointAnswer, CheckpointAsk, CopyThread, PutCheckpoint, PutWrites, Several
from chimera_host.errors import CallCancelled

MOST_ASKS = 200
MOST_BYTES = 4 * 1024**2
"""A request is begun with so many bytes at most, unless one checkpoint alone has more."""

T = TypeVar("T")
Save = PutCheckpoint | PutWrites


class NotKept(RemoteProblem):
    """The platform didn't take or give a checkpoint; the problem is its own."""


class Waits(Protocol):
    """Runs a coroutine function on the host's event loop from a framework's thread, and waits."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any) -> T:
        """What it returns."""


class Checkpoints:
    """The checkpoints of one call. On the event loop; from a framework's thread through `blocking`."""

    __slots__ = ("_fresh", "_lock", "_newest", "_saved", "_send", "_waiting", "blocking", "thread")

    def __init__(
        self,
        send: Callable[[CheckpointAsk], Coroutine[Any, Any, CheckpointAnswer]],
        blocking: Waits,
        *,
        thread: str,
        fresh: bool,
    ) -> None:
        """Ask by `send`. `thread` is the call's own; with `fresh` nothing is there yet."""
        self.thread = thread
        self._fresh = fresh
        self.blocking = blocking
        self._send = send
        self._newest: asyncio.Future[None] | None = None
        self._waiting: list[tuple[Save, asyncio.Future[None]]] = []
        self._lock = asyncio.Lock()
        self._saved: set[str] = set()

    def is_empty(self, thread: str, namespace: str) -> bool:
        """Whether it is certain, without asking, that nothing was saved there."""
        return self._fresh and thread == self.thread and namespace not in self._saved

    async def save(self, ask: Save) -> None:
        """Keep a checkpoint or writes; returns once it is committed."""
        mine = self.hold(ask)
        async with self._lock:
            if not mine.done():
                await asyncio.sleep(0)  # whoever saves in the same moment comes along
            while not mine.done():
                await self._send_some()
        mine.result()

    def hold(self, ask: Save) -> "asyncio.Future[None]":
        """Let it travel with what is saved next, or is asked for: without it there is nothing to go on from yet."""
        if ask.thread == self.thread:
            self._saved.add(ask.namespace)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, mine))
        if isinstance(ask, PutCheckpoint):
            self._newest = mine
        return mine

    async def settled(self) -> None:
        """Wait until the checkpoint that was saved last is committed.

        What a step asks for has keys that are named after the checkpoint it began from. So it is asked once that is
        kept: a host that goes on begins from the same one, and asks with the same keys.
        """
        newest = self._newest
        if newest is None:
            return
        if not newest.done():
            async with self._lock:
                while not newest.done():
                    await self._send_some()
        newest.result()

    async def ask(self, ask: CheckpointAsk) -> CheckpointAnswer:
        """Anything else, behind all that is being saved."""
        async with self._lock:
            while self._waiting:
                await self._send_some()
            if isinstance(ask, CopyThread):
                self._fresh = False
            return await self._asked(ask)

    async def _send_some(self) -> None:
        """Send the first of those that wait. Where this is cancelled, they wait for the next one to send them."""
        some, self._waiting = _first(self._waiting)
        asks = tuple(ask for ask, _ in some)
        try:
            await self._asked(asks[0] if len(asks) == 1 else Several(asks=asks))
        except asyncio.CancelledError:
            self._waiting[:0] = some
            raise
        except Exception as error:
            for _, future in some:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # marks it as seen: who waited may be gone
        else:
            for _, future in some:
                if not future.done():
                    future.set_result(None)

    async def _asked(self, ask: CheckpointAsk) -> CheckpointAnswer:
        try:
            return await self._send(ask)
        except CallCancelled:
            raise
        except ProblemError as error:
            raise NotKept(error.problem()) from error


def _first(
    waiting: list[tuple[Save, asyncio.Future[None]]],
) -> tuple[list[tuple[Save, asyncio.Future[None]]], list[tuple[Save, asyncio.Future[None]]]]:
    """As many as one request holds, and the rest."""
    size = 0
    for number, (ask, _) in enumerate(waiting[:MOST_ASKS]):
        size += size_of(ask)
        if number and size > MOST_BYTES:
            return waiting[:number], waiting[number:]
    return waiting[:MOST_ASKS], waiting[MOST_ASKS:]


def size_of(ask: Save) -> int:
    """About the bytes that it takes in a request."""
    if isinstance(ask, PutCheckpoint):
        return len(ask.value.data) + len(ask.metadata.data) + 300
    return sum(len(write.value.data) + 300 for write in ask.writes)
