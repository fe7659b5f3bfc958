"""Layers of an image, read as a stream to their bounds: what is installed, who may do what, and what lies in them.

A layer comes from anyone. It is never written to disk; entries are read one after the other, and of a file only as much
as somebody asks for. What a later layer deletes is still in the image, so files are judged where they are added.
"""

import io
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO

from msgspec import Struct

MOST_ENTRIES = 2_000_000
LARGEST_HEADER = 1024 * 1024
LARGEST_TEXT = 2 * 1024**2
LARGEST_DATABASE = 128 * 1024**2
LARGEST_MODEL = 256 * 1024**2
LARGEST_LAYER = 16 * 1024**3
MOST_RATIO, RATIO_FROM = 200, 1024**3
_CHUNK = 256 * 1024
_ZSTD = b"\x28\xb5\x2f\xfd"


class LayerUnreadable(Exception):
    """Why a layer can't be read to its end."""


class LayerFile(Struct, frozen=True, kw_only=True):
    """An entry: `data` of a plain file that somebody asked for, `cut` where it is too large for that."""

    path: str
    mode: int
    kind: str
    data: bytes | None = None
    cut: bool = False


class Bounded(io.RawIOBase):
    """The tar of a layer: what comes out of its gzip, counted."""

    def __init__(self, raw: IO[bytes]) -> None:
        """Read from a blob."""
        self._raw = raw
        head = raw.read(4)
        if head == _ZSTD:
            raise LayerUnreadable("it is packed by zstd, which isn't opened here")
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS) if head.startswith(b"\x1f\x8b") else None
        self._pending = head
        self._taken, self._given = len(head), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer as far as there is something."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._next(len(view))
        self._given += len(data)
        if self._given > min(LARGEST_LAYER, max(RATIO_FROM, self._taken * MOST_RATIO)):
            raise LayerUnreadable("it unpacks to more than a layer may have")
        view[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        if self._inflate is None:
            data, self._pending = self._pending[:most], self._pending[most:]
            return data or self._read(most)
        while not self._inflate.eof:
            if not self._pending:
                self._pending = self._read(_CHUNK)
                if not self._pending:
                    raise LayerUnreadable("its gzip ends too early")
            try:
                data = self._inflate.decompress(self._pending, most)
            except zlib.error as error:
                raise LayerUnreadable(f"its gzip is damaged: {error}") from error
            self._pending = self._inflate.unconsumed_tail
            if self._inflate.eof and self._inflate.unused_data.startswith(b"\x1f\x8b"):
                self._pending = self._inflate.unused_data
                self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
            if data:
                return data
        return b""

    def _read(self, most: int) -> bytes:
        data = self._raw.read(most)
        self._taken += len(data)
        return data


class _Entry(tarfile.TarInfo):
    """Headers that carry long names are read whole by `tarfile`; here they are bounded."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in (b"x", b"g", b"X", b"L", b"K") and self.size > LARGEST_HEADER:
            raise LayerUnreadable(f"a header claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def read_layer(blob: IO[bytes]) -> Iterator[LayerFile]:
    """The entries of a layer; raises `LayerUnreadable` where it can't be read on."""
    try:
        stream = io.BufferedReader(Bounded(blob), _CHUNK)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry, bufsize=_CHUNK) as archive:
            for _ in range(MOST_ENTRIES):
                if (entry := archive.next()) is None:
                    return
                yield _file(archive, entry)
                # tarfile keeps every entry that it has seen, which a stream has no use for.
                archive.members.clear()  # type: ignore[attr-defined]
            raise LayerUnreadable(f"it has more than {MOST_ENTRIES:,} entries")
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        raise LayerUnreadable(f"it can't be read on: {str(error)[:200] or type(error).__name__}") from error


def _file(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> LayerFile:
    path = normal_path(entry.name)
    kind = "file" if entry.isreg() else "folder" if entry.isdir() else "device" if entry.isdev() else "link"
    if kind != "file":
        return LayerFile(path=path, mode=entry.mode, kind=kind)
    most = wanted(path)
    if most is None or not entry.size:
        return LayerFile(path=path, mode=entry.mode, kind=kind)
    if entry.size > most or entry.issparse():
        return LayerFile(path=path, mode=entry.mode, kind=kind, cut=True)
    stream = archive.extractfile(entry)
    data = stream.read(most + 1) if stream is not None else b""
    if len(data) != entry.size:
        raise LayerUnreadable(f"{path[:200]!r} ends too early")
    return LayerFile(path=path, mode=entry.mode, kind=kind, data=data)


def normal_path(name: str) -> str:
    """A path from the root, without a slash before it."""
    return posixpath.normpath("/" + name.lstrip("/")).lstrip("/")


_DATABASES = (
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "etc/os-release",
    "usr/lib/os-release",
)
_PACKAGED = (
    *(
        "usr/lib/",
        "usr/lib64/",
        "usr/share/",
        "usr/include/",
        "usr/libexec/",
        "usr/bin/",
        "usr/sbin/",
        "lib/",
        "lib64/",
    ),
    *("bin/", "sbin/", "var/lib/dpkg/", "var/lib/apt/", "var/cache/", "usr/local/lib/python", "usr/local/include/"),
    *("usr/local/lib/node_modules/", "proc/", "sys/"),
)
_INSIDE = ("/site-packages/", "/dist-packages/", "/node_modules/", "/__pycache__/", "/.git/objects/")
MODEL_ENDINGS = frozenset(
    [
        *(".pkl", ".pickle", ".p", ".pk", ".dill", ".joblib", ".sav", ".pt", ".pth", ".ckpt", ".npy", ".npz"),
        *(".safetensors", ".gguf", ".h5", ".hdf5", ".keras"),
    ]
)


def is_database(path: str) -> bool:
    """Whether a file says what is installed."""
    return (
        path in _DATABASES
        or path.startswith("var/lib/dpkg/status.d/")
        or path.endswith((".dist-info/METADATA", ".egg-info/PKG-INFO"))
        or (path.endswith("/package.json") and "node_modules/" in path)
    )


def is_packaged(path: str) -> bool:
    """Whether a file lies where packages put theirs; those aren't searched for secrets."""
    return path.startswith(_PACKAGED) or any(part in "/" + path for part in _INSIDE)


def is_model(path: str) -> bool:
    """Whether a file's name says that it is a model."""
    return posixpath.splitext(path)[1].lower() in MODEL_ENDINGS and not is_packaged(path)


def wanted(path: str) -> int | None:
    """How much of a file somebody wants; None for nothing of it."""
    if is_database(path):
        return LARGEST_DATABASE
    if is_model(path):
        return LARGEST_MODEL
    return None if is_packaged(path) else LARGEST_TEXT
