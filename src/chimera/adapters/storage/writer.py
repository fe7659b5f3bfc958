"""One writer with group commit: whatever waits while a transaction is committed shares the next one.

A commit costs a flush of the disk (about a millisecond); a hundred small writes in one transaction cost one flush.
Where several jobs share a transaction each runs in a savepoint of its own, so that one that fails takes nothing else
with it. A caller is answered only after the commit: what was acknowledged survives a kill. A caller that gives up
does not take its job back.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from chimera.adapters.storage.database import StorageError, translated_errors

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
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    async def submit(self, job: Callable[[Connection], T]) -> T:
        """Run `job` in the next transaction; its result once that is committed, or its error."""
        if self._closed:
            raise StorageError("the database is being closed", next_step="try again", retry_after=1.0)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((job, loop, future))
        return await future

    def close(self) -> None:
        """Finish what was submitted and end the thread; a second time does nothing."""
        if not self._closed:
            self._closed = True
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
        results: list[tuple[Any, BaseException | None]] = []
        try:
            with translated_errors(), self._engine.begin() as connection:
                if len(items) == 1:
                    results.append((items[0][0](connection), None))
                else:
                    results.extend(_in_savepoint(item[0], connection) for item in items)
        except Exception as error:
            # Nothing of the transaction is there, whatever its jobs returned; those that had failed keep their error.
            if len(items) > 1:
                log.error("transaction failed", exc_info=error)
            results = [(None, failure or error) for _, failure in results]
            results += [(None, error)] * (len(items) - len(results))
        for (_, loop, future), (result, failure) in zip(items, results, strict=True):
            # The loop of a caller that is gone may be closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer, future, result, failure)


def _in_savepoint(job: Job, connection: Connection) -> tuple[Any, BaseException | None]:
    connection.exec_driver_sql("SAVEPOINT job")
    try:
        with translated_errors():
            result, failure = job(connection), None
    except Exception as error:
        result, failure = None, error
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT job")
    connection.exec_driver_sql("RELEASE SAVEPOINT job")
    return result, failure


def _answer(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
