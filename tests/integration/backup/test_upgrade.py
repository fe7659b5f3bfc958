"""Databases of older releases come up to this one's schema, after a backup that brings back what was."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from chimera.adapters.storage.backup.archive import Manifest, reading
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.restoring import restore_file
from chimera.adapters.storage.backup.tables import layouts_at, write_rows
from chimera.adapters.storage.backup.upgrading import UpgradeFailed, bring_up, plan
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase, StorageFull
from chimera.adapters.storage.migrating import (
    SchemaState,
    head_version,
    is_current,
    known_versions,
    mark_version,
    pending,
    schema_version,
    upgrade_to,
)
from chimera.adapters.storage.opening import open_database
from chimera.entrypoints.cli.main import cli
from chimera.testing.rows import digests, digests_of, fill, made_rows

VERSIONS = sorted(known_versions())
BEFORE = VERSIONS[-2]


@pytest.fixture(params=[VERSIONS[0], BEFORE])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def older(dialect: str, version: str, new_name: Callable[[str], str]) -> AsyncIterator[Database]:
    """A database of an older schema, with rows in every table."""
    made = open_database(new_name(dialect))
    await made.exclusive(lambda connection: upgrade_to(connection, version))
    await fill(made, seed=4, rows=12, version=version)
    yield made
    await asyncio.to_thread(made.close)


async def test_a_database_of_every_release_comes_up_and_its_backup_brings_it_back(
    older: Database, version: str, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    file = tmp_path / "before.backup"
    before = await digests(older, version)

    async def backup(database: Database) -> Manifest:
        return await create_backup(database, file, release="0.1.0")

    found = await plan(older)
    assert (found.state, found.version, found.head) == (SchemaState.OLDER, version, head_version())
    assert [number for number, _ in found.migrations] == [one for one in VERSIONS if one > version]
    assert all(line for _, line in found.migrations)

    done = await bring_up(older, backup)

    assert done is not None and done[0] == version and done[1] is not None
    assert await is_current(older)
    after = await digests(older, version)
    assert after["counter"][0] >= before["counter"][0]  # a migration may bring a counter of its own
    assert {**after, "counter": before["counter"]} == before, "a migration changed what was stored"
    assert await bring_up(older, backup) is None, "there was nothing more to do"
    back = new_name("sqlite")
    with reading(file) as reader:
        assert reader.manifest.schema == version
        await restore_file(reader, Path(back), replace=False, progress=lambda table, rows: None)
    assert await digests_of(back, version) == before
    opened = open_database(back)
    assert await opened.read(schema_version) == version
    await asyncio.to_thread(opened.close)


@pytest.mark.parametrize("version", VERSIONS[-3:-1])
async def test_what_the_release_before_writes_fits_this_schema(database: Database, version: str) -> None:
    # It knows no column that was added since, and every one that was there when it was made.
    layouts = layouts_at(version)

    def job(connection: object) -> None:
        for layout, rows in made_rows(layouts, seed=6, rows=10):
            write_rows(connection, layout, rows)  # type: ignore[arg-type]

    await database.exclusive(job)
    counted = await digests(database, version)
    assert min(rows for rows, _ in counted.values()) >= 10


@pytest.mark.parametrize("version", [BEFORE])
async def test_without_its_backup_a_database_is_left_as_it_was(older: Database, version: str) -> None:
    async def full(database: Database) -> Manifest:
        raise StorageFull("no room")

    with pytest.raises(StorageFull):
        await bring_up(older, full)
    assert await older.read(schema_version) == version


@pytest.mark.parametrize("version", [BEFORE])
async def test_a_migration_that_fails_is_taken_back_and_says_what_to_do(
    older: Database, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chimera.adapters.storage.backup import upgrading

    def broken(connection: object) -> None:
        upgrade_to(connection, "head")  # type: ignore[arg-type]
        connection.exec_driver_sql("DELETE FROM session WHERE version > 0")  # type: ignore[attr-defined]

    before = await digests(older, version)
    monkeypatch.setattr(upgrading, "upgrade", broken)
    with pytest.raises(UpgradeFailed, match="rows are missing afterwards in session") as failed:
        await bring_up(older, None)
    assert "release before" in (failed.value.next_step or "")
    assert await older.read(schema_version) == version
    assert await digests(older, version) == before


async def test_a_newer_database_is_refused(database: Database) -> None:
    await database.exclusive(lambda connection: mark_version(connection, "9999"))
    with pytest.raises(NewerDatabase):
        await bring_up(database, None)
    assert (await plan(database)).state is SchemaState.NEWER


def test_migrations_are_told_in_order() -> None:
    assert [number for number, _ in pending(None)] == VERSIONS
    assert pending(head_version()) == []


def made_home(folder: Path, version: str) -> Path:
    home = folder / "home"
    home.mkdir()

    async def make() -> None:
        database = open_database(home / "chimera.db")
        await database.exclusive(lambda connection: upgrade_to(connection, version))
        await fill(database, seed=8, rows=5, version=version)
        await asyncio.to_thread(database.close)

    asyncio.run(make())
    return home


def test_the_command_says_what_is_to_be_done_and_does_it(tmp_path: Path) -> None:
    home = made_home(tmp_path, BEFORE)
    (home / "settings.toml").write_text("[node]\nmax_hosts = 2\nmax_hostess = 3\n[nodes]\nfree = 1\n")

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["--home", str(home), *arguments], standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return int(done.return_value or 0), done.stdout

    (home / "settings.toml").write_text("[admission]\nhost_concurency = 2\n[nodes]\nfree = 1\n")
    code, said = run("upgrade", "--check", "--output", "json")
    rows = {row["check"]: row for row in json.loads(said)}
    assert code == 1
    assert rows["database"]["state"] == "to do"
    assert rows[f"migration {head_version()}"]["detail"]
    assert rows["backup"]["state"] == "ok" and "seconds" in rows["backup"]["detail"]
    problems = [row["detail"] for row in json.loads(said) if row["check"] == "settings"]
    assert ["nodes" in problems[0], "host_concurency" in problems[1]] == [True, True]

    (home / "settings.toml").unlink()
    code, said = run("upgrade", "--output", "json")
    result = json.loads(said)
    assert (code, result["from"]) == (0, BEFORE)
    with reading(Path(result["backup"])) as reader:
        reader.verify()
        assert reader.manifest.rows == result["rows"] > 0
    rows = {row["check"]: row for row in json.loads(run("upgrade", "--check", "--output", "json")[1])}
    assert rows["database"]["state"] == "ok"
    assert "nothing" in run("upgrade")[1]
