"""What an agent may use of its host: its share of the CPU, and the storage of its own folder.

In a shared host the system can't hold one agent back, so its use is accounted. CPU: a bucket that fills at the agent's
share and that the CPU time of its threads empties; an agent that has emptied it is refused while others run, and left
alone when nobody else wants the processor. Storage: the folder is measured after calls, and an agent over its quota is
refused until it has removed something. Both are checked between calls; one single call can overdraw either. Time that
an asynchronous framework spends on the event loop is not told apart by agent and so not counted.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chimera_host.errors import AgentOverShare, AgentStorageFull
from chimera_host.threads import WatchedThreads

BURST_SECONDS = 60.0
LONGEST_WAIT = 60.0
LOOK_EVERY = 2.0


@dataclass(slots=True, kw_only=True)
class CpuShare:
    """A bucket of CPU seconds: `share` processors fill it, up to a minute's worth."""

    share: float
    total: float = 0.0
    _level: float = 0.0
    _at: float = 0.0

    def spend(self, seconds: float, now: float) -> None:
        """The agent used CPU time."""
        self._refill(now)
        self._level += seconds
        self.total += seconds

    def check(self, agent: str, now: float, *, alone: Callable[[], bool]) -> None:
        """Refuse the agent when it used more than its share and isn't `alone`."""
        overdrawn = self.overdrawn(now)
        if overdrawn <= 0 or alone():
            return
        wait = overdrawn / self.share
        raise AgentOverShare(
            f"agent {agent} used more than its {self.share * 1000:.0f}m of CPU while others run",
            next_step="raise `resources.cpu` of its definition, or give it `isolation: dedicated`",
            retry_after=round(min(max(wait, 0.1), LONGEST_WAIT), 1),
            agent=agent,
        )

    def overdrawn(self, now: float) -> float:
        """CPU seconds used beyond the bucket."""
        self._refill(now)
        return self._level - self.share * BURST_SECONDS

    def _refill(self, now: float) -> None:
        self._level = max(0.0, self._level - self.share * max(0.0, now - self._at))
        self._at = now


@dataclass(slots=True, kw_only=True)
class Storage:
    """An agent's own folder and its quota in bytes."""

    folder: Path
    quota: int
    threads: WatchedThreads
    used: int = 0
    _looked_at: float = 0.0
    _task: asyncio.Task[None] | None = None

    def check(self, agent: str) -> None:
        """Refuse the agent when its folder is over the quota."""
        if self.used > self.quota:
            self.look_again(asyncio.get_running_loop().time())  # it may have been cleaned up from outside
            raise AgentStorageFull(
                f"the folder of agent {agent} holds {self.used} bytes of the {self.quota} it may",
                next_step=f"remove files from {self.folder}, or raise `resources.storage` of its definition",
                retry_after=LOOK_EVERY,
                agent=agent,
            )

    def look_again(self, now: float) -> None:
        """Measure the folder in a thread, if the last look is some time ago."""
        if self._task is None and now - self._looked_at >= LOOK_EVERY:
            self._looked_at = now
            self._task = asyncio.create_task(self._look(), name="measure-storage")

    async def _look(self) -> None:
        try:
            self.used, _ = await self.threads.run(lambda: folder_bytes(self.folder))
        finally:
            self._task = None


def folder_bytes(folder: Path, limit_seconds: float = 5.0) -> int:
    """Bytes of all files below `folder`, by what they take on disk; links are not followed, time is bounded."""
    total = 0
    until = time.monotonic() + limit_seconds
    folders = [str(folder)]
    while folders and time.monotonic() < until:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        total += min(status.st_blocks * 512, max(status.st_size, 512))
        except OSError:
            continue
    return total
