"""Files beside the database: checkpoints, one JSON object a line, and the archive of entries.

The file of checkpoints is opened for appending alone and flushed to the disk with each. On a file system that knows
it, the attribute "append only" (`chattr +a`) keeps even this user from altering it.

A line that a crash has cut short is the last one, and holds a checkpoint that is in the database too; it is ended, so
that the next line stands by itself, and passed over when read.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.errors import AuditError, InvalidNote
from chimera.immune.audit.model import ChainedEntry

_CHECKPOINT = msgspec.json.Decoder(Checkpoint)
_ENTRY = msgspec.json.Decoder(ChainedEntry)
_ENCODER = msgspec.json.Encoder()
_LONGEST_LINE = 1 << 20
SUFFIX = ".jsonl"


class AuditFileFailed(AuditError):
    """A file of the audit log could not be read or written."""

    code = "audit-file"
    status = 503
    title = "A file of the audit log failed"


class FileOfCheckpoints:
    """A `CheckpointFile` on this machine."""

    def __init__(self, file: Path) -> None:
        """The file need not be there."""
        self.file = file

    def read(self) -> Iterator[Checkpoint]:
        """See `CheckpointFile`."""
        try:
            source = self.file.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(self.file, error) from None
        with source:
            for number, line in enumerate(_lines(source), start=1):
                try:
                    yield _CHECKPOINT.decode(line)
                except msgspec.MsgspecError as error:
                    if not line.endswith(b"}\n"):
                        continue  # cut short by a crash
                    raise InvalidNote(
                        f"{self.file}:{number} is no checkpoint: {error}",
                        next_step="the file is only ever appended to: somebody, or the disk, has altered it",
                    ) from None

    def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """See `CheckpointFile`."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.file, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                lines = b"".join(_ENCODER.encode(one) + b"\n" for one in checkpoints)
                _write_all(descriptor, (b"\n" if torn else b"") + lines)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _sync_folder(self.file.parent)
        except OSError as error:
            raise _failed(self.file, error) from None


class FolderArchive:
    """An `Archive` of one file for each segment, named by its first and last entry; the last line is the checkpoint."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when it is first needed."""
        self.folder = folder

    def begin(self, first: int, last: int) -> "FileSegment":
        """See `Archive`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return FileSegment(self.folder / f"{first:012d}-{last:012d}{SUFFIX}")
        except OSError as error:
            raise _failed(self.folder, error) from None


class FileSegment:
    """A segment under a name of its own until it is whole."""

    def __init__(self, file: Path) -> None:
        """Begin it anew, whatever an earlier try has left."""
        self._file = file
        self._partial = file.with_suffix(".partial")
        descriptor = os.open(self._partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._target = os.fdopen(descriptor, "wb")

    def write(self, entries: Sequence[ChainedEntry]) -> None:
        """See `Segment`."""
        try:
            self._target.write(export(entries))
        except OSError as error:
            raise _failed(self._partial, error) from None

    def finish(self, checkpoint: Checkpoint) -> None:
        """See `Segment`."""
        try:
            with self._target as target:
                target.write(_ENCODER.encode({"checkpoint": checkpoint}) + b"\n")
                target.flush()
                os.fsync(target.fileno())
            self._partial.rename(self._file)
            _sync_folder(self._file.parent)
        except OSError as error:
            raise _failed(self._file, error) from None

    def discard(self) -> None:
        """See `Segment`."""
        self._target.close()
        self._partial.unlink(missing_ok=True)


def export(entries: Sequence[ChainedEntry]) -> bytes:
    """Entries as JSON lines: `{"seq": …, "hash": "<base64>", "entry": {…}}`, the entry's bytes as they were hashed."""
    without = (ChainedEntry(seq=one.seq, hash=one.hash, entry=one.entry) for one in entries)
    return b"".join(_ENCODER.encode(one) + b"\n" for one in without)


def read_export(file: Path) -> Iterator[ChainedEntry | Checkpoint]:
    """The entries of an export or a segment of the archive, and the checkpoint where one is in it."""
    try:
        source = file.open("rb")
    except OSError as error:
        raise _failed(file, error) from None
    with source:
        for number, line in enumerate(_lines(source), start=1):
            try:
                if line.startswith(b'{"checkpoint":'):
                    yield msgspec.json.decode(line, type=dict[str, Checkpoint])["checkpoint"]
                else:
                    yield _ENTRY.decode(line)
            except msgspec.MsgspecError as error:
                raise InvalidNote(
                    f"{file}:{number} is no entry of an audit log: {error}", next_step="give a file of an export"
                ) from None


def _lines(source: BinaryIO) -> Iterator[bytes]:
    while line := source.readline(_LONGEST_LINE):
        if line.strip():
            yield line


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(file: Path, error: OSError) -> AuditFileFailed:
    return AuditFileFailed(
        f"{file}: {error.strerror or error}", next_step="see that it can be read and written, and has room on its disk"
    )
