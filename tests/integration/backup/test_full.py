"""A disk that is full or fails in the middle of a backup, a restore or an upgrade leaves nothing half done."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.migrating import known_versions, upgrade_to
from chimera.adapters.storage.opening import open_database
from chimera.testing.faults.calls import KINDS, Faults, compiler
from chimera.testing.rows import digests_of, fill

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler (cc)")

CHIMERA = str(Path(sys.executable).with_name("chimera"))
VERSIONS = sorted(known_versions())
FULL = "the disk is full"


def home(folder: Path, name: str, *, seed: int, version: str = VERSIONS[-1]) -> Path:
    made = folder / name
    made.mkdir()

    async def make() -> None:
        database = open_database(made / "chimera.db")
        await database.exclusive(lambda connection: upgrade_to(connection, version))
        await fill(database, seed=seed, rows=30, version=version)
        if version == VERSIONS[-1]:
            await create_backup(database, folder / f"{name}.made", release="0.1.0")
        await asyncio.to_thread(database.close)

    asyncio.run(make())
    return made


@pytest.fixture
def faults(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Faults]:
    with Faults(tmp_path, request.param) as made:
        yield made


def run(where: Path, faults: Faults, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, **faults.environ, "CHIMERA_HOME": str(where)}
    return subprocess.run([CHIMERA, *arguments], env=environ, capture_output=True, text=True, timeout=120, check=False)


def left(folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob("*") if "partial" in file.name or "restoring" in file.name]


@pytest.mark.parametrize("faults", [".new.backup.partial"], indirect=True)
@pytest.mark.parametrize("kind", [FULL, "syncing fails"])
def test_a_backup(tmp_path: Path, faults: Faults, kind: str) -> None:
    where = home(tmp_path, "home", seed=1)
    target = tmp_path / "new.backup"
    # Where it can't be flushed the file was written, and still must not get its name.
    faults.fail(**KINDS[kind])
    done = run(where, faults, "backup", "create", str(target))
    assert done.returncode != 0
    assert faults.failed or kind == "syncing fails", "nothing failed"
    assert "Next:" in done.stderr
    assert not target.exists()
    assert left(tmp_path) == []
    if kind == FULL:
        assert "No space left" in done.stderr and "make room" in done.stderr

    faults.fail()
    assert run(where, faults, "backup", "create", str(target)).returncode == 0
    assert run(where, faults, "backup", "verify", str(target)).returncode == 0


@pytest.mark.parametrize("faults", [".chimera.db.restoring"], indirect=True)
def test_a_restore(tmp_path: Path, faults: Faults) -> None:
    where, other = home(tmp_path, "home", seed=1), home(tmp_path, "other", seed=2)
    database = str(where / "chimera.db")
    before, comes = asyncio.run(digests_of(database)), asyncio.run(digests_of(str(other / "chimera.db")))

    faults.fail(**KINDS[FULL])
    done = run(where, faults, "restore", str(tmp_path / "other.made"), "--replace")
    assert done.returncode != 0 and faults.failed
    assert "full" in done.stderr, done.stderr
    assert left(where) == []
    assert asyncio.run(digests_of(database)) == before

    faults.fail()
    assert run(where, faults, "restore", str(tmp_path / "other.made"), "--replace").returncode == 0
    after = asyncio.run(digests_of(database))
    assert {name: rows for name, rows in after.items() if name != "audit_entry"} == {
        name: rows for name, rows in comes.items() if name != "audit_entry"
    }


@pytest.mark.parametrize("faults", [".backup.partial"], indirect=True)
def test_a_start_whose_backup_has_no_room_does_not_migrate(tmp_path: Path, faults: Faults) -> None:
    where = home(tmp_path, "home", seed=1, version=VERSIONS[-2])
    faults.fail(**KINDS[FULL])
    for command in (["up", "--port", "0", "--model", "scripted"], ["upgrade"]):
        done = run(where, faults, *command)
        assert done.returncode not in (0, None)
        assert "No space left" in done.stderr
    faults.fail()
    rows = {row["check"]: row for row in json.loads(run(where, faults, "upgrade", "--check", "-o", "json").stdout)}
    assert VERSIONS[-2] in rows["database"]["detail"] and rows["database"]["state"] == "to do"
    assert left(where) == []
