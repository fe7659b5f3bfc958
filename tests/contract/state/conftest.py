"""The services of state over each database, with a clock that stands until it is moved."""

from dataclasses import dataclass
from typing import Any

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.state.stores import make_state
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import StateSettings
from chimera.gateway.state.answers import Answers
from chimera.gateway.state.ports import StateStores
from chimera.gateway.state.runs import Runs
from chimera.gateway.state.sessions import Sessions
from chimera.gateway.state.spaces import Spaces
from chimera.gateway.state.subjects import Subjects
from chimera.testing.clock import ManualClock
from chimera_host.contract.call import Message

SETTINGS = StateSettings(session_ttl=1_000, run_bytes=100_000, run_steps=20, step_bytes=4_096, space_bytes=20_000)


@dataclass(frozen=True, kw_only=True)
class State:
    database: Database
    clock: ManualClock
    stores: StateStores
    metrics: GatewayMetrics
    sessions: Sessions
    runs: Runs
    answers: Answers
    spaces: Spaces
    subjects: Subjects

    def another_gateway(self, name: str = "gw_2") -> "State":
        return make(self.database, self.clock, name)


def make(database: Database, clock: ManualClock, gateway: str = "gw_1", **settings: Any) -> State:
    chosen = SETTINGS if not settings else StateSettings(**settings)
    stores = make_state(database, chosen, clock)
    metrics = GatewayMetrics()
    sessions = Sessions(stores.sessions, clock, most_bytes=10_000, settings=chosen)
    runs = Runs(stores.runs, sessions, clock, gateway=gateway, settings=chosen, metrics=metrics)
    return State(
        database=database,
        clock=clock,
        stores=stores,
        metrics=metrics,
        sessions=sessions,
        runs=runs,
        answers=Answers(stores.answers, runs, clock, settings=chosen, metrics=metrics),
        spaces=Spaces(stores.spaces, runs, clock, settings=chosen),
        subjects=Subjects(stores.subjects, stores.sessions, clock),
    )


@pytest.fixture
async def state(database: Database) -> State:
    return make(database, ManualClock())


def said(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role="user", content=text) for text in texts)
