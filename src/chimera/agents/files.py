"""Finding definitions: in files, folders, globs, archives and on standard input, always in the same order.

A folder is walked; of its YAML files those that speak of a `schema_version` are definitions, and the others are
somebody else's: they are passed over and kept in `skipped`, so that a caller can say so. A file that is named itself is
taken as a definition whatever it holds. A `source` folder stands beside its definition and never above it.
"""

import glob
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from chimera.agents import yaml
from chimera.agents.archive import ArchivedFile, is_archive, read_archive
from chimera.agents.bundle import PackedSource, is_ignored, pack_files, pack_folder
from chimera.agents.errors import BadArchive, Fault, NoDefinitions, UnreadableFile, UnreadableText

STDIN = "-"
MAX_FILE_BYTES = 64 * 1024**2
MAX_ARCHIVE_BYTES = 128 * 1024**2
MAX_DOCUMENTS = 60_000

_YAML = (".yaml", ".yml")
_MARK = b"schema_version"
_SKIPPED_FOLDERS = {"node_modules", "site-packages"}

Pack = Callable[[str], PackedSource]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One definition's text: `file` names where it came from, `first_line` counts the lines before it there."""

    file: str
    text: str
    first_line: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One file with definitions. `pack` packs a source folder that one of them names."""

    file: str
    data: bytes
    pack: Pack

    def documents(self) -> Iterator[Document]:
        """Its YAML documents; raises `UnreadableText` for one that is too long, or for too many."""
        text = yaml.decode(self.data, file=self.file, limit=MAX_FILE_BYTES)
        for count, (part, first_line) in enumerate(yaml.split_documents(text), 1):
            if count > MAX_DOCUMENTS:
                raise UnreadableText(
                    Fault(file=self.file, message="too many documents", allowed=f"up to {MAX_DOCUMENTS:,}")
                )
            if len(part) > yaml.MAX_BYTES:
                raise UnreadableText(
                    Fault(
                        file=self.file,
                        line=first_line + 1,
                        column=1,
                        message=f"a definition of {len(part):,} characters is too long",
                        allowed=f"up to {yaml.MAX_BYTES:,}",
                    )
                )
            yield Document(file=self.file, text=part, first_line=first_line)


@dataclass(kw_only=True)
class Collector:
    """Collects what is named. `skipped` holds the YAML files that were passed over so far."""

    stdin: Callable[[], bytes] | None = None
    skipped: list[str] = field(default_factory=list)

    def collect(self, names: Iterable[str]) -> Iterator[Found]:
        """Everything that `names` name, in their order, each file once.

        Raises `NoDefinitions` where nothing is found, `UnreadableFile` and `BadArchive` with the reason.
        """
        seen: set[str] = set()
        any_found = False
        given = list(names)
        for name in given:
            for found in self._named(name, seen):
                any_found = True
                yield found
        if not any_found:
            passed = f" ({len(self.skipped)} YAML files say no schema_version)" if self.skipped else ""
            raise NoDefinitions(
                f"there is no definition in {', '.join(given) or 'nothing'}{passed}",
                next_step="name a YAML file, a folder or an archive; `chimera init` writes a first definition",
            )

    def _named(self, name: str, seen: set[str]) -> Iterator[Found]:
        path = Path(name)
        if name == STDIN:
            yield self._standard_input()
        elif path.is_dir():
            yield from self._folder(path, seen)
        elif path.exists():
            yield from self._file(path, seen)
        elif glob.has_magic(name):
            for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
                inner = Path(match)
                if inner.is_dir():
                    continue  # `**` matches folders too; the files in them are matched themselves
                if inner.name.endswith(_YAML) or is_archive(inner.name):
                    yield from self._file(inner, seen)
        else:
            raise UnreadableFile(f"there is no file or folder {name}", next_step="check the path")

    def _standard_input(self) -> Found:
        if self.stdin is None:
            raise UnreadableFile("there is no standard input here", next_step="name a file")
        data = self.stdin()
        _check_size(len(data), STDIN, MAX_FILE_BYTES)

        def pack(source: str) -> PackedSource:
            raise BadArchive(
                f"a definition from standard input can't bring the source folder {source!r}",
                next_step="put the definition into a file beside its source folder",
            )

        return Found(file=STDIN, data=data, pack=pack)

    def _folder(self, folder: Path, seen: set[str]) -> Iterator[Found]:
        for here, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
            for name in sorted(names):
                if not name.endswith(_YAML) or name.startswith("."):
                    continue
                path = os.path.join(here, name)  # noqa: PTH118 - a Path costs more than reading the file
                data = _read(path, MAX_FILE_BYTES)
                if _MARK not in data:
                    self.skipped.append(path)
                elif _first(path, seen):
                    yield _on_disk(path, data)

    def _file(self, path: Path, seen: set[str]) -> Iterator[Found]:
        if not _first(str(path), seen):
            return
        if not is_archive(path.name):
            yield _on_disk(str(path), _read(str(path), MAX_FILE_BYTES))
            return
        files = read_archive(_read(str(path), MAX_ARCHIVE_BYTES), name=str(path))
        for inner, file in files.items():
            if not inner.endswith(_YAML) or is_ignored(inner):
                continue
            if _MARK not in file.data:
                self.skipped.append(f"{path}/{inner}")
            else:
                yield _in_archive(str(path), inner, file, files)


def _on_disk(path: str, data: bytes) -> Found:
    def pack(source: str) -> PackedSource:
        folder = Path(path).parent
        inner = _inside(source, path)
        target = (folder / inner).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise _outside(source, path)
        if not target.is_dir():
            raise BadArchive(
                f"{path}: there is no source folder {source!r}", next_step="make it, beside the definition"
            )
        return pack_folder(target)

    return Found(file=path, data=data, pack=pack)


def _in_archive(archive: str, inner: str, file: ArchivedFile, files: Mapping[str, ArchivedFile]) -> Found:
    name = f"{archive}/{inner}"

    def pack(source: str) -> PackedSource:
        start = (PurePosixPath(inner).parent / _inside(source, name)).as_posix() + "/"
        chosen = {path.removeprefix(start): one for path, one in files.items() if path.startswith(start)}
        return pack_files(chosen, name=f"{archive}/{start}")

    return Found(file=name, data=file.data, pack=pack)


def _inside(source: str, file: str) -> PurePosixPath:
    path = PurePosixPath(source)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in source:
        raise _outside(source, file)
    return path


def _outside(source: str, file: str) -> BadArchive:
    return BadArchive(
        f"{file}: the source folder {source!r} is not below the definition's own folder",
        next_step="put the folder beside the definition and name it by its relative path",
    )


def _first(path: str, seen: set[str]) -> bool:
    absolute = os.path.abspath(path)  # noqa: PTH100 - links are not resolved, and `a/../b` is `b`
    if absolute in seen:
        return False
    seen.add(absolute)
    return True


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            size = os.fstat(file.fileno()).st_size
            _check_size(size, path, limit)
            data = file.read(size + 1) if size else _drain(file, limit)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}", next_step="check the path and its rights") from error
    _check_size(len(data), path, limit)
    return data


def _drain(file: io.FileIO, limit: int) -> bytes:
    """What a file without a size holds, such as a pipe; at most one byte more than `limit`."""
    data = bytearray()
    while len(data) <= limit and (part := file.read(limit + 1 - len(data))):
        data += part
    return bytes(data)


def _check_size(size: int, file: str, limit: int) -> None:
    if size > limit:
        raise UnreadableText(Fault(file=file, message=f"{size:,} bytes are too many", allowed=f"up to {limit:,} bytes"))


def _raise(error: OSError) -> None:
    raise UnreadableFile(
        f"{error.filename}: {error.strerror or error}", next_step="check the folder's rights"
    ) from error
