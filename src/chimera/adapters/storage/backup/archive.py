"""The file of a backup: a ZIP archive with a member for each table and each file, and a manifest as the last.

    tables/<name>           rows, each after its length in four bytes, big-endian, in the encoding of `rows`
    files/<path>            what lay beside the database
    chimera-backup.json     the manifest: release, schema, columns, counts and digests of all the others

Every machine can open a ZIP archive. Its directory stands at the end, so a file that was cut off is none, and each
member has a checksum, so damage has a place. Whether it is the backup that was made is said by the manifest's digest
alone, which covers everything else; a signature by the audit log's key covers that.

Writing streams into a file of another name in the same folder, mode 0600, which gets its name when all of it is on the
disk. Whatever happens before, there is no file of that name.
"""

import fcntl
import hashlib
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chimera.adapters.storage.backup.errors import BackupExists, InvalidBackup, file_failed
from chimera.adapters.storage.backup.rows import Layout, RowCodec, TableDigest, UnfitValue, Values
from chimera.immune.audit.note import Signer, sign

FORMAT = 1
MANIFEST = "chimera-backup.json"
LARGEST_ROW = 1 << 30
_LARGEST_MANIFEST = 1 << 24
_BUFFER = 1 << 18
_LEVEL = 1
_LENGTH = struct.Struct(">I")


class TableEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table in a backup."""

    layout: Layout
    rows: int
    digest: str


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in a backup, by its path in the home."""

    name: str
    size: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup says of itself. `created` is in seconds since the epoch; `audit` is the audit log's last place."""

    format: int
    release: str
    schema: str
    dialect: str
    created: float
    audit: int
    tables: tuple[TableEntry, ...]
    files: tuple[FileEntry, ...]
    signature: str | None = None

    @property
    def digest(self) -> str:
        """The digest of the whole backup, all but its signature."""
        return hashlib.sha256(msgspec.json.encode(replace(self, signature=None))).hexdigest()

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def statement(self) -> str:
        """The text that a signature is on."""
        return f"chimera backup v1\n{self.digest}\n"


def signed(manifest: Manifest, signer: Signer | None) -> Manifest:
    """The manifest, signed where there is somebody who signs."""
    return manifest if signer is None else replace(manifest, signature=sign(manifest.statement, signer))


