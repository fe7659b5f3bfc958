"""Making a backup while the platform runs: one snapshot of the database, streamed into the archive.

On SQLite the snapshot is a read transaction, on PostgreSQL one at REPEATABLE READ. Writers go on meanwhile; what they
write is not in it. The files beside the database are as long as they were before the snapshot: a checkpoint of the
audit log is kept in the database first and in its file next, so the file never says more than the database does.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Connection, text

from chimera.adapters.storage.backup.archive import FORMAT, BackupWriter, Manifest, TableEntry, writing
from chimera.adapters.storage.backup.errors import file_failed
from chimera.adapters.storage.backup.rows import Layout
from chimera.adapters.storage.backup.tables import layouts_at, read_rows, without_limits
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.errors import NewerDatabase, StorageError
from chimera.adapters.storage.migrating import known_versions, schema_version, split_version

Sign = Callable[[Manifest], Manifest]
Progress = Callable[[str, int], None]


def _silent(table: str, rows: int) -> None:
    return None


async def create_backup(
    database: Database,
    target: Path,
    *,
    release: str,
    files: Mapping[str, Path] | None = None,
    sign: Sign = lambda manifest: manifest,
    progress: Progress = _silent,
) -> Manifest:
    """Write a backup of the database and `files` (path in the home → file; what isn't there is left out) to `target`.

    Raises `BackupExists`, `StorageFull`, or any other `StorageError`; then there is no file of that name.
    """
    found = await database.read(schema_version)
    version = _known(found)
    layouts = layouts_at(version)
    sizes = {name: file.stat().st_size for name, file in (files or {}).items() if file.is_file()}

    def query(connection: Connection) -> Manifest:
        created = time.time()
        without_limits(connection)
        with writing(target, created) as writer:
            manifest = Manifest(
                format=FORMAT,
                release=release,
                schema=version,
                dialect=database.dialect,
                created=created,
                audit=_audit(connection, layouts),
                tables=tuple(_table(writer, connection, layout, progress) for layout in layouts),
                files=tuple(writer.file(name, (files or {})[name], size) for name, size in sizes.items()),
            )
            manifest = sign(manifest)
            writer.finish(manifest)
        return manifest

    try:
        return await database.read(query)
    except OSError as error:
        raise file_failed(target, error) from None


def _known(found: str | None) -> str:
    if found is None:
        raise StorageError("the database is empty", next_step="there is nothing to back up before the first start")
    version, mark = split_version(found)
    if version not in known_versions():
        raise NewerDatabase(
            f"the schema is at {found}, which this release doesn't know", next_step="use the release that wrote it"
        )
    if mark is not None and mark.startswith("moving"):
        raise StorageError("a move to this database is not finished", next_step="finish the move first")
    return version


def _audit(connection: Connection, layouts: tuple[Layout, ...]) -> int:
    if not any(layout.table == "journal_head" for layout in layouts):
        return 0
    return int(connection.execute(text("SELECT audit_seq FROM journal_head")).scalar() or 0)


def _table(writer: BackupWriter, connection: Connection, layout: Layout, progress: Progress) -> TableEntry:
    with writer.table(layout) as table:
        read_rows(connection, layout, table.add)
    entry = table.entry
    progress(layout.table, entry.rows)
    return entry
