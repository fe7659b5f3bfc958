"""Moving a SQLite file to PostgreSQL: the same digests, resumable at any point, and never two that can be used."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.storage.backup import moving
from chimera.adapters.storage.backup.errors import InUse, MoveFailed, NotEmpty
from chimera.adapters.storage.backup.moving import Moved, move_to_server, unmark
from chimera.adapters.storage.backup.rows import UnfitValue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import DatabaseMoved, DatabaseMoving
from chimera.adapters.storage.migrating import is_current, migrate
from chimera.adapters.storage.naming import MAINTENANCE
from chimera.adapters.storage.opening import open_database
from chimera.testing.rows import digests_of, fill

ROWS = 40


@pytest.fixture
async def source(migrated_file: Path, tmp_path: Path) -> Path:
    file = tmp_path / "chimera.db"
    await asyncio.to_thread(shutil.copy, migrated_file, file)
    opened = open_database(file)
    await fill(opened, seed=11, rows=ROWS)
    await asyncio.to_thread(opened.close)
    return file


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "BATCH_ROWS", 9)


async def moved(source: Path, to: str, **more: Any) -> Moved:
    target = open_database(to, application=MAINTENANCE)
    try:
        return await move_to_server(source, target, **more)
    finally:
        await asyncio.to_thread(target.close)


async def state(name: str) -> str | None:
    """Why nothing starts on a database; None where it can be used."""
    opened = open_database(name)
    try:
        await migrate(opened)
        assert await is_current(opened)
    except (DatabaseMoved, DatabaseMoving) as refused:
        assert refused.next_step
        return type(refused).__name__
    finally:
        await asyncio.to_thread(opened.close)
    return None


async def test_everything_is_at_the_server_and_the_file_is_left_and_marked(
    source: Path, new_name: Callable[[str], str]
) -> None:
    before, to = await digests_of(str(source)), new_name("postgresql")

    done = await moved(source, to)

    assert await digests_of(to) == before == await digests_of(str(source))
    assert (await state(to), await state(str(source))) == (None, "DatabaseMoved")
    assert done.resumed == 0
    assert done.rows >= ROWS * (len(before) - 1)

    again = await moved(source, to)
    assert again.rows == 0, "there was nothing left to do"
    with pytest.raises(MoveFailed, match="not to this database"):
        await moved(source, new_name("postgresql"))
    assert unmark(source) and await state(str(source)) is None


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 20, 60])
async def test_a_move_that_was_stopped_goes_on(source: Path, new_name: Callable[[str], str], after: int) -> None:
    before, to = await digests_of(str(source)), new_name("postgresql")
    told = 0

    def stop(table: str, rows: int, of: int) -> None:
        nonlocal told
        told += 1
        if told == after:
            raise Stopped

    with pytest.raises(Stopped):
        await moved(source, to, progress=stop)
    assert (await state(to), await state(str(source))) == ("DatabaseMoving", None)

    done = await moved(source, to)
    assert done.resumed > 0
    assert await digests_of(to) == before
    assert (await state(to), await state(str(source))) == (None, "DatabaseMoved")


async def test_what_was_written_between_two_tries_is_moved_too(source: Path, new_name: Callable[[str], str]) -> None:
    to, told = new_name("postgresql"), 0

    def stop(table: str, rows: int, of: int) -> None:
        nonlocal told
        told += 1
        if told == 50:
            raise Stopped

    with pytest.raises(Stopped):
        await moved(source, to, progress=stop)
    opened = open_database(source)
    await opened.exclusive(lambda connection: connection.exec_driver_sql("UPDATE bundle SET created = created + 1"))
    await fill(opened, seed=12, rows=3)
    await asyncio.to_thread(opened.close)
    before = await digests_of(str(source))

    await moved(source, to)

    assert await digests_of(to) == before


@pytest.mark.parametrize("step", ["mark_moved", "_open"])
async def test_between_its_last_steps_neither_can_be_used_and_it_goes_on(
    source: Path, new_name: Callable[[str], str], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, to = await digests_of(str(source)), new_name("postgresql")

    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(*((moving._Source, step) if step == "mark_moved" else (moving, step)), stop)
        with pytest.raises(Stopped):
            await moved(source, to)
    left = await state(str(source))
    assert await state(to) == "DatabaseMoving"
    assert left == (None if step == "mark_moved" else "DatabaseMoved")

    await moved(source, to)
    assert await digests_of(to) == before
    assert (await state(to), await state(str(source))) == (None, "DatabaseMoved")


async def test_what_can_not_be_moved_is_refused_with_its_place_and_goes_on_when_mended(
    source: Path, new_name: Callable[[str], str]
) -> None:
    to = new_name("postgresql")
    connection = sqlite3.connect(source)
    connection.execute("UPDATE session SET subject = 'a' || char(0) || 'b' WHERE rowid = 30")
    connection.commit()
    with pytest.raises(UnfitValue, match=r"session: subject of a row .* NUL"):
        await moved(source, to)
    connection.execute("UPDATE session SET subject = 'ab' WHERE rowid = 30")
    connection.commit()
    connection.close()

    assert (await moved(source, to)).resumed > 0
    assert await digests_of(to) == await digests_of(str(source))


async def test_a_row_that_the_server_lost_is_found(
    source: Path, new_name: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = new_name("postgresql")
    store = moving._store

    def losing(connection: Any, *, table: Any, batch: list[Any], before: int) -> None:
        store(connection, table=table, batch=batch[1:] if table.layout.table == "task" else batch, before=before)

    monkeypatch.setattr(moving, "_store", losing)
    with pytest.raises(MoveFailed, match="task: the server has"):
        await moved(source, to)
    assert (await state(to), await state(str(source))) == ("DatabaseMoving", None)


async def test_files_and_servers_that_are_in_use_or_taken_are_refused(
    source: Path, new_name: Callable[[str], str], tmp_path: Path
) -> None:
    to, taken = new_name("postgresql"), new_name("postgresql")
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    monkey = moving._BUSY
    try:
        moving._BUSY = 0.1
        with pytest.raises(InUse):
            await moved(source, to)
    finally:
        moving._BUSY = monkey
        writer.close()
    other: Database = open_database(taken)
    await migrate(other)
    await asyncio.to_thread(other.close)
    with pytest.raises(NotEmpty):
        await moved(source, taken)
    with pytest.raises(MoveFailed, match="not there"):
        await moved(tmp_path / "none.db", to)
    assert await state(str(source)) is None
