"""Running a tool within its time, and keeping track of one that doesn't come back.

Every tool runs in a task of its own. When its time is over the caller gets its error at once, and the task is told to
stop. A coroutine stops at its next await. A thread can't be stopped: it is left behind, counted by `missing`, and keeps
its place among the few threads that an agent's tools have, so that a function that hangs can't take more than those.
When the call itself is cancelled, the caller waits for the tool, as it would for any other code of the agent: the
watchdog counts how long that takes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from chimera_host.broker.rules import Deadline, overrun
from chimera_host.errors import CallCancelled
from chimera_host.ports import current_call
from chimera_host.threads import WatchedThreads

R = TypeVar("R")
THREADS = 16
"""How many functions of one agent may run at once; apart from the frameworks' threads, since one of those waits for
each, and a pool that waits for itself stands still."""


class Runner:
    """Runs the tools of one agent."""

    def __init__(self, agent: str) -> None:
        """Run for `agent`."""
        self._agent = agent
        self._threads = WatchedThreads(THREADS)
        self._left: dict[asyncio.Task[Any], float] = {}

    def missing(self, now: float) -> list[tuple[str, float]]:
        """Tools that were given up and still run: the agent, and for how long since. From any thread."""
        return [(self._agent, now - since) for since in list(self._left.values())]

    async def run(self, tool: str, work: Coroutine[Any, Any, R], allowed: Deadline) -> R:
        """What `work` returns within the deadline; else its error, at once."""
        task = asyncio.create_task(work, name=f"tool-{tool}")
        try:
            done, _ = await asyncio.wait({task}, timeout=allowed.seconds)
        except asyncio.CancelledError:
            task.cancel()
            await _until_done(task)
            raise
        if done:
            return task.result()
        task.cancel()
        await asyncio.sleep(0)  # a coroutine that listens is gone after this
        if not task.done():
            self._left[task] = time.monotonic()
        task.add_done_callback(self._back)
        raise overrun(tool, allowed)

    async def in_thread(self, function: Callable[[], R]) -> R:
        """Run a blocking function of a call in one of the agent's threads, on the agent's account."""
        result, cpu = await self._threads.run(function, owner=self._agent)
        if (call := current_call.get(None)) is not None:
            call.cpu_seconds += cpu
        return result

    def _back(self, task: "asyncio.Task[Any]") -> None:
        self._left.pop(task, None)
        if not task.cancelled():
            task.exception()  # seen: its caller has an error already

    async def aclose(self) -> None:
        """Tell those that were left to stop; a thread is not waited for."""
        for task in list(self._left):
            task.cancel()


async def while_loading(function: Callable[[], R]) -> R:
    """Run code of the agent while it is loaded: in the watched threads of the call that loads it."""
    call = current_call.get(None)
    if call is None:
        return await asyncio.to_thread(function)
    return await call.in_thread(function)


async def _until_done(task: "asyncio.Task[Any]") -> None:
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()


def is_cancellation(error: BaseException) -> bool:
    """Whether this is the end of the call, which no tool's error may hide."""
    return isinstance(error, (CallCancelled, asyncio.CancelledError))


async def resolved(value: "Awaitable[R] | R") -> R:
    """The value, awaited where it has to be."""
    return await value if isinstance(value, Awaitable) else value
