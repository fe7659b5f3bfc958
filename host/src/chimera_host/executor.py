"""The event loop's default executor, which runs what agents' coroutines hand to a thread in watched threads.

`asyncio.to_thread`, and every blocking node or tool of a framework that works on the event loop, ends up in the loop's
default executor. The standard one has a few threads for all, and forgets a thread whose call was cancelled: an endless
loop in there would go on unseen, and a handful of them would stop everybody else's. This one gives such work to
`WatchedThreads`, so that it counts as its call's, keeps the call running until it is back, and costs the host if it
never is. A pool of its own, since a framework's thread may wait for one of these.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from chimera_host.calls import Call
from chimera_host.ports import current_call
from chimera_host.threads import WatchedThreads

P = ParamSpec("P")
R = TypeVar("R")

_NOT_AGENTS = (socket.getaddrinfo, socket.getnameinfo)
"""What the loop itself looks up for a model call, which a thread that waits for that call must not hold up."""


class CallExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` because the loop wants one; work outside of calls runs as in any other."""

    def __init__(self, threads: int, loop: asyncio.AbstractEventLoop) -> None:
        """Run the work of `loop`'s calls, in at most so many threads at once. Make it in the loop's thread."""
        super().__init__(thread_name_prefix="host")
        self._watched = WatchedThreads(threads)
        self.missing = self._watched.missing
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._running: dict[Call, set[asyncio.Task[None]]] = {}

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Start `fn`; in a watched thread where a call asks for it."""
        call = current_call.get(None)
        if not isinstance(call, Call) or fn in _NOT_AGENTS or threading.get_ident() != self._loop_thread:
            return super().submit(fn, *args, **kwargs)
        future: Future[R] = Future()
        task = self._loop.create_task(self._run(call, future, partial(fn, *args, **kwargs)), name="blocking")
        tasks = self._running.setdefault(call, set())
        tasks.add(task)
        task.add_done_callback(partial(self._done, call))
        future.add_done_callback(lambda done: task.cancel() if done.cancelled() else None)
        return future

    async def settled(self, call: Call) -> None:
        """Wait until no thread works for a call that is over; a cancellation doesn't hasten it."""
        while tasks := self._running.get(call):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError:
                continue

    async def _run(self, call: Call, future: Future[Any], work: Callable[[], Any]) -> None:
        try:
            result, cpu = await self._watched.run(work, owner=call.request.agent)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            call.cpu_seconds += cpu
            if not future.cancelled():
                future.set_result(result)

    def _done(self, call: Call, task: "asyncio.Task[None]") -> None:
        tasks = self._running[call]
        tasks.discard(task)
        if not tasks:
            del self._running[call]
