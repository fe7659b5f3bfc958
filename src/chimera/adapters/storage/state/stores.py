"""All stores of state on one database, and what retention removes of them."""

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.state.answers import AnswerStorage, expire_answers
from chimera.adapters.storage.state.checkpoints import CheckpointStorage
from chimera.adapters.storage.state.runs import RunStorage, expire_runs
from chimera.adapters.storage.state.sessions import SessionStorage, expire_sessions
from chimera.adapters.storage.state.spaces import SpaceStorage, expire_spaces
from chimera.adapters.storage.state.subjects import SubjectStorage
from chimera.gateway.settings import StateSettings
from chimera.gateway.state.ports import StateStores
from chimera.kernel.clock import Clock

EXPIRE = {
    "sessions": expire_sessions,
    "runs": expire_runs,
    "answers": expire_answers,
    "spaces": expire_spaces,
}
"""For each kind what removes its rows that have ended: `expire(connection, now, limit) -> int`, inside a write job.

Steps go with their run, checkpoints with their session or run.
"""


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
