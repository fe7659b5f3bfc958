"""How far tasks are: kept in memory as their agents speak, written down in batches, told to those who follow.

A piece costs an addition to a string; the newest progress of all tasks that have any is one write a second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from chimera.gateway.hosts import Sink
from chimera.gateway.state.runs import OpenRun
from chimera.gateway.tasks.model import Progress, Task, TaskKey
from chimera.gateway.tasks.watch import Watchers
from chimera.kernel.clock import Clock
from chimera_host.contract.call import Delta, ToolEvent

_DELTAS = msgspec.json.Decoder(Delta)
_TOOLS = msgspec.json.Decoder(ToolEvent)


class ProgressStore(Protocol):
    """Where progress is written down."""

    async def progress(self, worker: str, rows: Mapping[TaskKey, tuple[int, Progress]]) -> None:
        """Write down by task its token and how far it is."""


@dataclass(kw_only=True, slots=True)
class _Spoken:
    """What one task's agent has said."""

    token: int
    attempt: int
    parts: list[str] = field(default_factory=list)
    held: int = 0
    characters: int = 0
    source: str | None = None
    tool: str | None = None

    def add(self, text: str, most: int) -> None:
        """Remember the end of what was said: up to twice `most` characters, so that it is cut rarely."""
        self.parts.append(text[-most:] if most else "")
        self.held += len(self.parts[-1])
        self.characters += len(text)
        if self.held > 2 * most:
            self.parts = [self.text(most)]
            self.held = len(self.parts[0])

    def text(self, most: int) -> str:
        """The last `most` characters."""
        return "".join(self.parts)[-most:] if most else ""


class Reporter:
    """The progress of one worker's tasks."""

    def __init__(self, store: ProgressStore, watchers: Watchers, clock: Clock, *, every: float, text: int) -> None:
        """Keep the last `text` characters of each; write at most `every` so many seconds."""
        self._store = store
        self._watchers = watchers
        self._clock = clock
        self._every = every
        self._text = text
        self._spoken: dict[TaskKey, _Spoken] = {}
        self._changed: set[TaskKey] = set()
        self._any = asyncio.Event()

    def sink(self, key: TaskKey, task: Task) -> Sink:
        """Takes the events of a task's call."""
        spoken = self._spoken[key] = _Spoken(token=task.token, attempt=task.attempts)

        async def take(name: bytes, data: bytes) -> None:
            self._take(spoken, name, data)
            if self._spoken.get(key) is spoken:
                self._changed.add(key)
                self._any.set()
            self._watchers.piece(key, name, data)

        return take

    def _take(self, spoken: _Spoken, name: bytes, data: bytes) -> None:
        event: Any
        if name == b"delta":
            event = _DELTAS.decode(data)
            spoken.source = event.source
            spoken.add(event.text, self._text)
        elif name == b"tool":
            event = _TOOLS.decode(data)
            spoken.tool = event.tool

    def stepped(self, opened: OpenRun) -> None:
        """Something of a run is about to be stored; it may be a task's."""
        key = TaskKey(tenant=opened.run.tenant, task=opened.name)
        if key in self._spoken:
            self._changed.add(key)
            self._any.set()

    def forget(self, key: TaskKey) -> None:
        """The task's attempt has ended."""
        self._spoken.pop(key, None)
        self._changed.discard(key)

    async def wait(self) -> None:
        """Until there is something to write."""
        await self._any.wait()

    async def write(self, worker: str) -> None:
        """Write down what has changed; on failure it has changed still."""
        self._any.clear()
        changed, self._changed = self._changed, set()
        now = self._clock.wall()
        rows = {
            key: (spoken.token, self._progress(spoken, now)) for key in changed if (spoken := self._spoken.get(key))
        }
        if not rows:
            return
        try:
            await self._store.progress(worker, rows)
        except BaseException:
            self._changed |= changed & self._spoken.keys()
            if self._changed:
                self._any.set()
            raise
        for key in rows:
            self._watchers.tell(key)

    def _progress(self, spoken: _Spoken, now: float) -> Progress:
        return Progress(
            attempt=spoken.attempt,
            at=now,
            characters=spoken.characters,
            text=spoken.text(self._text),
            source=spoken.source,
            tool=spoken.tool,
        )
