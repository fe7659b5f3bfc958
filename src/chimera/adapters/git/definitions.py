"""Definitions of one commit, read out of its objects."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import PurePosixPath

from chimera.adapters.git.objects import Objects
from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import PackedSource, pack_files
from chimera.agents.errors import BadArchive
from chimera.agents.files import MAX_FILE_BYTES, Found
from chimera.delivery.git.definitions import MARK, is_code, may_define
from chimera.delivery.git.errors import BadTree
from chimera.delivery.git.objects import Entry

MAX_CODE_BYTES = 64 * 1024**2


class CommitFiles:
    """The files of a commit, by their paths from the root; `tree` is its root."""

    def __init__(self, objects: Objects, tree: str) -> None:
        """Read from `objects`."""
        self._objects = objects
        self._tree = tree

    def definitions(self, entries: Iterable[tuple[str, Entry]]) -> Iterator[Found]:
        """Those of `entries` that hold definitions; raises `BadTree` for a link or a submodule that stands for one."""
        for path, entry in entries:
            if not may_define(path):
                continue
            if not entry.is_file:
                raise BadTree(
                    f"{path} is a {entry.kind}, which can't be applied", next_step="put the file itself there"
                )
            data = self._blob(path, entry)
            if MARK in data:
                yield Found(file=path, data=data, pack=partial(self.pack, path))

    def at(self, path: str) -> Entry | None:
        """What is at a path."""
        return self._objects.at(self._tree, path)

    def pack(self, path: str, source: str) -> PackedSource:
        """The packed folder `source` of the definition at `path`."""
        inner = PurePosixPath(source)
        if inner.is_absolute() or ".." in inner.parts or not inner.parts or "\\" in source:
            raise BadArchive(
                f"{path}: the source folder {source!r} is not below the definition's own folder",
                next_step="put the folder beside the definition and name it by its relative path",
            )
        folder = (PurePosixPath(path).parent / inner).as_posix()
        entry = self.at(folder)
        if entry is None or not entry.is_folder:
            raise BadArchive(f"{path}: there is no source folder {source!r}", next_step="commit it with the definition")
        files: dict[str, ArchivedFile] = {}
        total = 0
        for name, one in self._objects.files(entry.id, folder):
            short = name.removeprefix(f"{folder}/")
            if not is_code(short):
                continue
            if not one.is_file:
                raise BadArchive(
                    f"{name} is a {one.kind}; a source folder holds plain files", next_step="put a file there"
                )
            data = self._blob(name, one)
            total += len(data)
            if total > MAX_CODE_BYTES:
                raise BadArchive(f"{folder} holds more than {MAX_CODE_BYTES:,} bytes", next_step="make it smaller")
            files[short] = ArchivedFile(data=data, executable=one.is_executable)
        return pack_files(files, name=folder)

    def _blob(self, path: str, entry: Entry) -> bytes:
        data = self._objects.read(entry.id, "blob")[1]
        if len(data) > MAX_FILE_BYTES:
            raise BadTree(f"{path} is larger than {MAX_FILE_BYTES:,} bytes", next_step="make it smaller")
        return data
