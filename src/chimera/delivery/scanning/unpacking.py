"""Files inside files: zip, tar, gzip, zlib, bzip2 and xz, opened in memory without believing anything they say.

`unpack` gives a file and everything inside it, by paths such as `model.zip!data.pkl`. One budget bounds the whole of
it: bytes that come out, entries, depth. What doesn't open (damaged, encrypted, packed in a way that isn't known, beyond
the budget) is reported as not judged, never passed over: a loader may well read what this reader refuses. Links are
reported by the archive's own rules and never followed; nothing is written to disk.
"""

import bz2
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

ZIP, GZIP, BZIP2, XZ = b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
OTHER_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}
_TAR_MARK, _TAR_AT = b"ustar", 257
_CHUNK = 1024 * 1024
_XZ_MEMORY = 128 * 1024**2
_ZLIB_HEADS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_STARTS = {"gzip": GZIP, "bzip2": BZIP2, "xz": XZ, "zlib": b"(none)"}


class Inner(Struct, frozen=True):
    """A file, however deep it lies; `packed` says that it holds others, which follow it."""

    path: str
    data: bytes
    packed: bool = False


class Shut(Struct, frozen=True):
    """Something that doesn't open, with the reason."""

    path: str
    reason: str


@dataclass(kw_only=True)
class Budget:
    """What one scan may unpack; what is spent is counted over all files that share it."""

    total: int = 512 * 1024**2
    entries: int = 60_000
    depth: int = 6
    spent: int = field(default=0)
    opened: int = field(default=0)

    @property
    def left(self) -> int:
        """Bytes that may still come out."""
        return self.total - self.spent


class _Refused(Exception):
    """Why something doesn't open."""


def unpack(path: str, data: bytes, budget: Budget, *, depth: int = 0) -> Iterator[Inner | Shut]:
    """`data` itself, and what is inside it if it is an archive."""
    kind = archive_kind(data)
    if kind is None:
        yield Inner(path, data)
        return
    yield Inner(path, data, packed=True)
    if depth >= budget.depth:
        yield Shut(path, f"archives are nested deeper than {budget.depth}")
        return
    if kind in OTHER_ARCHIVES.values():
        yield Shut(path, f"it is packed as {kind}, which isn't opened here")
        return
    try:
        for name, inner in _open(kind, data, budget):
            yield from unpack(f"{path}!{name}" if name else f"{path}!", inner, budget, depth=depth + 1)
    except _Refused as error:
        yield Shut(path, str(error))
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError),
        *(RuntimeError, OverflowError, MemoryError, IndexError, KeyError),
    ) as error:
        yield Shut(path, f"the {kind} can't be read: {str(error)[:200] or type(error).__name__}")


def archive_kind(data: bytes) -> str | None:
    """What kind of archive the bytes are, by what they hold and not by a name."""
    if data.startswith(GZIP):
        return "gzip"
    if data.startswith(BZIP2) and data[4:10] == b"1AY&SY":
        return "bzip2"
    if data.startswith(XZ):
        return "xz"
    if _is_zlib(data):
        return "zlib"
    for mark, kind in OTHER_ARCHIVES.items():
        if data.startswith(mark):
            return kind
    if data[_TAR_AT : _TAR_AT + 5] == _TAR_MARK:
        return "tar"
    # The end of a zip says what it is, so one with something before it is a zip too.
    if data.startswith(ZIP) or data.startswith(b"PK\x05\x06") or b"PK\x05\x06" in data[-66_000:]:
        return "zip"
    return None


def _is_zlib(data: bytes) -> bool:
    """Two bytes that texts have as well, so the stream must begin well too."""
    if data[:2] not in _ZLIB_HEADS:
        return False
    try:
        return bool(zlib.decompressobj().decompress(data[:1024], 1))
    except zlib.error:
        return False


def _open(kind: str, data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    if kind == "zip":
        yield from _zip(data, budget)
    elif kind == "tar":
        yield from _tar(data, budget)
    else:
        yield "", _inflated(kind, data, budget)


def _zip(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            _count(budget)
            if info.is_dir():
                continue
            if info.flag_bits & 0x1:
                raise _Refused(f"{info.filename[:200]!r} in it is encrypted")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _Refused(f"{info.filename[:200]!r} in it is a link")
            if info.file_size > budget.left:
                raise _Refused(f"{info.filename[:200]!r} claims {info.file_size:,} bytes, more than may come out")
            with archive.open(info) as stream:
                yield info.filename, _taken(stream.read(budget.left + 1), budget)


def _tar(data: bytes, budget: Budget) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for entry in archive:
            _count(budget)
            if entry.isdir():
                continue
            if not entry.isreg() or entry.issparse():
                raise _Refused(f"{entry.name[:200]!r} in it is a link or no plain file")
            if entry.size > len(data):
                raise _Refused(f"{entry.name[:200]!r} claims {entry.size:,} bytes, more than the archive has")
            stream = archive.extractfile(entry)
            if stream is not None:
                yield entry.name, _taken(stream.read(budget.left + 1), budget)


def _inflated(kind: str, data: bytes, budget: Budget) -> bytes:
    """One stream, or several behind each other, as these formats allow; at most a chunk more than may come out."""
    out = bytearray()
    rest = data
    while True:
        rest = _one_stream(kind, rest, out, budget)
        if not rest.startswith(_STARTS[kind]):
            return _taken(bytes(out), budget)
        _count(budget)


def _one_stream(kind: str, data: bytes, out: bytearray, budget: Budget) -> bytes:
    if kind in ("gzip", "zlib"):
        inflate = zlib.decompressobj(zlib.MAX_WBITS + (16 if kind == "gzip" else 0))
        while not inflate.eof:
            piece = inflate.decompress(data, _CHUNK)
            data = inflate.unconsumed_tail
            if not piece and not data and not inflate.eof:
                raise _Refused(f"the {kind} ends too early")
            _append(out, piece, budget)
        return inflate.unused_data
    stream = bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    while not stream.eof:
        piece = stream.decompress(data, _CHUNK)
        data = b""
        if not piece and stream.needs_input and not stream.eof:
            raise _Refused(f"the {kind} ends too early")
        _append(out, piece, budget)
    return stream.unused_data


def _append(out: bytearray, piece: bytes, budget: Budget) -> None:
    out += piece
    if len(out) > budget.left:
        raise _Refused(f"it unpacks to more than {budget.left:,} bytes")


def _count(budget: Budget) -> None:
    budget.opened += 1
    if budget.opened > budget.entries:
        raise _Refused(f"more than {budget.entries:,} files are inside")


def _taken(data: bytes, budget: Budget) -> bytes:
    if len(data) > budget.left:
        raise _Refused(f"it unpacks to more than {budget.left:,} bytes")
    budget.spent += len(data)
    return data
