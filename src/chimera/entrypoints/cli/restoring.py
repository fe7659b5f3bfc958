"""What `chimera restore` does: a backup into a home's database, and the files beside it.

The database comes first and as a whole; what is put beside it can be put there again. A home whose file of checkpoints
says more than the backup does has lost what came later: that file, and the key that signed it, are set aside and kept,
and a new key signs what is there now. So the log verifies, and whoever has the old file can still see what is missing.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chimera.adapters.signing.ed25519 import check_signature, make_key, read_key
from chimera.adapters.signing.files import FileOfCheckpoints
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.backup.archive import BackupReader, FileEntry, reading, sync_folder
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.errors import NotEmpty, UntrustedBackup, file_failed
from chimera.adapters.storage.backup.restoring import check_backup, restore_file, restore_server
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import is_current, schema_version
from chimera.adapters.storage.naming import open_of_settings
from chimera.adapters.storage.opening import is_url, shown
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.audit_verify import keys_of
from chimera.entrypoints.cli.homes import Home, alone, home_of, release, with_database
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.note import PublicKey, open_note, parse_public_key
from chimera.kernel.places import PRIVATE

Row = dict[str, Any]

CHECKPOINTS, PUBLIC_KEYS, SETTINGS = "audit/checkpoints", "audit/public-keys", "settings.toml"
BROUGHT_SETTINGS = "settings.restored.toml"


def restored(
    options: Mapping[str, Any], path: Path, public_keys: Sequence[str], *, replace: bool, discard: bool
) -> Row:
    """Restore the backup at `path`; what was done, for people and programs."""
    home = home_of(options)
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(home), reading(path) as reader:
        check_trust(reader, options, public_keys)
        check_backup(reader)
        kept = _keep(home, replace=replace, discard=discard)
        asyncio.run(_database(home, reader, replace=replace))
        out.end_progress()
        steps = place_files(home, reader)
        if with_database(home, is_current):
            with_database(home, lambda database: _record(database, reader))
        manifest = reader.manifest
    return {
        "database": shown(home.database),
        "rows": manifest.rows,
        "created": manifest.created,
        "schema": manifest.schema,
        "digest": manifest.digest,
        "kept": None if kept is None else str(kept),
        "next": steps,
    }


def check_trust(reader: BackupReader, options: Mapping[str, Any], given: Sequence[str]) -> None:
    """Raise `UntrustedBackup` where keys are given and none of them has signed the backup."""
    if not given:
        return
    note, statement = reader.manifest.signature, reader.manifest.statement
    keys: tuple[PublicKey, ...] = keys_of(options, given)
    if note is not None and any(open_note(note, key, check_signature) == statement for key in keys):
        return
    why = "it is not signed" if note is None else "its signature is of another key, or of another backup"
    raise UntrustedBackup(f"{reader.file}: {why}", next_step="use a backup that this key has signed")


def place_files(home: Home, reader: BackupReader) -> list[str]:
    """Put what lay beside the database where it belongs, and set aside what contradicts it; what a person should do."""
    entries = {entry.name: entry for entry in reader.manifest.files}
    steps: list[str] = []
    for name in PRIVATE:
        where = home.signing_key if name == "audit.key" else home.path / name
        if name in entries and where is not None and not where.exists():
            _write(where, reader, entries[name])
    _checkpoints(home, reader, entries.get(CHECKPOINTS), steps)
    _public_keys(home, reader, entries.get(PUBLIC_KEYS))
    if SETTINGS in entries:
        data = b"".join(reader.chunks(entries[SETTINGS]))
        file = home.path / SETTINGS
        if not file.exists() or file.read_bytes() != data:
            _write(home.path / BROUGHT_SETTINGS, reader, entries[SETTINGS])
            steps.append(f"compare {BROUGHT_SETTINGS}, which the backup brought, with {SETTINGS}")
    if home.audit.copy:
        steps.append(f"move {home.audit.copy} aside if it says more than the restored log: it proves what is lost")
    return steps


def _checkpoints(home: Home, reader: BackupReader, entry: FileEntry | None, steps: list[str]) -> None:
    file, key = home.path / CHECKPOINTS, home.signing_key
    mine = _last(file)
    brought = b"" if entry is None else b"".join(reader.chunks(entry))
    there = file.read_bytes() if file.exists() else b""
    if there and (mine is None or mine.size > reader.manifest.audit or not _one_begins(there, brought)):
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        file.rename(file.with_name(f"checkpoints.{stamp}"))
        steps.append(f"keep {CHECKPOINTS}.{stamp}: it shows what the log held before the restore")
        if not home.audit.key and key is not None and key.exists():
            key.rename(key.with_name(f"audit.key.{stamp}"))
        there = b""
    if entry is not None and len(brought) > len(there):
        _write(file, reader, entry)
    last = _last(file)
    if last is not None and key is not None and not key.exists() and not home.audit.key:
        # The same log goes on by another key: what is signed already stays checked by the old one's public part.
        name = last.note.partition("\n")[0]
        make_key(key, name)
        steps.append(f"keep a copy of {PUBLIC_KEYS} elsewhere: a new key signs the audit log from here on")


def _public_keys(home: Home, reader: BackupReader, entry: FileEntry | None) -> None:
    """Every key that was ever known, the newest last."""
    file = home.path / PUBLIC_KEYS
    brought = [] if entry is None else b"".join(reader.chunks(entry)).decode("utf-8", "replace").splitlines()
    there = file.read_text("utf-8").splitlines() if file.exists() else []
    lines = [line for line in brought if line not in there] + there
    for line in lines:
        if line.strip() and not line.startswith("#"):
            parse_public_key(line)
    if home.signing_key is not None and home.signing_key.exists():
        public = str(read_key(home.signing_key).public)
        lines = [line for line in lines if line != public] + [public]
    if lines and lines != there:
        _put(file, ("\n".join(lines) + "\n").encode())


def _last(file: Path) -> Checkpoint | None:
    return max(FileOfCheckpoints(file).read(), key=lambda one: one.size, default=None)


def _one_begins(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _keep(home: Home, *, replace: bool, discard: bool) -> Path | None:
    """A backup of what the database holds, or the file itself set aside; None where nothing is there."""
    name = home.database
    if not is_url(name) and not Path(name).exists():
        return None
    if not replace:
        found = with_database(home, lambda database: database.read(schema_version))
        if found is None:
            return None
        raise NotEmpty(f"{shown(name)} holds a database", next_step="give --replace, which makes a backup of it first")
    if not discard:
        return with_database(home, lambda database: _kept(home, database))
    if is_url(name):
        return None
    aside = Path(f"{name}.discarded-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    for suffix in ("-wal", "-shm"):
        if Path(name + suffix).exists():
            Path(name + suffix).rename(f"{aside}{suffix}")
    Path(name).rename(aside)
    return aside


async def _kept(home: Home, database: Database) -> Path | None:
    if await database.read(schema_version) is None:
        return None
    target = await asyncio.to_thread(home.new_backup, "before-restore")
    await create_backup(database, target, release=release(), files=home.files(), sign=home.signed)
    return target


async def _database(home: Home, reader: BackupReader, *, replace: bool) -> None:
    told = out.progress("restored")
    if not is_url(home.database):
        await restore_file(reader, Path(home.database), replace=replace, progress=told)
        return
    database = open_of_settings(home.node, home.path, os.environ)
    try:
        await restore_server(database, reader, replace=replace, progress=told)
    finally:
        await asyncio.to_thread(database.close)


async def _record(database: Database, reader: BackupReader) -> None:
    """Leave an entry in the audit log: from here on it is another history than before."""
    manifest = reader.manifest
    await AuditStorage(database).record(
        [
            AuditRecord(
                at=time.time(),
                tenant="",
                actor="system:restore",
                action="platform.restored",
                resource="database",
                outcome="done",
                detail={"backup": manifest.digest, "created": manifest.created, "release": manifest.release},
            )
        ]
    )


def _write(file: Path, reader: BackupReader, entry: FileEntry) -> None:
    _put(file, b"".join(reader.chunks(entry)))


def _put(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, mode 0600."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_name(f".{file.name}.partial")
        descriptor = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        partial.rename(file)
        sync_folder(file.parent)
    except OSError as error:
        raise file_failed(file, error) from None
