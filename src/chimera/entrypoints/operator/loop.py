"""What the operator's loops share: one pass over all objects of a kind, when something changed, and not sooner.

A pass looks at everything and does what is to be done, in batches. It is begun by a change (of an object, or of the
catalogue, whose sequence is asked once in `poll`), after a moment in which more may come, or by a time that the pass
before named. Failures wait longer each time; where the cluster itself is the trouble, all of it waits.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.leases import LeaseLost
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
ACTOR = "system:operator"


def moment_of(clock: Clock) -> str:
    """Now, as Kubernetes writes it."""
    return datetime.fromtimestamp(clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Loop(ABC):
    """`run` it while holding the lease."""

    kind: str

    def __init__(self, catalogue: Catalogue, clock: Clock, settings: OperatorSettings) -> None:
        """Nothing runs yet."""
        self.catalogue = catalogue
        self.clock = clock
        self.settings = settings
        self.passes = 0
        self.failures = 0
        self._poked = asyncio.Event()
        self._sequence = -1

    def poke(self, _: Iterable[object] = ()) -> None:
        """Something changed."""
        self._poked.set()

    async def run(self, held: Lease) -> None:
        """Work until cancelled; begun again, it knows nothing of before."""
        self.failures, self._sequence = 0, -1
        await self.begin()
        look_again: float | None = self.clock.monotonic()
        while True:
            try:
                sequence = await self.catalogue.sequence()
                changed = sequence != self._sequence
                due = look_again is not None and self.clock.monotonic() >= look_again
                if changed or due or self._poked.is_set():
                    if self._poked.is_set():
                        await asyncio.sleep(self.settings.settle)
                    self._poked.clear()
                    if changed:
                        await self.follow()
                        self._sequence = sequence
                    self.passes += 1
                    look_again = await self.look(held)
                    self.failures = 0
            except LeaseLost:
                raise
            except ProblemError as error:
                self.failures += 1
                pause = self.pause(error)
                log.warning("a pass failed", extra={"kind": self.kind, "error": error.detail, "seconds": pause})
                self._poked.set()  # what was to be done still is
                await asyncio.sleep(pause)
                continue
            await self._wait(look_again)

    def pause(self, error: ProblemError) -> float:
        """How long to wait after a failure."""
        asked = error.retry_after or 0.0 if isinstance(error, ClusterError) else 0.0
        return max(asked, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20)))

    @abstractmethod
    async def begin(self) -> None:
        """Wait until the objects are known, and forget what was known of the catalogue."""

    @abstractmethod
    async def follow(self) -> None:
        """Read what changed in the catalogue."""

    @abstractmethod
    async def look(self, held: Lease) -> float | None:
        """One pass; when to look again by itself (None: when something changes)."""

    async def _wait(self, look_again: float | None) -> None:
        seconds = self.settings.poll
        if look_again is not None:
            seconds = min(seconds, max(0.0, look_again - self.clock.monotonic()))
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass
