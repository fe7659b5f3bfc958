"""Backups of both databases, restored to both; consistent under load; damaged ones are refused with their place."""

import asyncio
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.adapters.signing.ed25519 import check_signature
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.backup.archive import MANIFEST, Manifest, reading
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.errors import BackupExists, InUse, InvalidBackup, NotEmpty
from chimera.adapters.storage.backup.restoring import AHEAD, restore_file, restore_server
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase, StorageError
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import is_current, mark_version, migrate
from chimera.adapters.storage.naming import MAINTENANCE
from chimera.adapters.storage.opening import is_url, open_database
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.reading import verify
from chimera.testing.rows import SETTLED, digests, digests_of, fill


async def restore(file: Path, name: str, *, replace: bool = False) -> None:
    with reading(file) as reader:
        if not is_url(name):
            await restore_file(reader, Path(name), replace=replace, progress=lambda table, rows: None)
            return
        opened = open_database(name, application=MAINTENANCE)
        try:
            await restore_server(opened, reader, replace=replace, progress=lambda table, rows: None)
        finally:
            await asyncio.to_thread(opened.close)


def there(file: str | Path) -> bool:
    return Path(file).exists()


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if "partial" in file.name or "restoring" in file.name)


async def made(database: Database, file: Path, **more: object) -> Manifest:
    return await create_backup(database, file, release="0.1.0", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
async def test_everything_comes_back_on_either_database(
    filled: Database, tmp_path: Path, new_name: Callable[[str], str], to: str
) -> None:
    file = tmp_path / "a.backup"
    beside = tmp_path / "settings.toml"
    beside.write_bytes(b"[node]\nmax_hosts = 3\n")
    manifest = await made(filled, file, files={"settings.toml": beside, "audit/none": tmp_path / "none"})

    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in manifest.files] == ["settings.toml"]
    assert left_in(tmp_path) == []
    target = new_name(to)
    await restore(file, target)

    assert await digests_of(target) == await digests(filled)
    opened = open_database(target)
    assert await is_current(opened)
    await asyncio.to_thread(opened.close)
    with reading(file) as reader:
        reader.verify()
        assert b"".join(reader.chunks(reader.manifest.files[0])) == beside.read_bytes()


