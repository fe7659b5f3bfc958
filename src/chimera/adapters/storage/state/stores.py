"""All stores of state on one database."""

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.state.answers import AnswerStorage
from chimera.adapters.storage.state.checkpoints import CheckpointStorage
from chimera.adapters.storage.state.runs import RunStorage
from chimera.adapters.storage.state.sessions import SessionStorage
from chimera.adapters.storage.state.spaces import SpaceStorage
from chimera.adapters.storage.state.subjects import SubjectStorage
from chimera.gateway.settings import StateSettings
from chimera.gateway.state.ports import StateStores
from chimera.kernel.clock import Clock


def make_state(database: Database, settings: StateSettings, clock: Clock | None = None) -> StateStores:
    """The stores."""
    sessions = SessionStorage(database, clock)
    runs = RunStorage(database, sessions)
    answers = AnswerStorage(database, runs)
    return StateStores(
        sessions=sessions,
        runs=runs,
        answers=answers,
        checkpoints=CheckpointStorage(database, runs),
        spaces=SpaceStorage(database, runs, answers, most_bytes=settings.space_bytes, most_keys=settings.space_keys),
        subjects=SubjectStorage(database, clock),
    )
