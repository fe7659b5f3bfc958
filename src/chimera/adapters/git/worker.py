"""The process that reads repositories, and is told where and how much.

    python -m chimera.adapters.git.worker FOLDER MOST_BYTES MOST_MEMORY SECONDS MOST_COMMITS

What a stranger sends is unpacked here and nowhere else: in a process that holds nothing, has bounds of memory and of
the size of files, and is killed when it takes too long (or ends by itself, where nobody is there to do that). It reads
requests from its standard input and writes frames to its standard output, each with its length before it, and ends when
its input does: with the process that started it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from chimera.adapters.framing import bound, bound_cpu, framed, read_frame
from chimera.adapters.git import remote
from chimera.adapters.git.definitions import CommitFiles
from chimera.adapters.git.messages import (
    Ask,
    AskCompare,
    AskFetch,
    AskRead,
    AskTip,
    Compared,
    Done,
    Failed,
    Fetched,
    Files,
    Frame,
    Tip,
)
from chimera.adapters.git.objects import Objects
from chimera.agents.errors import Fault
from chimera.delivery.git.definitions import may_define, read
from chimera.delivery.git.errors import BadTree, GitError, RepositoryTooLarge
from chimera.delivery.git.ports import PackedCode, ReadDefinition, ReadFile, Touched
from chimera_host.contract.problem import ProblemError

FILES_AT_ONCE = 200
BYTES_AT_ONCE = 4 * 1024**2


class Worker:
    """Answers requests about the copies in one folder."""

    def __init__(self, folder: Path, most_bytes: int, memory: int, most_commits: int) -> None:
        """A repository has at most `most_bytes`; the process has so much memory, in bytes.

        On each side of what is new, so many commits are read at most.
        """
        self._folder = folder
        self._most = most_bytes
        self._memory = memory
        self._most_commits = most_commits

    def answer(self, ask: Ask) -> Iterator[Frame]:
        """The frames of an answer."""
        try:
            match ask:
                case AskTip():
                    yield Tip(remote.tip(ask.remote))
                case AskFetch():
                    folder = self._folder / ask.key
                    yield Fetched(
                        remote.fetch(folder, ask.remote, ask.commit, ask.before, self._most, self._most_commits)
                    )
                case AskCompare():
                    yield Compared(self._compare(ask))
                case AskRead():
                    yield from self._read(ask)
            yield Done()
        except GitError as error:
            yield Failed(type(error).__name__, error.detail, error.next_step or "")
        except ProblemError as error:
            yield Failed(BadTree.__name__, error.detail, error.next_step or "")
        except MemoryError:
            yield Failed(
                RepositoryTooLarge.__name__,
                f"reading it takes more memory than the {self._memory >> 20} MiB that it may have",
                "look for a file that unpacks to very much, or raise `sync.memory_bytes`, and where that is more "
                "already what the machine or the pod has (`--control-plane-memory` in a cluster)",
            )

    def _compare(self, ask: AskCompare) -> Touched:
        objects = Objects(self._folder / ask.key / "objects")
        try:
            before, after = (
                None if name is None else _tree(objects, name, ask.path) for name in (ask.before, ask.commit)
            )
            changed: list[str] = []
            gone: list[str] = []
            for one in objects.changes(before, after, ask.path):
                (changed if one.after is not None else gone).append(one.path)
                if one.after is not None and may_define(one.path) and not one.after.is_file:
                    raise BadTree(
                        f"{one.path} is a {one.after.kind}, which can't be applied",
                        next_step="put the file itself there",
                    )
            return Touched(changed=tuple(changed), gone=tuple(gone))
        finally:
            objects.close()

    def _read(self, ask: AskRead) -> Iterator[Frame]:
        objects = Objects(self._folder / ask.key / "objects")
        try:
            files = CommitFiles(objects, objects.commit(ask.commit).tree)
            waiting: list[ReadFile] = []
            size = 0
            for path in ask.files:
                for one in _read_one(files, path):
                    waiting.append(one)
                    size += sum(
                        len(each.code.data) if each.code else len(each.item.text or "") for each in one.definitions
                    )
                if len(waiting) >= FILES_AT_ONCE or size > BYTES_AT_ONCE:
                    yield Files(waiting)
                    waiting, size = [], 0
            yield Files(waiting)
        finally:
            objects.close()


def _tree(objects: Objects, commit: str, path: str) -> str | None:
    entry = objects.at(objects.commit(commit).tree, path)
    if entry is None:
        return None
    if not entry.is_folder:
        raise BadTree(f"{path} is a {entry.kind} and no folder", next_step="put a folder there, or follow another path")
    return entry.id


def _read_one(files: CommitFiles, path: str) -> Iterator[ReadFile]:
    entry = files.at(path)
    for found in files.definitions([(path, entry)] if entry is not None else []):
        try:
            definitions, faults = read(found)
        except ProblemError as error:
            definitions, faults = [], [Fault(file=path, message=error.detail)]
        yield ReadFile(
            file=path,
            faults=tuple(faults),
            definitions=tuple(
                ReadDefinition(
                    number=one.number,
                    first_line=one.first_line,
                    item=one.item,
                    folder=one.folder,
                    code=PackedCode(digest=one.packed.digest, data=one.packed.data) if one.packed else None,
                )
                for one in definitions
            ),
        )


def main() -> None:
    """Answer until the input ends."""
    folder, most_bytes, most_memory, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    most_commits = int(sys.argv[5])
    bound(memory=most_memory, file_bytes=most_bytes)
    worker = Worker(folder, most_bytes, most_memory, most_commits)
    decoder = msgspec.msgpack.Decoder(Ask)
    while (data := read_frame(sys.stdin.buffer)) is not None:
        bound_cpu(seconds)
        for frame in worker.answer(decoder.decode(data)):
            sys.stdout.buffer.write(framed(frame))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
