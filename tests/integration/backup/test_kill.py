"""A backup, a restore and a move that are killed at any moment leave all of what was before, or all of what comes.

`CHIMERA_TEST_KILLS` sets how often each is killed (4 by default), `CHIMERA_TEST_SEED` the moments.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from chimera.adapters.storage.backup.archive import reading
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import DatabaseMoved, DatabaseMoving
from chimera.adapters.storage.migrating import refuse_unusable, schema_version
from chimera.adapters.storage.opening import is_url, open_database
from chimera.testing.rows import digests_of, fill

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "4"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
ROWS = 60
PROGRAM = Path(__file__).parent / "working.py"


class Worker:
    """Starts processes that work; kills them after a part of the time that one needs that isn't killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._moments = random.Random(SEED)
        self.killed = 0

    def run(self, what: str, source: str, target: str, *, within: float | None = None) -> int:
        """Run it, and kill it at a random moment `within` so many seconds (None: let it end); its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode([what, source, target]) + b"\n")
        self._process.stdin.flush()
        pid, begun, timer = None, False, None
        while line := self._process.stdout.readline():
            match msgspec.json.decode(line):
                case ["started", number]:
                    pid = number
                case ["begun"]:
                    begun = True
                case ["ended", code]:
                    if timer is not None:
                        timer.cancel()
                        timer.join()
                    self.killed += code == -signal.SIGKILL
                    return int(code)
            if pid is not None and begun and within is not None and timer is None:
                timer = threading.Timer(self._moments.uniform(0.0, within), os.kill, (pid, signal.SIGKILL))
                timer.start()
        raise AssertionError("the working process failed; its error is above")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def on(name: str, work: Callable[[Database], object]) -> None:
    async def run() -> None:
        opened = open_database(name)
        try:
            await work(opened)  # type: ignore[misc]
        finally:
            await asyncio.to_thread(opened.close)

    asyncio.run(run())


def holds(name: str) -> dict[str, tuple[int, str]] | None:
    """What a database holds; None where there is nothing."""
    if not is_url(name) and not Path(name).exists():
        return None

    async def look() -> bool:
        opened = open_database(name)
        try:
            return await opened.read(schema_version) is not None
        finally:
            await asyncio.to_thread(opened.close)

    return asyncio.run(digests_of(name)) if asyncio.run(look()) else None


def usable(name: str) -> bool:
    async def look() -> bool:
        opened = open_database(name)
        try:
            await opened.read(refuse_unusable)
            return await opened.read(schema_version) is not None
        except (DatabaseMoved, DatabaseMoving):
            return False
        finally:
            await asyncio.to_thread(opened.close)

    return asyncio.run(look())


def seconds(work: Callable[[], object]) -> float:
    started = os.times().elapsed
    work()
    return os.times().elapsed - started


@pytest.mark.slow
def test_a_backup_is_there_whole_or_not_at_all(database_name: str, tmp_path: Path, worker: Worker) -> None:
    on(database_name, lambda database: fill(database, seed=1, rows=ROWS))
    within = seconds(lambda: worker.run("backup", database_name, str(tmp_path / "first")))
    for number in range(KILLS):
        target = tmp_path / f"{number}.backup"
        code = worker.run("backup", database_name, str(target), within=within)
        assert target.exists() == (code == 0) or code == -signal.SIGKILL
        if target.exists():
            with reading(target) as reader:
                reader.verify()
    assert worker.killed
    assert worker.run("backup", database_name, str(tmp_path / "last")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_a_restore_leaves_what_was_or_what_comes(
    migrated_file: Path, tmp_path: Path, new_name: Callable[[str], str], worker: Worker, to: str
) -> None:
    backups = []
    for seed in (1, 2):
        source, file = tmp_path / f"source-{seed}.db", tmp_path / f"{seed}.backup"
        shutil.copy(migrated_file, source)
        on(str(source), lambda database, seed=seed: fill(database, seed=seed, rows=ROWS))  # type: ignore[misc]
        on(str(source), lambda database, file=file: create_backup(database, file, release="0"))  # type: ignore[misc]
        backups.append((file, asyncio.run(digests_of(str(source)))))
    target, before = new_name(to), None
    within = seconds(lambda: worker.run("restore", str(backups[0][0]), new_name(to)))
    for number in range(KILLS):
        file, comes = backups[number % 2]
        code = worker.run("restore", str(file), target, within=within)
        found = holds(target)
        assert found in (before, comes)
        assert code != 0 or found == comes
        before = found
    assert worker.killed
    assert worker.run("restore", str(backups[1][0]), target) == 0
    assert holds(target) == backups[1][1]
    if to == "sqlite":
        assert not list(Path(target).parent.glob(".*restoring*"))


@pytest.mark.slow
def test_a_move_goes_on_and_there_are_never_two(
    migrated_file: Path, tmp_path: Path, new_name: Callable[[str], str], worker: Worker
) -> None:
    def source(number: int) -> str:
        file = tmp_path / f"source-{number}.db"
        shutil.copy(migrated_file, file)
        on(str(file), lambda database: fill(database, seed=1, rows=ROWS))
        return str(file)

    within = seconds(lambda: worker.run("move", source(0), new_name("postgresql")))
    file, target = source(1), new_name("postgresql")
    before = asyncio.run(digests_of(file))
    for _ in range(KILLS):
        if worker.run("move", file, target, within=within / 2) == 0:
            break
        assert not (usable(file) and usable(target))
    assert worker.killed
    assert worker.run("move", file, target) == 0
    assert asyncio.run(digests_of(target)) == before
    assert (usable(target), usable(file)) == (True, False)
