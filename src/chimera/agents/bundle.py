"""Source folders as bundles: the same files make the same bytes, and so the same digest, on any machine.

A bundle is a tar in a gzip envelope, since that is what a host unpacks. Names are sorted; times, owners and every mode
bit but "executable" are fixed. The gzip part stores instead of compressing: what a compressor puts out depends on its
version, and then so would the digest of the agent. The host holds an unpacked bundle to the same bounds
(`chimera_host.bundles`), so that what can be packed can be unpacked.
"""

import hashlib
import io
import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from chimera.agents.archive import ArchivedFile
from chimera.agents.compile import Bundle
from chimera.agents.errors import BadArchive
from chimera.agents.requirements import FILE_NAME, read_lock
from chimera_host.bundles import LIMITS, BundleLimits, check_entry
from chimera_host.errors import BundleRefused

IGNORED = (
    *("__pycache__", "*.pyc", "*.pyo", ".git", ".hg", ".svn", ".venv", ".DS_Store", ".idea", ".vscode"),
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".env", ".env.*", ".bin"),
)
"""Left out of a bundle: caches, other tools' folders, `.env` files, which hold secrets, and npm's folders of links."""

MAX_PACKED = 64 * 1024**2

_STORED_BLOCK = 0xFFFF
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, no system


class PackedSource(Struct, frozen=True, kw_only=True):
    """A source folder, packed: its bytes and digest, its lock's digest where it has one, and the files in it."""

    digest: str
    data: bytes
    files: tuple[str, ...]
    requirements: str | None = None

    @property
    def bundle(self) -> Bundle:
        """What `compile_definition` takes."""
        return Bundle(digest=self.digest, requirements=self.requirements, files=self.files)


def pack_folder(folder: Path, *, limits: BundleLimits = LIMITS) -> PackedSource:
    """Pack a folder of this machine; raises `BadArchive` with what may not be in it."""
    files: dict[str, ArchivedFile] = {}
    total = 0
    for path, name in _walk(folder, ""):
        total += path.stat().st_size
        if len(files) >= limits.files or total > limits.total_bytes:
            raise _refused(str(folder), f"it holds more than {limits.files:,} files or {limits.total_bytes:,} bytes")
        try:
            status, data = path.stat(), path.read_bytes()
        except OSError as error:
            raise _refused(str(folder), f"{name}: {error.strerror or error}") from error
        files[name] = ArchivedFile(data=data, executable=bool(status.st_mode & stat.S_IXUSR))
    return pack_files(files, name=str(folder), limits=limits)


def pack_files(files: Mapping[str, ArchivedFile], *, name: str, limits: BundleLimits = LIMITS) -> PackedSource:
    """Pack files by their path inside the folder, which `name` calls by name in errors."""
    kept = {path: file for path, file in sorted(files.items()) if not is_ignored(path)}
    if not kept:
        raise _refused(name, "it holds no files")
    if len(kept) > limits.files:
        raise _refused(name, f"it holds more than {limits.files:,} files")
    if sum(len(file.data) for file in kept.values()) > min(limits.total_bytes, MAX_PACKED):
        raise _refused(name, f"it holds more than {min(limits.total_bytes, MAX_PACKED):,} bytes")
    data = _gzip_stored(_tar(kept, name, limits))
    requirements = None
    if (lock := kept.get(FILE_NAME)) is not None:
        requirements = _lock_digest(lock.data, f"{name}/{FILE_NAME}")
    return PackedSource(
        digest="sha256:" + hashlib.sha256(data).hexdigest(), data=data, files=tuple(kept), requirements=requirements
    )


def is_ignored(path: str) -> bool:
    """Whether any part of `path` is left out of bundles."""
    return any(fnmatchcase(part, pattern) for part in path.split("/") for pattern in IGNORED)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise _refused(str(folder), error.strerror or str(error)) from error
    for entry in entries:
        name = prefix + entry.name
        if is_ignored(entry.name):
            continue
        if entry.is_symlink():
            raise _refused(str(folder), f"{name} is a link; a source folder holds plain files")
        if entry.is_dir():
            yield from _walk(Path(entry.path), name + "/")
        elif entry.is_file():
            yield Path(entry.path), name
        else:
            raise _refused(str(folder), f"{name} is neither a file nor a folder")


def _tar(files: Mapping[str, ArchivedFile], name: str, limits: BundleLimits) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as archive:
        for path, file in files.items():
            try:
                check_entry(path, is_file=True, is_folder=False, limits=limits)
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(file.data), 0o755 if file.executable else 0o644
                archive.addfile(entry, io.BytesIO(file.data))
            except BundleRefused as error:
                raise _refused(name, error.detail) from error
            except (ValueError, UnicodeError) as error:
                raise _refused(name, f"{path!r} is no name that a bundle can hold: {error}") from error
    return target.getvalue()


def _gzip_stored(plain: bytes) -> bytes:
    """`plain` in a gzip envelope, uncompressed (RFC 1951 stored blocks, RFC 1952)."""
    parts = [_GZIP_HEAD]
    for start in range(0, len(plain), _STORED_BLOCK):
        block = plain[start : start + _STORED_BLOCK]
        last = start + _STORED_BLOCK >= len(plain)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF))
    return b"".join(parts)


def _lock_digest(data: bytes, file: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(file, "the requirements file is not UTF-8") from error
    return read_lock(text, file=file).digest


def _refused(name: str, reason: str) -> BadArchive:
    return BadArchive(f"the source folder {name} is refused: {reason}", next_step="mend the folder and try again")
