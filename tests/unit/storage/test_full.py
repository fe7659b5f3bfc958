"""A full disk: writes are refused as such, reads go on, and so do writes once there is room."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import StorageFull

# SQLite is really full: its file may not grow. A server's disk can't be filled in a test without a file system of its
# own, so a trigger says what the server says then.
FILL = {
    "sqlite": ("PRAGMA max_page_count=1",),
    "postgresql": (
        "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF length(NEW.data) > 1000 THEN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON bundle FOR EACH ROW EXECUTE FUNCTION is_full()",
    ),
}
MAKE_ROOM = {"sqlite": ("PRAGMA max_page_count=1000000",), "postgresql": ("DROP TRIGGER full_disk ON bundle",)}
PUT = text("INSERT INTO bundle (digest, tenant, data, created) VALUES (:digest, 't', :data, 0)")
COUNT = text("SELECT count(*) FROM bundle")


def put(digest: str, size: int) -> Callable[[Connection], int]:
    return lambda connection: connection.execute(PUT, {"digest": digest, "data": bytes(size)}).rowcount


def run(*statements: str) -> Callable[[Connection], None]:
    def job(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    return job


async def count(database: Database) -> int:
    return int(await database.read(lambda connection: connection.execute(COUNT).scalar() or 0))


async def test_writes_are_refused_and_reads_go_on_until_there_is_room(database: Database) -> None:
    await database.write(put("before", 10))
    await database.write(run(*FILL[database.dialect]))

    with pytest.raises(StorageFull) as caught:
        await database.write(put("large", 2_000_000))

    assert (caught.value.status, caught.value.code) == (507, "storage-full")
    assert caught.value.retry_after
    assert "room" in (caught.value.next_step or "")
    assert await count(database) == 1

    await database.write(run(*MAKE_ROOM[database.dialect]))
    await database.write(put("large", 2_000_000))
    assert await count(database) == 2


async def test_one_that_is_too_large_takes_nothing_else_with_it(database: Database) -> None:
    await database.write(run(*FILL[database.dialect]))

    jobs = [put(f"small-{number}", 1) for number in range(10)]
    jobs.insert(5, put("large", 2_000_000))
    outcomes = await asyncio.gather(*(database.write(job) for job in jobs), return_exceptions=True)

    assert [isinstance(outcome, StorageFull) for outcome in outcomes] == [job == 5 for job in range(11)]
    assert await count(database) == 10
