"""One kind of object, as it is now: listed once, then followed by a watch for ever.

Level-triggered: who looks sees the newest objects, and is told that something changed, not what. A watch that ends goes
on from the last version seen, bookmarks included, so that a quiet cluster costs one request in five minutes and no
list. Only a version that the server has forgotten (410) costs a new list. Failures wait longer each time, with jitter,
so that a cluster that comes back isn't met by everybody at once.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError, WatchExpired
from chimera.adapters.substrates.knative.objects import Identity, Resource

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
LASTED, AT_ONCE = 5.0, 0.5
"""A watch that lasted so many seconds worked; one that ended sooner than `AT_ONCE` didn't."""


class HasMeta(Protocol):
    """An object of a cluster."""

    @property
    def metadata(self) -> Identity:
        """What it says of itself."""


T = TypeVar("T", bound=HasMeta)


class Following(Generic[T]):
    """The objects of one kind whose labels match. `run` it; look at `objects` at any time."""

    def __init__(
        self,
        api: Kubernetes,
        resource: Resource[T],
        *,
        namespace: str | None,
        selector: str = "",
        name: str | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Follow `resource` in `namespace` (None: in all); the one object called `name`, where it is given."""
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._name = name
        self._jitter = jitter
        self._on_change: list[Callable[[Iterable[T]], None]] = []
        self._on_failure: list[Callable[[], None]] = []
        self._version: str | None = None
        self.objects: dict[tuple[str, str], T] = {}
        self.synced = asyncio.Event()
        self.failure: ClusterError | None = None
        self.failing_since: float | None = None

    def on_change(self, callback: Callable[[Iterable[T]], None]) -> None:
        """Call `callback` too, behind those that were given before, with objects that came, changed or went.

        Those that went are as they last were.
        """
        self._on_change.append(callback)

    def on_failure(self, callback: Callable[[], None]) -> None:
        """Call `callback` too when following begins to fail, and when it works again."""
        self._on_failure.append(callback)

    def take(self, item: T, over: T | None) -> bool:
        """Count in what a write of one's own answered, before the watch brings it; whether that was done.

        `over` is the object as it was when the write began (None: there was none). Where it is another by now, the
        watch has brought something meanwhile, maybe newer than the answer; and it brings the answer, unless it has.
        """
        key = _key(item)
        if self.objects.get(key) is not over:
            return False
        self.objects[key] = item
        return True

    def drop(self, namespace: str, name: str) -> None:
        """Count out what one deleted oneself."""
        self.objects.pop((namespace, name), None)

    async def run(self) -> None:
        """Follow until cancelled; begun again, it lists anew, since what it knew may be hours old."""
        self._version = None
        self.synced.clear()
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began, asked = loop.time(), 0.0
            failed: ClusterError | None = None
            try:
                await self._once()
            except ClusterError as error:
                failed = error
            if loop.time() - began >= LASTED:
                failures = 0
            elif failed is not None or loop.time() - began < AT_ONCE:
                failures += 1  # a server that ends every watch at once isn't asked in a loop either
            if isinstance(failed, WatchExpired):
                self._version = None
            elif failed is not None:
                asked = failed.retry_after or 0.0
                if self.failure is None:
                    log.warning("a watch fails", extra={"kind": self._resource.plural, "error": failed.detail})
                    self.failing_since = began
                    self._turned()
                self.failure = failed
            if failures:
                await asyncio.sleep(max(asked, self._pause(failures)))

    def _works(self) -> None:
        if self.failure is not None:
            self.failure = self.failing_since = None
            self._turned()

    def _changed(self, items: Iterable[T]) -> None:
        for callback in self._on_change:
            callback(items)

    def _turned(self) -> None:
        for callback in self._on_failure:
            callback()

    def _pause(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 20))
        return longest * (0.5 + self._jitter() / 2)

    async def _list(self) -> None:
        listing = await self._api.list(self._resource, self._namespace, self._selector, name=self._name)
        before, self.objects = self.objects, {_key(item): item for item in listing.items}
        self._version = listing.version
        self._works()
        self.synced.set()
        gone = [item for key, item in before.items() if key not in self.objects]
        changed = [
            item
            for key, item in self.objects.items()
            if key not in before or before[key].metadata.resource_version != item.metadata.resource_version
        ]
        if gone or changed:
            self._changed([*gone, *changed])

    async def _once(self) -> None:
        if self._version is None:
            await self._list()
        version = self._version or ""
        watch = self._api.watch(self._resource, self._namespace, self._selector, version, name=self._name)
        async for change in watch:
            self._version = change.version
            self._works()
            if change.item is None:
                continue
            if change.gone:
                self.objects.pop(_key(change.item), None)
            else:
                self.objects[_key(change.item)] = change.item
            self._changed([change.item])


def _key(item: HasMeta) -> tuple[str, str]:
    return item.metadata.namespace, item.metadata.name
