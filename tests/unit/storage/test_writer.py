"""Writing: jobs share transactions, fail alone, and are answered after the commit."""

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageError
from chimera.adapters.storage.group import MOST_JOBS
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.opening import open_database


class Refused(Exception):
    pass


DEFERRED = {
    "sqlite": "PRAGMA defer_foreign_keys=ON",
    "postgresql": "ALTER TABLE batch_item ALTER CONSTRAINT fk_batch_item_tenant_batch DEFERRABLE INITIALLY DEFERRED",
}


def set_counter(name: str, value: int = 1) -> Callable[[Connection], int]:
    def job(connection: Connection) -> int:
        connection.execute(
            text("INSERT INTO counter (name, value) VALUES (:name, :value)"), {"name": name, "value": value}
        )
        return value

    return job


async def counters(database: Database) -> set[str]:
    names = text("SELECT name FROM counter WHERE name NOT IN ('sequence', 'quota')")
    return await database.read(lambda connection: set(connection.execute(names).scalars()))


class Gate:
    """Holds the writer's thread inside a job until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def job(self, connection: Connection) -> None:
        self.entered.set()
        assert self.opened.wait(10)


async def together(database: Database, *jobs: Callable[[Connection], object]) -> list[object]:
    """Submit `jobs` while the writer is busy, so that they wait together."""
    gate = Gate()
    first = asyncio.ensure_future(database.write(gate.job))
    await asyncio.to_thread(gate.entered.wait, 10)
    waiting = [asyncio.ensure_future(database.write(job)) for job in jobs]
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_jobs_that_wait_together_share_a_commit(database: Database) -> None:
    answers = await together(database, *(set_counter(f"c{number}", number) for number in range(50)))
    transactions = await together(database, *([journal] * 50))

    assert answers == list(range(50))
    assert len(await counters(database)) == 50
    assert len({id(one) for one in transactions}) == 1


async def test_no_transaction_takes_more_than_its_share(database: Database) -> None:
    transactions = await together(database, *([journal] * (MOST_JOBS + 1)))
    assert len({id(one) for one in transactions}) == 2


async def test_a_job_that_fails_takes_nothing_else_with_it(database: Database) -> None:
    def fails(connection: Connection) -> None:
        set_counter("half")(connection)
        raise Refused("no")

    first, failed, last = await together(database, set_counter("a"), fails, set_counter("b"))

    assert (first, last) == (1, 1)
    assert isinstance(failed, Refused)
    assert await counters(database) == {"a", "b"}


async def test_a_job_alone_that_fails_leaves_nothing(database: Database) -> None:
    def fails(connection: Connection) -> None:
        set_counter("half")(connection)
        raise Refused("no")

    with pytest.raises(Refused):
        await database.write(fails)

    assert await counters(database) == set()
    assert await database.write(set_counter("after")) == 1


async def test_what_the_database_refuses_is_ours(database: Database) -> None:
    await database.write(set_counter("a"))
    with pytest.raises(StorageError):
        await database.write(set_counter("a"))
    failed, fine = await together(database, set_counter("a"), set_counter("b"))
    assert isinstance(failed, StorageError)
    assert fine == 1


async def test_a_commit_that_fails_fails_the_job_that_is_to_blame(database: Database) -> None:
    def deferred(connection: Connection) -> str:
        # A row that breaks a foreign key is found at the commit alone.
        connection.exec_driver_sql(DEFERRED[database.dialect])
        connection.exec_driver_sql(
            "INSERT INTO batch_item (tenant, batch, position, source) VALUES ('t', 'nowhere', 0, '')"
        )
        return "done"

    def refuses(connection: Connection) -> None:
        raise Refused("its own reason")

    good, refused, bad = await together(database, set_counter("a"), refuses, deferred)

    assert good == 1
    assert isinstance(bad, StorageError)
    assert isinstance(refused, Refused)
    assert await counters(database) == {"a"}
    assert await database.write(set_counter("after")) == 1


async def test_an_answer_comes_after_the_commit(database: Database, database_name: str) -> None:
    for number in range(20):
        await database.write(set_counter(f"c{number}"))
        assert f"c{number}" in await counters(database)


async def test_a_caller_that_gives_up_does_not_take_its_job_back(database: Database) -> None:
    gate = Gate()
    first = asyncio.ensure_future(database.write(gate.job))
    await asyncio.to_thread(gate.entered.wait, 10)
    given_up = asyncio.ensure_future(database.write(set_counter("kept")))
    await asyncio.sleep(0)
    given_up.cancel()
    gate.opened.set()
    await first
    await database.write(set_counter("later"))
    assert await counters(database) == {"kept", "later"}


async def test_closing_finishes_what_was_submitted_and_takes_no_more(database: Database, database_name: str) -> None:
    other = open_database(database_name)
    jobs = [asyncio.ensure_future(other.write(set_counter(f"c{number}"))) for number in range(30)]
    await asyncio.sleep(0)
    await asyncio.to_thread(other.close)
    await asyncio.gather(*jobs)
    assert len(await counters(database)) == 30

    with pytest.raises(StorageError):
        await other.write(set_counter("late"))
    other.close()


async def test_two_processes_may_write(database: Database, database_name: str) -> None:
    other = open_database(database_name)
    mine = [database.write(set_counter(f"a{number}")) for number in range(100)]
    theirs = [other.write(set_counter(f"b{number}")) for number in range(100)]
    await asyncio.gather(*mine, *theirs)
    await asyncio.to_thread(other.close)
    assert len(await counters(database)) == 200


async def test_jobs_that_lock_rows_the_other_way_round_all_end_well(database: Database, database_name: str) -> None:
    other = open_database(database_name)
    for name in ("x", "y"):
        await database.write(set_counter(name, 0))
    up = text("UPDATE counter SET value = value + 1 WHERE name = :name")

    def in_turn(*names: str) -> Callable[[Connection], None]:
        def job(connection: Connection) -> None:
            for name in names:
                connection.execute(up, {"name": name})

        return job

    mine = [database.write(in_turn("x", "y")) for _ in range(40)]
    theirs = [other.write(in_turn("y", "x")) for _ in range(40)]
    await asyncio.gather(*mine, *theirs)

    values = text("SELECT value FROM counter WHERE name IN ('x', 'y')")
    assert await database.read(lambda connection: connection.execute(values).scalars().all()) == [80, 80]
    await asyncio.to_thread(other.close)


async def test_a_reader_who_gives_up_takes_nothing_with_it(database: Database) -> None:
    slow = {"sqlite": "SELECT 1", "postgresql": "SELECT pg_sleep(30)"}[database.dialect]
    for _ in range(20):
        waiting = asyncio.ensure_future(database.read(lambda connection: connection.execute(text(slow)).all()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(counters(database) for _ in range(20))) == [set()] * 20


async def test_readers_who_gave_up_are_gone_once_it_is_closed(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    slow = {"sqlite": "SELECT 1", "postgresql": "SELECT pg_sleep(30)"}[database.dialect]
    for number in range(10):
        waiting = asyncio.ensure_future(database.read(lambda connection: connection.execute(text(slow)).all()))
        await asyncio.sleep(0.001 * number)  # before it is connected, while it connects, in the statement
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    await asyncio.to_thread(database.close)

    gc.collect()
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]
