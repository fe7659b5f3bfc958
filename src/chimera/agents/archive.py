"""Archives of definitions (.zip, .tar, .tar.gz), read into memory without believing anything they say.

An archive may come from anyone. Only plain files and folders are taken, only under paths that stay inside, each path
once, and everything is bounded: number, size, and how far it unpacks. What an entry claims about its size counts
against the bound, and so does what really comes out. Nothing is ever written to disk from here.
"""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from msgspec import Struct

from chimera.agents.errors import BadArchive
from chimera_host.bundles import BundleLimits, check_entry
from chimera_host.errors import BundleRefused

SUFFIXES = (".zip", ".tar.gz", ".tgz", ".tar")
LIMITS = BundleLimits(files=60_000, total_bytes=512 * 1024**2)

_GZIP = 16 + zlib.MAX_WBITS
_STORED_OR_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


class ArchivedFile(Struct, frozen=True, kw_only=True):
    """One file of an archive."""

    data: bytes
    executable: bool = False


class _Counter:
    """Holds the entries of one archive to its bounds."""

    def __init__(self, limits: BundleLimits, packed: int) -> None:
        self.limits = limits
        self.most = min(limits.total_bytes, max(limits.ratio_from, packed * limits.ratio))
        self.entries = 0
        self.total = 0
        self.files: dict[str, ArchivedFile] = {}

    def entry(self, name: str, *, is_file: bool, is_folder: bool) -> PurePosixPath:
        self.entries += 1
        if self.entries > self.limits.files:
            raise BundleRefused(f"it holds more than {self.limits.files:,} files")
        path = check_entry(name, is_file=is_file, is_folder=is_folder, limits=self.limits)
        if is_file and not path.parts:
            raise BundleRefused(f"{name!r} is no name of a file")
        return path

    def read(self, path: PurePosixPath, stream: IO[bytes], claimed: int, *, executable: bool) -> None:
        """Take one file; at most one byte more than may still come is ever read."""
        left = self.most - self.total
        data = stream.read(left + 1) if claimed <= left else None
        if data is None or len(data) > left:
            raise BundleRefused(f"it unpacks to more than {self.most:,} bytes")
        self.total += len(data)
        if (name := path.as_posix()) in self.files:
            raise BundleRefused(f"{name!r} stands in it twice")
        self.files[name] = ArchivedFile(data=data, executable=executable)


def is_archive(name: str) -> bool:
    """Whether a file is read as an archive, by its name."""
    return name.lower().endswith(SUFFIXES)


def read_archive(data: bytes, *, name: str, limits: BundleLimits = LIMITS) -> dict[str, ArchivedFile]:
    """The files of an archive by their path, sorted; raises `BadArchive` with the reason."""
    counter = _Counter(limits, len(data))
    try:
        if name.lower().endswith(".zip"):
            _read_zip(data, counter)
        else:
            plain = data if name.lower().endswith(".tar") else _gunzip(data, counter)
            _read_tar(plain, counter)
    except BundleRefused as error:
        raise _bad(name, error.detail) from error
    # zipfile raises NotImplementedError for what it doesn't know, RuntimeError for what is encrypted
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise _bad(name, f"it can't be read: {error or type(error).__name__}") from error
    _check_clashes(counter.files, name)
    return dict(sorted(counter.files.items()))


def _read_zip(data: bytes, counter: _Counter) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            # Archives from other systems leave the kind empty: then the name alone says whether it is a folder.
            is_folder = info.is_dir() and kind in (0, stat.S_IFDIR)
            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            path = counter.entry(info.orig_filename, is_file=is_file, is_folder=is_folder)
            if is_folder:
                continue
            if info.flag_bits & _ENCRYPTED:
                raise BundleRefused(f"{info.filename!r} is encrypted")
            if info.compress_type not in _STORED_OR_DEFLATED:
                raise BundleRefused(f"{info.filename!r} is packed in a way that isn't taken; use deflate")
            with archive.open(info) as stream:
                executable = bool((info.external_attr >> 16) & stat.S_IXUSR)
                counter.read(path, stream, info.file_size, executable=executable)


def _gunzip(data: bytes, counter: _Counter) -> bytes:
    """The tar inside; there is room for a header and padding for each file beside what the files may hold."""
    most = counter.most + counter.limits.files * 1024 + tarfile.RECORDSIZE
    stream = zlib.decompressobj(_GZIP)
    plain = stream.decompress(data, most)
    if stream.unconsumed_tail:
        raise BundleRefused(f"it unpacks to more than {most:,} bytes")
    if not stream.eof:
        raise BundleRefused("it ends too early")
    return plain


def _read_tar(plain: bytes, counter: _Counter) -> None:
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
        for entry in archive:
            is_file = entry.isreg() and not entry.issparse()
            path = counter.entry(entry.name, is_file=is_file, is_folder=entry.isdir())
            if entry.isdir():
                continue
            stream = archive.extractfile(entry)
            if stream is None:
                raise BundleRefused(f"{entry.name!r} has no content")
            with stream:
                counter.read(path, stream, entry.size, executable=bool(entry.mode & stat.S_IXUSR))


def _check_clashes(files: dict[str, ArchivedFile], name: str) -> None:
    """A path can't be a file and the folder of another."""
    for path in files:
        if clash := next((parent for parent in _parents(path) if parent in files), None):
            raise _bad(name, f"{clash!r} is a file, and the folder of {path!r}")


def _parents(path: str) -> Iterator[str]:
    return (parent.as_posix() for parent in PurePosixPath(path).parents if parent.parts)


def _bad(name: str, reason: str) -> BadArchive:
    return BadArchive(
        f"the archive {name} is refused: {reason}",
        next_step="pack plain files and folders as .zip or .tar.gz, without links, below the bounds",
    )
