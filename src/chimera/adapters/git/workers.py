"""Repositories by worker processes: started when they are first wanted, and killed when they take too long.

Copies are a cache: of those that no look has needed for a while, the oldest go where all of them take too much room.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import msgspec

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
from chimera.adapters.workers import WorkerEnded, Workers
from chimera.delivery.git import errors
from chimera.delivery.git.errors import GitError, Unreachable
from chimera.delivery.git.ports import CommitTold, ReadFile, Remote, Touched
from chimera.delivery.git.settings import SyncSettings

KINDS = {
    one.__name__: one for one in (errors.Unreachable, errors.RepositoryTooLarge, errors.MalformedObject, errors.BadTree)
}
IN_USE = 900.0
"""Seconds since a copy was last used in which a look may still need it."""
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class WorkerRepositories:
    """The port `Repositories`. Copies are in `folder`, which nobody else uses; `aclose` it."""

    def __init__(self, folder: Path, settings: SyncSettings, *, memory: int | None = None) -> None:
        """Nothing runs yet. `memory` is the part of it that each process may have, in bytes."""
        self._folder = folder
        self._settings = settings
        most = settings.memory_bytes if memory is None else min(memory, settings.memory_bytes)
        bounds = map(str, (folder, settings.repository_bytes, most, settings.fetch_timeout, settings.history_commits))
        self._workers = Workers(("-m", "chimera.adapters.git.worker", *bounds), kept=settings.at_once)
        self._used: dict[str, float] = {}

    async def aclose(self) -> None:
        """End the processes."""
        await self._workers.aclose()

    async def tip(self, remote: Remote) -> str:
        """See `Repositories`."""
        found = await self._one(AskTip(remote), self._settings.look_timeout)
        assert isinstance(found, Tip)
        return found.commit

    async def fetch(self, key: str, remote: Remote, commit: str, before: str | None) -> CommitTold:
        """See `Repositories`."""
        self._used[key] = time.monotonic()
        await asyncio.to_thread(self._make_room)
        found = await self._one(AskFetch(key, remote, commit, before), self._settings.fetch_timeout)
        assert isinstance(found, Fetched)
        self._used[key] = time.monotonic()
        return found.told

    async def compare(self, key: str, before: str | None, commit: str, path: str) -> Touched:
        """See `Repositories`."""
        found = await self._one(AskCompare(key, before, commit, path), self._settings.fetch_timeout)
        assert isinstance(found, Compared)
        return found.touched

    async def read(self, key: str, commit: str, files: Sequence[str]) -> AsyncIterator[list[ReadFile]]:
        """See `Repositories`."""
        async for frame in self._frames(AskRead(key, commit, tuple(files)), self._settings.fetch_timeout):
            assert isinstance(frame, Files)
            if frame.files:
                yield frame.files

    async def forget(self, key: str) -> None:
        """See `Repositories`."""
        self._used.pop(key, None)
        await asyncio.to_thread(shutil.rmtree, self._folder / key, ignore_errors=True)

    def _make_room(self) -> None:
        """Remove copies that were used longest ago, as many as leave the others room; none that may be in use."""
        if not self._folder.is_dir():
            return
        sizes = {one.name: _size(one) for one in self._folder.iterdir() if one.is_dir()}
        over = sum(sizes.values()) - self._settings.copies_bytes
        still = time.monotonic() - IN_USE
        for key in sorted(sizes, key=lambda one: self._used.get(one, 0.0)):
            if over <= 0 or self._used.get(key, 0.0) > still:
                return
            shutil.rmtree(self._folder / key, ignore_errors=True)
            self._used.pop(key, None)
            over -= sizes[key]

    async def _one(self, ask: Ask, seconds: float) -> Frame:
        async with contextlib.aclosing(self._frames(ask, seconds)) as frames:
            found = [frame async for frame in frames]
        return found[0]

    async def _frames(self, ask: Ask, seconds: float) -> AsyncGenerator[Frame, None]:
        """The frames of an answer; a process that didn't come to the end of it is killed."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with self._workers.one() as worker:
                async with asyncio.timeout_at(until):
                    await worker.send(ask)
                while True:
                    async with asyncio.timeout_at(until):
                        frame = _decoder.decode(await worker.read())
                    match frame:
                        case Done():
                            worker.answered = True
                            return
                        case Failed():
                            worker.answered = True
                            raise KINDS.get(frame.kind, GitError)(frame.detail, next_step=frame.next_step)
                        case _:
                            yield frame
        except TimeoutError:
            raise Unreachable(
                f"the repository took longer than {seconds:g} s", next_step="it is tried again; see the settings `sync`"
            ) from None
        except WorkerEnded as error:
            raise Unreachable(
                f"the process that reads repositories has no answer: {error}",
                next_step="it is tried again; see the control plane's log",
            ) from None


def _size(folder: Path) -> int:
    """What is in a folder, as far as it is there: others may be writing into it."""
    found = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(here, name)).st_size  # noqa: PTH118 - many files
    return found