class BackupWriter:
    """Writes the members of one backup; `finish` gives it its name."""

    def __init__(self, target: Path, file: IO[bytes], partial: Path, created: float) -> None:
        """Begin to write `file`, whose name is `partial`; use `writing`."""
        self.target = target
        self._file = file
        self._partial = partial
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._moment = time.gmtime(max(created, 315_532_800.0))[:6]  # ZIP begins in 1980
        self.bytes = 0

    @contextmanager
    def table(self, layout: Layout) -> Iterator["TableWriter"]:
        """Write a table's rows."""
        with self._member(f"tables/{layout.table}") as member:
            made = TableWriter(layout, member, self.target)
            yield made
            made.flush()
            self.bytes += made.bytes

    def file(self, name: str, source: Path, size: int) -> FileEntry:
        """Write the first `size` bytes of a file."""
        digest, left = hashlib.sha256(), size
        with self._member(f"files/{name}") as member, _file_errors(source), source.open("rb") as data:
            while left and (chunk := data.read(min(left, _BUFFER))):
                digest.update(chunk)
                with _file_errors(self.target):
                    member.write(chunk)
                left -= len(chunk)
        return FileEntry(name=name, size=size - left, sha256=digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, and give the file its name."""
        with self._member(MANIFEST) as member, _file_errors(self.target):
            member.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
        with _file_errors(self.target):
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.rename(self.target)
            sync_folder(self.target.parent)

    def abandon(self) -> None:
        """Forget what was written; the lock on the partial file is still held."""
        with suppress(OSError, ValueError):
            self._zip.close()

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        entry = zipfile.ZipInfo(name, self._moment)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o600 << 16
        with _file_errors(self.target):
            member = self._zip.open(entry, "w", force_zip64=True)
        try:
            yield member
        finally:
            with _file_errors(self.target):
                member.close()


class TableWriter:
    """Writes the rows of one table, and counts them."""

    def __init__(self, layout: Layout, member: IO[bytes], target: Path) -> None:
        """Write to `member`."""
        self._encode = RowCodec(layout).encode
        self._digest = TableDigest(layout.table)
        self._layout = layout
        self._member = member
        self._target = target
        self._buffer = bytearray()
        self.bytes = 0

    def add(self, values: Sequence[Any]) -> None:
        """Write a row; raises `UnfitValue`."""
        encoded = self._encode(values)
        self._digest.add(encoded)
        self._buffer += _LENGTH.pack(len(encoded))
        self._buffer += encoded
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        """Hand on what is in memory."""
        self.bytes += len(self._buffer)
        with _file_errors(self._target):
            self._member.write(self._buffer)
        self._buffer = bytearray()

    @property
    def entry(self) -> TableEntry:
        """What the manifest says of it."""
        return TableEntry(layout=self._layout, rows=self._digest.rows, digest=self._digest.text)


@contextmanager
def writing(target: Path, created: float) -> Iterator[BackupWriter]:
    """Write a backup at `target`, where nothing may be; what is not finished is removed."""
    if target.exists():
        raise BackupExists(f"{target} is there already", next_step="give another path, or remove it")
    partial = target.with_name(f".{target.name}.partial")
    with _file_errors(target):
        descriptor = os.open(partial, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w+b") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino != partial.stat().st_ino:
                raise BlockingIOError  # whoever held the lock has just given the file its name
        except (BlockingIOError, FileNotFoundError):
            raise BackupExists(f"{target} is being written", next_step="give another path, or wait") from None
        try:
            with _file_errors(target):
                os.ftruncate(descriptor, 0)  # what a killed one has left
                os.fchmod(descriptor, 0o600)
            writer = BackupWriter(target, file, partial, created)
            try:
                yield writer
            finally:
                writer.abandon()
        finally:
            partial.unlink(missing_ok=True)
            with suppress(OSError):
                file.flush()


class BackupReader:
    """A backup opened for reading; use `reading`."""

    def __init__(self, file: Path, archive: zipfile.ZipFile) -> None:
        """Read the manifest; raises `InvalidBackup`."""
        self.file = file
        self._zip = archive
        names = archive.namelist()
        if MANIFEST not in names:
            raise self._invalid("it has no manifest; it is no backup of Chimera")
        self.manifest = self._manifest()
        tables = [f"tables/{entry.layout.table}" for entry in self.manifest.tables]
        wanted = [*tables, *(f"files/{entry.name}" for entry in self.manifest.files), MANIFEST]
        if sorted(names) != sorted(wanted):
            odd = sorted(set(names) ^ set(wanted)) or [name for name in names if names.count(name) > 1]
            raise self._invalid(f"its members are not those of its manifest: {', '.join(odd[:5])}")
        for entry in self.manifest.files:
            if Path(entry.name).is_absolute() or ".." in Path(entry.name).parts:
                raise self._invalid(f"{entry.name!r} is no path in a home")

    def rows(self, entry: TableEntry) -> Iterator[Values]:
        """A table's rows, each checked, and all of them against count and digest; raises `InvalidBackup`."""
        name = f"tables/{entry.layout.table}"
        codec, digest = RowCodec(entry.layout), TableDigest(entry.layout.table)
        with self._member(name) as member:
            while True:
                with self._damage(f"{name}, row {digest.rows + 1}"):
                    head = member.read(_LENGTH.size)
                    if not head:
                        break
                    if len(head) < _LENGTH.size:
                        raise UnfitValue("the row is cut off")
                    (length,) = _LENGTH.unpack(head)
                    encoded = member.read(length) if length <= LARGEST_ROW else b""
                    if len(encoded) != length:
                        raise UnfitValue("the row is cut off")
                    values = codec.decode(encoded)
                    digest.add(encoded)
                yield values
        if (digest.rows, digest.text) != (entry.rows, entry.digest):
            raise self._invalid(f"{name}: its {digest.rows:,} rows are not the {entry.rows:,} that the manifest names")

    def chunks(self, entry: FileEntry) -> Iterator[bytes]:
        """A file's bytes, checked at the end; raises `InvalidBackup`."""
        name = f"files/{entry.name}"
        digest, size = hashlib.sha256(), 0
        with self._member(name) as member:
            while True:
                with self._damage(f"{name}, byte {size}"):
                    chunk = member.read(_BUFFER)
                if not chunk:
                    break
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            raise self._invalid(f"{name} is not what the manifest names")

    def verify(self) -> None:
        """Read all of it; raises `InvalidBackup` with the place of what is wrong."""
        for table in self.manifest.tables:
            for _ in self.rows(table):
                pass
        for file in self.manifest.files:
            for _ in self.chunks(file):
                pass

    def _manifest(self) -> Manifest:
        with self._damage(MANIFEST), self._member(MANIFEST) as member:
            data = member.read(_LARGEST_MANIFEST)
        try:
            number = msgspec.json.decode(data, type=dict[str, Any]).get("format")
            if number != FORMAT:
                raise self._invalid(
                    f"its format is {number!r}, this release reads {FORMAT}", "use the release that made it, or a newer"
                )
            return msgspec.json.decode(data, type=Manifest)
        except msgspec.MsgspecError as error:
            raise self._invalid(f"{MANIFEST}: {error}") from None

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        with self._damage(name):
            member = self._zip.open(name)
        with member:
            yield member

    @contextmanager
    def _damage(self, where: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, UnfitValue, NotImplementedError, RuntimeError) as error:
            why = error.detail if isinstance(error, UnfitValue) else str(error) or type(error).__name__
            raise self._invalid(f"{where}: {why}") from None
        except OSError as error:
            raise file_failed(self.file, error) from None

    def _invalid(self, why: str, step: str | None = None) -> InvalidBackup:
        return InvalidBackup(f"{self.file}: {why}", next_step=step or "use another backup; nothing was changed")


@contextmanager
def reading(file: Path) -> Iterator[BackupReader]:
    """Open a backup; raises `InvalidBackup`, or `BackupFailed` where the file can't be read."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise InvalidBackup(
            f"{file}: it is no backup, or its end is missing: {error}", next_step="use another backup"
        ) from None
    except OSError as error:
        raise file_failed(file, error) from None
    with archive:
        yield BackupReader(file, archive)


def sync_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _file_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise file_failed(file, error) from None
