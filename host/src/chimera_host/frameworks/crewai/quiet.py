"""What CrewAI does beside its work, switched off once for the process.

Its event bus carries about 180 handlers, which print to the console and collect traces: with none of them it starts no
threads and a task costs a third less. It writes each task's output into an SQLite file, for `crewai replay`, and asks
a cache of uploaded files three times a task; a call here has neither. Handlers that an agent's own code registers
later work as ever.
"""

import logging
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.utilities import file_store

T = TypeVar("T")
_done: list[bool] = []


class NoOutputs:
    """CrewAI's record of task outputs, which keeps nothing (the protocol of its `TaskOutputStorageHandler`)."""

    def reset(self) -> None:
        """Nothing to forget."""

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        """Keep nothing."""

    def add(self, *_: Any, **__: Any) -> None:
        """Keep nothing."""

    def load(self) -> list[dict[str, Any]]:
        """Nothing was kept."""
        return []


def _run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, as those of the file store do when there is none.

    CrewAI would make an event loop for each, which is a tenth of a task.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    coroutine.close()
    raise RuntimeError("CrewAI's file store is switched off, yet something waits for it")


def prepare() -> None:
    """Make CrewAI quiet; the second time does nothing."""
    if _done:
        return
    logging.getLogger("crewai").setLevel(logging.ERROR)
    for event, handlers in list(crewai_event_bus._sync_handlers.items()):
        for handler in list(handlers):
            crewai_event_bus.off(event, handler)
    Crew.__private_attributes__["_task_output_handler"].default_factory = NoOutputs
    file_store._file_store = None
    file_store._run_sync = _run_at_once
    _done.append(True)
