"""One writer with group commit: whatever waits while a transaction is committed shares the next one.

A commit costs a flush of the disk (about a millisecond); a hundred small writes in one transaction cost one flush.
Each job runs in a savepoint of its own, so that one that fails takes nothing else with it, and its caller is answered
only after the commit: what was acknowledged survives a kill.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[Connection], Any]

MOST_JOBS = 256
_Item = tuple[Job, asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Writer:
    """The process's one writing thread. `close` waits for what was submitted."""

    def __init__(self, engine: Engine) -> None:
        """Start the thread."""
        self._engine = engine.execution_options(write=True)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    async def submit(self, job: Callable[[Connection], T]) -> T:
        """Run `job` in the next transaction; its result once that is committed, or its error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((job, loop, future))
        return await future

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            items = [first]
            last = False
            while len(items) < MOST_JOBS and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    last = True
                    break
                items.append(following)
            self._commit(items)
            if last:
                return

    def _commit(self, items: list[_Item]) -> None:
        results: list[tuple[_Item, Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                for item in items:
                    try:
                        with connection.begin_nested():
                            results.append((item, item[0](connection), None))
                    except Exception as error:
                        results.append((item, None, error))
        except Exception as error:
            # The transaction itself failed: nothing of it is there, whatever the jobs returned.
            log.error("transaction failed", exc_info=error)
            results = [(item, None, error) for item in items]
        for (_, loop, future), result, failure in results:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, future, result, failure)


def _answer(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