async def test_two_backups_of_the_same_have_the_same_digests_on_both_databases(
    filled: Database, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    first = await made(filled, tmp_path / "a.backup")
    other = new_name("sqlite" if filled.dialect == "postgresql" else "postgresql")
    await restore(tmp_path / "a.backup", other)
    opened = open_database(other)
    second = await made(opened, tmp_path / "b.backup")
    await asyncio.to_thread(opened.close)

    def tables(manifest: Manifest) -> dict[str, tuple[int, str]]:
        return {one.layout.table: (one.rows, one.digest) for one in manifest.tables if one.layout.table not in SETTLED}

    assert tables(first) == tables(second)
    assert [one.layout for one in first.tables] == [one.layout for one in second.tables]


async def test_a_backup_under_load_is_one_moment(
    database: Database, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    log = AuditStorage(database)
    stop, enough = asyncio.Event(), asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            entry = AuditRecord(at=1.0, tenant="t", actor="a", action="b", resource="c", outcome="done", detail={})
            await log.record([entry] * 7)
            written += 7
            if written >= 200:
                enough.set()

    writers = [asyncio.create_task(write()) for _ in range(4)]
    await enough.wait()
    file = tmp_path / "a.backup"
    manifest = await made(database, file)
    during = written
    stop.set()
    await asyncio.gather(*writers)

    assert 200 <= manifest.audit <= during + 28
    target = new_name(database.dialect)
    await restore(file, target)
    opened = open_database(target)
    store = AuditStorage(opened)
    head = await store.head()
    report = await verify(store, keys=(), checker=check_signature)
    await asyncio.to_thread(opened.close)
    assert {one.kind for one in report.findings} == {"unsigned"}, report.findings
    assert (head.seq, report.last) == (manifest.audit, manifest.audit)
    assert head.seq % 7 == 0, "a transaction is torn"


async def test_what_belongs_to_processes_that_are_gone_does_not_come_back(
    database: Database, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    leases = StoredLeases(database)
    held = await leases.acquire("work", "one", 1e9)
    assert held is not None
    await fill(database, seed=5, rows=3)
    await made(database, tmp_path / "a.backup")
    later = await leases.acquire("more", "one", 1e9)
    assert later is not None

    target = new_name(database.dialect)
    await restore(tmp_path / "a.backup", target)
    opened = open_database(target)
    taken = await StoredLeases(opened).acquire("work", "other", 60.0)
    assert taken is not None
    assert taken.token > held.token + AHEAD - 1

    def look(connection):  # type: ignore[no-untyped-def]
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            for name in ("run_holder", "gateway_alive", "task_worker")
        ]
        cursors = {row[0] for row in connection.exec_driver_sql("SELECT cursor FROM subscription")}
        return counts, connection.exec_driver_sql("SELECT event_seq FROM journal_head").scalar(), cursors

    counts, place, cursors = await opened.read(look)
    await asyncio.to_thread(opened.close)
    assert counts == [0, 0, 0]
    assert place >= AHEAD
    assert {cursor for cursor in cursors if cursor >= 0} <= {place}, "who had all events has all events"


async def test_what_is_there_is_kept_unless_it_may_be_replaced(
    filled: Database, database_name: str, tmp_path: Path
) -> None:
    await made(filled, tmp_path / "a.backup")
    before = await digests(filled)
    opened = open_database(database_name, application=MAINTENANCE)
    await fill(opened, seed=9, rows=4)
    await asyncio.to_thread(opened.close)
    with pytest.raises(NotEmpty):
        await restore(tmp_path / "a.backup", database_name)
    assert await digests(filled) != before

    await asyncio.to_thread(filled.close)
    await restore(tmp_path / "a.backup", database_name, replace=True)
    assert await digests_of(database_name) == before


async def test_a_server_that_homes_use_is_not_replaced(
    postgresql_server: object, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    used, empty = new_name("postgresql"), new_name("postgresql")
    running = open_database(used)
    await migrate(running)
    await running.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())
    await made(running, tmp_path / "a.backup")
    with pytest.raises(InUse):
        await restore(tmp_path / "a.backup", used, replace=True)
    await restore(tmp_path / "a.backup", empty)
    await asyncio.to_thread(running.close)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[:-100], "its end is missing"),
    "half": (lambda data: data[: len(data) // 2], "its end is missing"),
    "empty": (lambda data: b"", "no backup"),
    "none": (lambda data: b"PK nothing of the kind", "no backup"),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_a_backup_that_was_cut_off_is_refused(
    filled: Database, tmp_path: Path, new_name: Callable[[str], str], what: str
) -> None:
    file = tmp_path / "a.backup"
    await made(filled, file)
    change, why = DAMAGE[what]
    file.write_bytes(change(file.read_bytes()))
    target = new_name("sqlite")
    with pytest.raises(InvalidBackup, match=why):
        await restore(file, target)
    assert not there(target)


async def test_a_byte_that_was_altered_is_found_with_its_place(
    filled: Database, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    file = tmp_path / "a.backup"
    await made(filled, file)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        places = {info.filename: (info.header_offset, info.compress_size) for info in archive.infolist()}
    for table in ("session", "task", "audit_entry"):
        offset, size = places[f"tables/{table}"]
        at = offset + 30 + len(f"tables/{table}") + size // 2
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        target = new_name("sqlite")
        with pytest.raises(InvalidBackup, match=f"tables/{table}"):
            await restore(file, target)
        assert not there(target)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Write the archive anew, with checksums that fit, as somebody would who forges one."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)


async def test_a_backup_that_was_forged_is_refused_with_its_place(filled: Database, tmp_path: Path) -> None:
    file, forged = tmp_path / "a.backup", tmp_path / "b.backup"
    await made(filled, file)

    def without_a_row(name: str, data: bytes) -> bytes:
        return data if name != "tables/session" else data[4 + int.from_bytes(data[:4], "big") :]

    def without_a_table(name: str, data: bytes) -> bytes | None:
        return data if name != "tables/policy" else None

    def with_an_altered_row(name: str, data: bytes) -> bytes:
        return data if name != "tables/agent" else data[:-1] + bytes([data[-1] ^ 1])

    def of_another_format(name: str, data: bytes) -> bytes:
        return data if name != MANIFEST else json.dumps({**json.loads(data), "format": 2}).encode()

    def of_a_newer_schema(name: str, data: bytes) -> bytes:
        return data if name != MANIFEST else json.dumps({**json.loads(data), "schema": "9999"}).encode()

    for change, where in (
        (without_a_row, "tables/session: its 24 rows"),
        (without_a_table, "tables/policy"),
        (with_an_altered_row, "tables/agent"),
        (of_another_format, "format is 2"),
        (of_a_newer_schema, "schema is 9999"),
    ):
        rewritten(file, forged, change)
        with pytest.raises((InvalidBackup, NewerDatabase), match=where) as refused:
            await restore(forged, str(tmp_path / "none.db"))
        assert refused.value.next_step
        assert not there(tmp_path / "none.db")


async def test_a_place_that_is_taken_and_a_database_that_is_none_are_refused(
    filled: Database, tmp_path: Path, new_name: Callable[[str], str]
) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(BackupExists):
        await made(filled, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    empty = open_database(new_name(filled.dialect))
    with pytest.raises(StorageError, match="empty"):
        await made(empty, tmp_path / "new")
    await asyncio.to_thread(empty.close)
    await filled.exclusive(lambda connection: mark_version(connection, "9999"))
    with pytest.raises(NewerDatabase):
        await made(filled, tmp_path / "new")
    with pytest.raises(StorageError, match="No such file"):
        await filled.exclusive(lambda connection: mark_version(connection, "0001"))
        await made(filled, tmp_path / "not" / "there")
    assert not there(tmp_path / "new")
