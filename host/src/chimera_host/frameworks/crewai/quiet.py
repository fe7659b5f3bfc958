"""What CrewAI does beside its work, switched off once for the process.

Its event bus carries about 180 handlers, which print to the console and collect traces: with none of them it starts no
threads and a task costs a third less. It writes each task's output into an SQLite file, for `crewai replay`, and asks
a cache of uploaded files three times a task; a call here has neither. Handlers that an agent's own code registers
later work as ever.

Nothing of CrewAI opens a database: what outlives a call is the platform's to keep. A flow's state goes into the run's
steps. Memories and knowledge, for which CrewAI opens one with vectors, are refused where they are used.
"""

import logging
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar, cast

from crewai import Crew
from crewai.events.event_bus import crewai_event_bus
from crewai.flow.persistence.factory import set_flow_persistence_factory
from crewai.flow.persistence.sqlite import SQLiteFlowPersistence
from crewai.knowledge.storage.factory import set_knowledge_storage_factory
from crewai.memory.storage.factory import set_memory_storage_factory
from crewai.utilities import file_store

from chimera_host.errors import AgentFailed, AgentLoadError
from chimera_host.frameworks.crewai import steps

T = TypeVar("T")
KEEP_ELSEWHERE = "keep what has to be remembered in the session, a shared space, or behind a tool"
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


class NoMemories:
    """CrewAI's store of memories, where there is none: each flow has one, and most never use it."""

    def __getattr__(self, name: str) -> Any:
        """Refuse its use."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise AgentFailed("CrewAI's memory would open a database in the host", next_step=KEEP_ELSEWHERE)


def _no_knowledge(*_: object) -> NoReturn:
    raise AgentLoadError(
        "CrewAI's knowledge would open a database in the host", next_step="give the crew a tool that looks things up"
    )


def _no_sqlite(_: SQLiteFlowPersistence) -> NoReturn:
    raise AgentLoadError(
        "SQLiteFlowPersistence would open a database in the host",
        next_step="use @persist without it: a flow's state is kept by the platform",
    )


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
    set_memory_storage_factory(lambda _: NoMemories())
    set_knowledge_storage_factory(_no_knowledge)
    set_flow_persistence_factory(steps.of_this_call)
    SQLiteFlowPersistence.init_db = _no_sqlite
    steps.prepare()
    file_store._file_store = None
    file_store._run_sync = _run_at_once
    _done.append(True)
