"""Source bundles: an agent's code as a tar.gz, unpacked safely into a folder named by its digest.

A bundle comes from whoever wrote the agent, so nothing in it is believed: only plain files and folders, only paths that
stay inside, and bounds on their size, number, and on how far they unpack. The rule over entries (`check_entry`) is
pure. Unpacking is atomic: a folder under its final name is complete.
"""

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from msgspec import Struct

from chimera_host.errors import BundleRefused


class BundleLimits(Struct, frozen=True, kw_only=True):
    """Bounds of an unpacked bundle; `ratio` is unpacked to packed bytes and counts from `ratio_from` bytes on."""

    files: int = 5_000
    total_bytes: int = 256 * 1024**2
    path_length: int = 400
    depth: int = 32
    ratio: int = 200
    ratio_from: int = 8 * 1024**2


LIMITS = BundleLimits()
_GZIP = 16 + zlib.MAX_WBITS


def check_entry(name: str, *, is_file: bool, is_folder: bool, limits: BundleLimits = LIMITS) -> PurePosixPath:
    """The path inside the bundle's folder that an entry may be written to; refuses with the reason."""
    if not (is_file or is_folder):
        raise BundleRefused(f"{name!r} is neither a file nor a folder; links and devices are not allowed in a bundle")
    if "\0" in name or "\\" in name or len(name) > limits.path_length:
        raise BundleRefused(f"{name[:80]!r} is not a path that a bundle may hold")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise BundleRefused(f"{name!r} leads out of the bundle")
    if len(path.parts) > limits.depth:
        raise BundleRefused(f"{name!r} is nested deeper than {limits.depth} folders")
    return path


def unpack(data: bytes, digest: str, folder: Path, limits: BundleLimits = LIMITS) -> Path:
    """Unpack the bundle `data` below `folder`; its own folder, named by the digest that the bytes must have."""
    algorithm, _, expected = digest.partition(":")
    if algorithm != "sha256" or hashlib.sha256(data).hexdigest() != expected:
        raise BundleRefused(f"the bytes are not those of {digest}", next_step="apply the agent again")
    target = folder / expected
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    plain = _decompress(data, limits)
    draft = Path(tempfile.mkdtemp(prefix=f"{expected[:12]}.", dir=folder))
    try:
        _extract(plain, draft, limits)
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another host was faster, with the same content
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _decompress(data: bytes, limits: BundleLimits) -> bytes:
    most = min(limits.total_bytes + limits.files * 2048, max(limits.ratio_from, len(data) * limits.ratio))
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(data, most)
    except zlib.error as error:
        raise BundleRefused(f"the bundle is not a gzip file: {error}") from error
    if stream.unconsumed_tail:
        raise BundleRefused(f"the bundle unpacks to more than {most} bytes")
    if not stream.eof:
        raise BundleRefused("the bundle ends too early")
    return plain


def _extract(plain: bytes, draft: Path, limits: BundleLimits) -> None:
    count = total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for entry in archive:
                count += 1
                total += entry.size
                if count > limits.files:
                    raise BundleRefused(f"the bundle holds more than {limits.files} files")
                if total > limits.total_bytes:
                    raise BundleRefused(f"the bundle holds more than {limits.total_bytes} bytes")
                path = check_entry(entry.name, is_file=entry.isreg(), is_folder=entry.isdir(), limits=limits)
                place = draft.joinpath(*path.parts)
                if entry.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(entry)
                if content is None:
                    raise BundleRefused(f"{entry.name!r} has no content")
                _write(place, content, executable=bool(entry.mode & 0o100))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BundleRefused(f"the bundle can't be unpacked: {error}") from error


def _write(place: Path, content: IO[bytes], *, executable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags, 0o700 if executable else 0o600), "wb") as file:
        shutil.copyfileobj(content, file)
