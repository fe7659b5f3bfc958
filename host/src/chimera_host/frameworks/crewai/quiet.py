"""What CrewAI does beside its work, switched off once for the process.

Its event bus carries about 180 handlers, which print to the console and collect traces: with none of them it starts no
threads and a task costs a third less. It writes each task's output into an SQLite file, for `crewai replay`, and asks
a cache of uploaded files three times a task; a call here has neither. Handlers that an agent's own code registers
later work as ever.
"""

import logging
from typing import Any

from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.utilities import file_store

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
    _done.append(True)
