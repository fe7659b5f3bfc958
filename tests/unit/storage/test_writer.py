"""The writer: jobs share transactions, fail alone, and are answered after the commit."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, text

from chimera.adapters.storage.database import StorageError, open_engine
from chimera.adapters.storage.writer import MOST_JOBS, Writer


class Refused(Exception):
    pass


def set_counter(name: str, value: int = 1) -> Callable[[Connection], int]:
    def job(connection: Connection) -> int:
        connection.execute(
            text("INSERT INTO counter (name, value) VALUES (:name, :value)"), {"name": name, "value": value}
        )
        return value

    return job


def counters(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(text("SELECT name FROM counter WHERE name <> 'sequence'")).scalars())


class Gate:
    """Holds the writer's thread inside a job until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def job(self, connection: Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)


@pytest.fixture
def commits(engine: Engine) -> list[str]:
    found: list[str] = []
    event.listen(engine, "commit", lambda connection: found.append("commit"))
    return found


async def together(writer: Writer, *jobs: Callable[[Connection], object]) -> list[object]:
    """Submit `jobs` while the writer is busy, so that they wait together."""
    gate = Gate()
    first = asyncio.ensure_future(writer.submit(gate.job))
    await asyncio.to_thread(gate.entered.wait, 10)
    waiting = [asyncio.ensure_future(writer.submit(job)) for job in jobs]
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_jobs_that_wait_together_share_a_commit(writer: Writer, engine: Engine, commits: list[str]) -> None:
    answers = await together(writer, *(set_counter(f"c{number}", number) for number in range(50)))

    assert answers == list(range(50))
    assert len(commits) == 2  # the gate's and theirs
    assert len(counters(engine)) == 50


async def test_no_transaction_takes_more_than_its_share(writer: Writer, engine: Engine, commits: list[str]) -> None:
    await together(writer, *(set_counter(f"c{number}") for number in range(MOST_JOBS + 1)))
    assert len(commits) == 3


async def test_a_job_that_fails_takes_nothing_else_with_it(writer: Writer, engine: Engine) -> None:
    def fails(connection: Connection) -> None:
        set_counter("half")(connection)
        raise Refused("no")

    first, failed, last = await together(writer, set_counter("a"), fails, set_counter("b"))

    assert (first, last) == (1, 1)
    assert isinstance(failed, Refused)
    assert counters(engine) == {"a", "b"}


async def test_a_job_alone_that_fails_leaves_nothing(writer: Writer, engine: Engine) -> None:
    def fails(connection: Connection) -> None:
        set_counter("half")(connection)
        raise Refused("no")

    with pytest.raises(Refused):
        await writer.submit(fails)

    assert counters(engine) == set()
    assert await writer.submit(set_counter("after")) == 1


async def test_what_the_database_refuses_is_ours(writer: Writer) -> None:
    await writer.submit(set_counter("a"))
    with pytest.raises(StorageError):
        await writer.submit(set_counter("a"))
    failed, fine = await together(writer, set_counter("a"), set_counter("b"))
    assert isinstance(failed, StorageError)
    assert fine == 1


async def test_a_commit_that_fails_fails_every_job_in_it(writer: Writer, engine: Engine) -> None:
    def deferred(connection: Connection) -> str:
        # A row that breaks a foreign key is found at the commit alone.
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.exec_driver_sql(
            "INSERT INTO batch_item (tenant, batch, position, source) VALUES ('t', 'nowhere', 0, '')"
        )
        return "done"

    def refuses(connection: Connection) -> None:
        raise Refused("its own reason")

    good, refused, bad = await together(writer, set_counter("a"), refuses, deferred)

    assert isinstance(good, StorageError)
    assert isinstance(bad, StorageError)
    assert isinstance(refused, Refused)
    assert counters(engine) == set()
    assert await writer.submit(set_counter("after")) == 1


async def test_an_answer_comes_after_the_commit(writer: Writer, engine: Engine, tmp_path: Path) -> None:
    for number in range(20):
        await writer.submit(set_counter(f"c{number}"))
        assert f"c{number}" in counters(engine)


async def test_a_caller_that_gives_up_does_not_take_its_job_back(writer: Writer, engine: Engine) -> None:
    gate = Gate()
    first = asyncio.ensure_future(writer.submit(gate.job))
    await asyncio.to_thread(gate.entered.wait, 10)
    given_up = asyncio.ensure_future(writer.submit(set_counter("kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    gate.opened.set()
    await first
    await writer.submit(set_counter("later"))
    assert counters(engine) == {"kept", "later"}


async def test_closing_finishes_what_was_submitted_and_takes_no_more(engine: Engine) -> None:
    writer = Writer(engine)
    jobs = [asyncio.ensure_future(writer.submit(set_counter(f"c{number}"))) for number in range(30)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    await asyncio.gather(*jobs)
    assert len(counters(engine)) == 30

    with pytest.raises(StorageError):
        await writer.submit(set_counter("late"))
    writer.close()


async def test_two_processes_may_write(writer: Writer, engine: Engine, tmp_path: Path) -> None:
    other_engine = open_engine(tmp_path / "chimera.db")
    other = Writer(other_engine)
    mine = [writer.submit(set_counter(f"a{number}")) for number in range(100)]
    theirs = [other.submit(set_counter(f"b{number}")) for number in range(100)]
    await asyncio.gather(*mine, *theirs)
    await asyncio.to_thread(other.close)
    other_engine.dispose()
    assert len(counters(engine)) == 200
