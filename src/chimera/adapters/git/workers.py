"""Repositories by worker processes: started when they are first wanted, and killed when they take too long.

Copies are a cache: of those that no look has needed for a while, the oldest go where all of them take too much room.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import msgspec

from chimera.adapters.git.messages import (
    MOST_FRAME,
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
    framed,
)
from chimera.delivery.git import errors
from chimera.delivery.git.errors import GitError, Unreachable
from chimera.delivery.git.ports import CommitTold, ReadFile, Remote, Touched
from chimera.delivery.git.settings import SyncSettings

INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "all_proxy",
)
KINDS = {
    one.__name__: one for one in (errors.Unreachable, errors.RepositoryTooLarge, errors.MalformedObject, errors.BadTree)
}
IN_USE = 900.0
"""Seconds since a copy was last used in which a look may still need it."""
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class WorkerRepositories:
    """The port `Repositories`. Copies are in `folder`, which nobody else uses; `aclose` it."""

    def __init__(self, folder: Path, settings: SyncSettings) -> None:
        """Nothing runs yet."""
        self._folder = folder
        self._settings = settings
        self._idle: list[asyncio.subprocess.Process] = []
        self._used: dict[str, float] = {}

    async def aclose(self) -> None:
        """End the processes."""
        idle, self._idle = self._idle, []
        for process in idle:
            await _end(process)

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
        process = self._idle.pop() if self._idle else await self._start()
        finished = False
        try:
            until = asyncio.get_running_loop().time() + seconds
            async with asyncio.timeout_at(until):
                await _send(process, ask)
            while True:
                async with asyncio.timeout_at(until):
                    frame = await _next(process)
                match frame:
                    case Done():
                        finished = True
                        return
                    case Failed():
                        finished = True
                        raise KINDS.get(frame.kind, GitError)(frame.detail, next_step=frame.next_step)
                    case _:
                        yield frame
        except TimeoutError:
            raise Unreachable(
                f"the repository took longer than {seconds:g} s", next_step="it is tried again; see the settings `sync`"
            ) from None
        finally:
            if finished and process.returncode is None and len(self._idle) < self._settings.at_once:
                self._idle.append(process)
            else:
                await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        settings = self._settings
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "chimera.adapters.git.worker"),
            *(str(self._folder), str(settings.repository_bytes), str(settings.memory_bytes)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in INHERITED if name in os.environ},
        )


def _size(folder: Path) -> int:
    """What is in a folder, as far as it is there: others may be writing into it."""
    found = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(here, name)).st_size  # noqa: PTH118 - many files
    return found


async def _send(process: asyncio.subprocess.Process, ask: Ask) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it ended: reading says so
        process.stdin.write(framed(ask))
        await process.stdin.drain()


async def _next(process: asyncio.subprocess.Process) -> Frame:
    assert process.stdout is not None
    try:
        length = int.from_bytes(await process.stdout.readexactly(4), "big")
        if length > MOST_FRAME:
            raise Unreachable("the repository's answer is too long", next_step="follow a smaller folder")
        return _decoder.decode(await process.stdout.readexactly(length))
    except asyncio.IncompleteReadError:
        raise Unreachable(
            "the process that reads repositories ended", next_step="it is tried again; see the control plane's log"
        ) from None


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
