"""Statuses on their way to the cluster: a few at once, at a bounded rate, by server-side apply of the operator's own.

What the API server answers counts as seen, so that the next pass doesn't write it again before the watch brings it; not
where it has more that is new than the status, which is for the watch to tell. An object that is gone or refuses waits
by itself; where the cluster is the trouble the rest is left for another pass.
"""

import asyncio
import logging
from collections.abc import Container, Sequence
from typing import Generic, TypeVar

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.following import Following, HasMeta
from chimera.adapters.substrates.knative.objects import Resource
from chimera.adapters.substrates.knative.plan import concerns_all
from chimera.adapters.substrates.knative.resources.kinds import Key
from chimera.adapters.substrates.knative.resources.status import MANAGER, Json
from chimera.kernel.clock import Clock

log = logging.getLogger(__name__)

AT_ONCE = 8
FIRST_DELAY, LONGEST_DELAY = 2.0, 600.0

T = TypeVar("T", bound=HasMeta)


class StatusWriter(Generic[T]):
    """Writes the statuses of one kind."""

    def __init__(
        self, api: Kubernetes, resource: Resource[T], seen: Following[T], clock: Clock, per_second: float
    ) -> None:
        """Write to `resource`, whose objects `seen` follows."""
        self._api = api
        self._resource = resource
        self._seen = seen
        self._clock = clock
        self._interval = 1.0 / per_second
        self._next = 0.0
        self._later: dict[Key, tuple[float, int]] = {}
        self._own: dict[Key, str] = {}
        self.written = 0

    def may(self, key: Key, now: float) -> bool:
        """Whether a status of this object may be tried now, or it failed a moment ago."""
        later = self._later.get(key)
        return later is None or now >= later[0]

    def look_again(self) -> float | None:
        """When the next of those that failed is due."""
        return min((due for due, _ in self._later.values()), default=None)

    def wrote(self, key: Key, version: str) -> bool:
        """Whether an object's version is the one that was written here: no news."""
        return self._own.get(key) == version

    def keep(self, keys: Container[Key]) -> None:
        """Forget what was remembered of objects that are no more."""
        self._later = {key: value for key, value in self._later.items() if key in keys}
        self._own = {key: value for key, value in self._own.items() if key in keys}

    async def write(self, documents: Sequence[tuple[Key, Json]]) -> None:
        """Write them; raises the first error that concerns all of them."""
        waiting = iter(documents)
        trouble: list[ClusterError] = []

        async def worker() -> None:
            for key, document in waiting:
                if trouble:
                    return
                await self._paced()
                before = self._seen.objects.get(key)
                try:
                    made = await self._api.apply(self._resource, document, force=True, manager=MANAGER, part="status")
                except ClusterError as error:
                    if concerns_all(error):
                        trouble.append(error)
                        return
                    self._failed(key, error)
                else:
                    self.written += 1
                    self._later.pop(key, None)
                    alone = before is not None and before.metadata.edition == made.metadata.edition
                    if alone and self._seen.take(made, before):
                        self._own[key] = made.metadata.resource_version

        await asyncio.gather(*(worker() for _ in range(min(AT_ONCE, len(documents)))))
        if trouble:
            raise trouble[0]

    async def _paced(self) -> None:
        now = self._clock.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._interval
        if turn > now:
            await asyncio.sleep(turn - now)

    def _failed(self, key: Key, error: ClusterError) -> None:
        _, failures = self._later.get(key, (0.0, 0))
        delay = max(error.retry_after or 0.0, min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 20)))
        self._later[key] = (self._clock.monotonic() + delay, failures + 1)
        extra = {"kind": self._resource.kind, "namespace": key[0], "object": key[1], "error": error.detail}
        log.warning("a status was not written", extra=extra)
