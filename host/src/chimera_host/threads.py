"""The threads that blocking frameworks run in, watched: at most so many, each known by the call it works for.

A thread can't be killed. So when a call is cancelled its thread is asked to stop (its next model or tool call fails),
and the call counts as running until the thread is back; the watchdog costs the host its life if that takes too long.
The standard executor is no use here: it joins its threads at exit, which an endless loop would hold up for ever.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

R = TypeVar("R")
IDLE_SECONDS = 60.0


class _Job(Generic[R]):
    __slots__ = (
        "abandoned",
        "abandoned_at",
        "answer",
        "back",
        "context",
        "cpu",
        "function",
        "loop",
        "returned",
        "started",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], R], context: Context) -> None:
        self.loop = loop
        self.function = function
        self.context = context
        self.answer: asyncio.Future[R] = loop.create_future()
        self.back: asyncio.Future[None] | None = None
        self.abandoned = False
        self.abandoned_at = 0.0
        self.started = False
        self.returned = False
        self.cpu = 0.0

    def work(self) -> None:
        self.started = True
        if self.abandoned:
            self._tell(None, None)
            return
        began = time.thread_time()
        try:
            result = self.context.run(self.function)
        except BaseException as error:
            self.cpu = time.thread_time() - began
            self._tell(None, error)
        else:
            self.cpu = time.thread_time() - began
            self._tell(result, None)

    def _tell(self, result: R | None, error: BaseException | None) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._finish, result, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        self.returned = True
        if self.back is not None:
            self.back.set_result(None)
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        elif isinstance(error, StopIteration) or not isinstance(error, Exception):
            # The first can't be put into a future; SystemExit and the like would end the event loop.
            self.answer.set_exception(RuntimeError(f"the code raised {error!r}"))
        else:
            self.answer.set_exception(error)


class WatchedThreads:
    """Runs blocking functions in at most `limit` threads, made on demand and dropped after a minute of idleness."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` threads."""
        self._limit = limit
        self._jobs: SimpleQueue[_Job[Any]] = SimpleQueue()
        self._idle = 0
        self._alive = 0
        self._lock = threading.Lock()
        self._missing: dict[_Job[Any], str] = {}

    @property
    def alive(self) -> int:
        """How many threads there are."""
        return self._alive

    @property
    def waiting(self) -> int:
        """How many functions wait for a thread."""
        return self._jobs.qsize()

    def missing(self, now: float) -> list[tuple[str, float]]:
        """Functions that were given up and still run: whom they work for, and for how long since. From any thread."""
        return [(owner, now - job.abandoned_at) for job, owner in list(self._missing.items())]

    async def run(self, function: Callable[[], R], *, owner: str = "") -> tuple[R, float]:
        """Run `function` in a thread under the caller's context variables; its result and its CPU seconds.

        When the caller is cancelled this waits for the thread to come back before it passes the cancellation on; a
        function that still waits for a thread is dropped at once.
        """
        loop = asyncio.get_running_loop()
        job = _Job(loop, function, copy_context())
        self._jobs.put(job)
        self._grow()
        try:
            result = await job.answer
        except asyncio.CancelledError:
            if job.answer.cancelled():
                await self._until_back(job, loop, owner)
            raise
        return result, job.cpu

    async def _until_back(self, job: _Job[Any], loop: asyncio.AbstractEventLoop, owner: str) -> None:
        job.abandoned = True
        if job.returned or not job.started:
            return
        job.abandoned_at = time.monotonic()
        job.back = loop.create_future()
        self._missing[job] = owner
        try:
            while not job.back.done():
                try:
                    await asyncio.shield(job.back)
                except asyncio.CancelledError:
                    continue
        finally:
            del self._missing[job]

    def _grow(self) -> None:
        with self._lock:
            if self._idle >= self._jobs.qsize() or self._alive >= self._limit:
                return
            self._alive += 1
            number = self._alive
        threading.Thread(target=self._work, name=f"agent-{number}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                with self._lock:
                    self._idle -= 1
                    if self._jobs.empty():
                        self._alive -= 1
                        return
                continue
            with self._lock:
                self._idle -= 1
            job.work()
            del job
