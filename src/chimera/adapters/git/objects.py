"""Reading a repository's objects: commits, tags, folders, and what differs between two commits' folders.

Each object's bytes are held against its id, so that damage is found where it is read. What is read is bounded by who
calls; nothing is checked out. A folder that both commits have alike isn't read at all, so that a comparison costs what
differs, and one entry for each name beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID

from chimera.delivery.git.errors import BadTree, MalformedObject
from chimera.delivery.git.objects import (
    Commit,
    Entry,
    Kind,
    Tag,
    object_id,
    parse_commit,
    parse_tag,
    parse_tree,
)

MAX_DEPTH = 64
MAX_ENTRIES = 500_000
MAX_REMEMBERED = 64
_KINDS: Mapping[int, Kind] = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileChange:
    """A file that differs, by its path from the folder that was compared; None: it isn't there on that side."""

    path: str
    before: Entry | None
    after: Entry | None


class Objects:
    """The objects of one repository. `close` it."""

    def __init__(self, folder: Path, alternates: Sequence[Path] = ()) -> None:
        """Read those in `folder` (a repository's `objects`) and in `alternates`."""
        self._named: dict[str, Mapping[str, Entry]] = {}
        self._store = DiskObjectStore(str(folder), alternates=[str(one) for one in alternates])

    def close(self) -> None:
        """Close its files."""
        self._store.close()

    def has(self, name: str) -> bool:
        """Whether an object is here."""
        return ObjectID(name.encode("ascii")) in self._store

    def read(self, name: str, kind: Kind | None = None) -> tuple[Kind, bytes]:
        """An object's kind and bytes; raises `MalformedObject` where it isn't here, is damaged, or is another kind."""
        try:
            number, raw = self._store.get_raw(ObjectID(name.encode("ascii")))
        except KeyError:
            raise _damaged(name, "it isn't there") from None
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes fail in as many ways as there are steps of reading them
            raise _damaged(name, str(error) or type(error).__name__) from error
        found = _KINDS.get(number)
        if found is None or object_id(found, raw) != name:
            raise _damaged(name, "its bytes are not those that its id stands for")
        if kind is not None and found != kind:
            raise _damaged(name, f"it is a {found} and no {kind}")
        return found, raw

    def commit(self, name: str) -> Commit:
        """A commit."""
        return parse_commit(name, self.read(name, "commit")[1])

    def tag(self, name: str) -> Tag:
        """An annotated tag."""
        return parse_tag(name, self.read(name, "tag")[1])

    def folder(self, name: str, path: str) -> tuple[Entry, ...]:
        """The entries of a folder, which is at `path`."""
        return parse_tree(name, self.read(name, "tree")[1], path)

    def at(self, tree: str, path: str) -> Entry | None:
        """What is at `path` below a folder; None where nothing is. A link on the way is refused."""
        entry = Entry(name="", mode=0o040000, id=tree)
        here = ""
        for part in filter(None, path.split("/")):
            if not entry.is_folder:
                raise BadTree(f"{here} is a {entry.kind} and no folder", next_step="put a folder there")
            found = self._names(entry.id, here).get(part)
            if found is None:
                return None
            entry, here = found, f"{here}/{part}".lstrip("/")
        return entry

    def _names(self, name: str, path: str) -> Mapping[str, Entry]:
        """A folder's entries by name, kept for the next look: files of one folder are looked up one after the other."""
        known = self._named.get(name)
        if known is None:
            while len(self._named) >= MAX_REMEMBERED:
                del self._named[next(iter(self._named))]
            known = self._named[name] = {entry.name: entry for entry in self.folder(name, path)}
        return known

    def files(self, tree: str, path: str) -> Iterator[tuple[str, Entry]]:
        """All that isn't a folder below the one at `path`, links and submodules too, by their whole paths."""
        for change in self.changes(None, tree, path):
            if change.after is not None:
                yield change.path, change.after

    def changes(self, before: str | None, after: str | None, path: str = "") -> Iterator[FileChange]:
        """What differs between two folders, both at `path`; None is an empty one."""
        yield from self._changes(before, after, path, 0, [0])

    def _changes(
        self, before: str | None, after: str | None, path: str, depth: int, seen: list[int]
    ) -> Iterator[FileChange]:
        if before == after:
            return
        if depth > MAX_DEPTH:
            raise BadTree(f"{path}: folders stand more than {MAX_DEPTH} deep", next_step="make it flatter")
        old = {entry.name: entry for entry in self.folder(before, path)} if before else {}
        new = {entry.name: entry for entry in self.folder(after, path)} if after else {}
        seen[0] += len(new)
        if seen[0] > MAX_ENTRIES:
            raise BadTree(f"it holds more than {MAX_ENTRIES:,} entries", next_step="follow a smaller folder")
        for name in sorted(old.keys() | new.keys()):
            one, other = old.get(name), new.get(name)
            if one == other:
                continue
            inner = f"{path}/{name}".lstrip("/")
            folders = [entry.id if entry is not None and entry.is_folder else None for entry in (one, other)]
            if any(folders):
                yield from self._changes(folders[0], folders[1], inner, depth + 1, seen)
            files = [entry if entry is not None and not entry.is_folder else None for entry in (one, other)]
            if files[0] != files[1]:
                yield FileChange(path=inner, before=files[0], after=files[1])


def _damaged(name: str, what: str) -> MalformedObject:
    return MalformedObject(f"the object {name[:12]} can't be read: {what}", next_step="run `git fsck` there")
