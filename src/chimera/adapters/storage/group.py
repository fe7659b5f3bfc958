"""Group commit: whatever waits while a transaction is committed shares the next one.

A commit costs a flush of the disk (about a millisecond); a hundred small writes in one transaction cost one flush.
Where several jobs share a transaction each runs in a savepoint of its own, so that one that fails takes nothing else
with it. What they recorded in the journal is appended last, right before the commit. What fails the transaction as a
whole is found by running its jobs one by one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Connection

from chimera.adapters.storage.errors import StorageAway, StorageError, StorageFull, closing_down
from chimera.adapters.storage.journal import JournalStatements, recording

log = logging.getLogger(__name__)

MOST_JOBS = 256

Job: TypeAlias = Callable[[Connection], Any]
Outcome: TypeAlias = tuple[Any, BaseException | None]


@dataclass(frozen=True, slots=True)
class Item:
    """A job, and who waits for it."""

    job: Job
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class Transactions(Protocol):
    """What differs between dialects inside a transaction."""

    def translated(self) -> AbstractContextManager[None]:
        """Raise the driver's errors as `StorageError`."""

    def execute(self, connection: Connection, *statements: str) -> None:
        """Run statements without parameters, in as few round trips as can be."""


def run_group(
    connection: Connection,
    jobs: Sequence[Job],
    journal: JournalStatements,
    dialect: Transactions,
) -> list[Outcome]:
    """Run `jobs` in the connection's transaction, and append what they recorded; the caller commits.

    Raises what makes the whole transaction void: the error of a job that runs alone, or of the journal.
    """
    with recording(connection) as records:
        if len(jobs) == 1:
            outcomes: list[Outcome] = [(jobs[0](connection), None)]
        else:
            outcomes = []
            dialect.execute(connection, "SAVEPOINT job")
            for job in jobs:
                mark = records.mark()
                outcome = _attempt(job, connection, dialect)
                if outcome[1] is None:
                    dialect.execute(connection, "RELEASE SAVEPOINT job", "SAVEPOINT job")
                else:
                    dialect.execute(connection, "ROLLBACK TO SAVEPOINT job")
                    records.rewind(mark)
                outcomes.append(outcome)
        records.append(connection, journal)
    return outcomes


def answer(items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
    """Tell those who wait, each in his own event loop."""
    for item, (result, failure) in zip(items, outcomes, strict=True):
        # The loop of a caller that is gone may be closed.
        with contextlib.suppress(RuntimeError):
            item.loop.call_soon_threadsafe(_settle, item.future, result, failure)


def refuse(items: Iterable[Item | None]) -> None:
    """Tell those who came while the database was being closed."""
    late = [item for item in items if item is not None]
    answer(late, [(None, closing_down())] * len(late))


def log_given_up(error: Exception, jobs: int) -> None:
    """Say that a group failed as a whole, and its jobs run one by one."""
    if isinstance(error, StorageError):
        log.warning("a group of writes runs one by one", extra={"error": error.detail, "jobs": jobs})
    else:
        log.warning("a group of writes runs one by one", extra={"jobs": jobs}, exc_info=error)


def _attempt(job: Job, connection: Connection, dialect: Transactions) -> Outcome:
    try:
        with dialect.translated():
            return job(connection), None
    except (StorageAway, StorageFull):
        raise  # with the connection, or the room to go on, all of the transaction is gone
    except Exception as error:
        return None, error


def _settle(future: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
