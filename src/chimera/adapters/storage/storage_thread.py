"""A thread with an event loop of its own, in which a database's driver lives.

Whatever the driver and SQLAlchemy do for a statement (tens to hundreds of microseconds of Python), no other event loop
does; a caller waits for the answer alone, in whichever loop he runs.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

ENDING = 10.0
"""How many seconds what still runs may take to end, once it was told to."""


class StorageThread:
    """The thread; `close` waits for what runs in it."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there; a caller that is cancelled cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Call it there, soon."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(function, *args)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `last`, then end the thread; a second time does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(last(), self.loop).result()
            self.soon(self.loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(_end_all())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


async def _end_all() -> None:
    """Cancel every other task and wait: a loop that is closed under a connection being ended may block for ever."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    end = asyncio.get_running_loop().time() + ENDING
    while tasks and (left := end - asyncio.get_running_loop().time()) > 0:
        await asyncio.wait(tasks, timeout=left)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}  # ending a connection may take tasks of its own
