"""What is seen of the sides of agents that are rolled out: counted in arrays, written down as one batch a second.

Only agents with a green side have a place here, two each; twelve thousand others cost a look-up in a dictionary of
none. A window that can't be written is kept and goes with the next one. A gateway that is killed loses what it has
counted since its last write: one second and the time that a write takes.
"""

import asyncio
import logging
from array import array
from typing import NamedTuple

from chimera.delivery.sides.model import Seen
from chimera.delivery.sides.rules import BUCKETS, bucket_of
from chimera.gateway.sides.faults import Fault
from chimera.gateway.sides.ports import Noticed, ObservationStore
from chimera.gateway.sides.rules import green_of
from chimera.platform.model import Route
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

MOST_KEPT = 20_000
"""Sides whose counts are kept while they can't be written."""
_COUNTS = 3
_WIDTH = _COUNTS + BUCKETS


class _Place(NamedTuple):
    tenant: str
    rollout: str
    agent: str
    revision: str
    green: bool


class Watcher:
    """Counts what ended; `run` writes it down."""

    def __init__(self, store: ObservationStore, gateway: str) -> None:
        """Write to `store` as `gateway`."""
        self._store = store
        self._gateway = gateway
        self._places: dict[_Place, int] = {}
        self._counts = array("q")
        self._late: list[Noticed] = []

    def ended(self, live: Route | None, revision: str, fault: Fault, seconds: float) -> None:
        """A call on `revision` of an agent ended, which is at `live` now."""
        green = None if live is None else green_of(live)
        if live is None or green is None or green.rollout is None or fault == "caller":
            return
        if revision not in (live.revision, green.revision):
            return
        place = _Place(live.tenant, green.rollout, live.agent, revision, revision == green.revision)
        at = self._places.get(place)
        if at is None:
            at = self._places[place] = len(self._counts)
            self._counts.extend(bytes(_WIDTH))
        if fault == "platform":
            self._counts[at + 2] += 1
            return
        self._counts[at] += 1
        self._counts[at + 1] += fault == "agent"
        self._counts[at + _COUNTS + bucket_of(seconds)] += 1

    async def run(self, every: float) -> None:
        """Write every so many seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was counted since; on failure it is kept for the next time."""
        noticed = self._late + self._taken()
        if not noticed:
            return
        self._late = []
        try:
            await self._store.add(self._gateway, noticed)
        except ProblemError as error:
            log.warning("what was seen of rollouts is not written down yet", extra={"problem": error.detail})
            self._late = noticed[-MOST_KEPT:]

    def _taken(self) -> list[Noticed]:
        counts, places = self._counts, self._places
        self._counts, self._places = array("q"), {}
        return [
            Noticed(
                tenant=place.tenant,
                rollout=place.rollout,
                seen=Seen(
                    agent=place.agent,
                    revision=place.revision,
                    green=place.green,
                    window=0,
                    calls=counts[at],
                    failures=counts[at + 1],
                    platform=counts[at + 2],
                    buckets=tuple(counts[at + _COUNTS : at + _WIDTH]),
                ),
            )
            for place, at in places.items()
        ]
