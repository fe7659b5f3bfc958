"""The services of state, put together on their stores."""

from collections.abc import Mapping
from dataclasses import dataclass

from chimera.entrypoints.gateway.internal import BODY_BYTES
from chimera.entrypoints.gateway.internal_state import InternalState
from chimera.entrypoints.gateway.state import StateHandlers
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import GatewaySettings
from chimera.gateway.state.answers import Answers
from chimera.gateway.state.ports import StateStores, SubjectPart
from chimera.gateway.state.runs import Runs
from chimera.gateway.state.sessions import Sessions
from chimera.gateway.state.spaces import Spaces
from chimera.gateway.state.subjects import Subjects
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id


@dataclass(frozen=True, kw_only=True, slots=True)
class StateServices:
    """What the gateway does with state, and the two APIs of it."""

    runs: Runs
    answers: Answers
    handlers: StateHandlers
    internal: InternalState


def make_state_services(
    stores: StateStores,
    settings: GatewaySettings,
    clock: Clock,
    metrics: GatewayMetrics,
    others: Mapping[str, SubjectPart],
) -> StateServices:
    """The services; this gateway holds runs under an id of its own, which no other ever has.

    `others` keep something of people, too (by the name of their count).
    """
    state = settings.state
    sessions = Sessions(stores.sessions, clock, most_bytes=settings.http.session_bytes, settings=state)
    runs = Runs(stores.runs, sessions, clock, gateway=new_id("gw"), settings=state, metrics=metrics)
    spaces = Spaces(stores.spaces, runs, clock, settings=state)
    return StateServices(
        runs=runs,
        answers=Answers(stores.answers, runs, clock, settings=state, metrics=metrics),
        handlers=StateHandlers(
            sessions=sessions,
            runs=runs,
            spaces=spaces,
            subjects=Subjects(stores.subjects, stores.sessions, clock, others),
            settings=settings.http,
        ),
        internal=InternalState(
            runs=runs,
            checkpoints=stores.checkpoints,
            spaces=spaces,
            clock=clock,
            settings=settings.http,
            step_bytes=state.step_bytes,
            body_bytes=BODY_BYTES,
        ),
    )
