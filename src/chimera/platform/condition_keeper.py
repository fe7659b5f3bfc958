"""The loop that keeps conditions: what the home sees, judged, and what changed of it stored and told.

One loop and one transaction for all subjects, at most once a second, and none at all where nothing changed. What was
stored is where the loop goes on after a restart, so `since` outlives the process that wrote it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.platform.conditions import Condition, Seen, judge
from chimera.platform.reasons import Aspect, Reason
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEAST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Evidence grows old by itself: it is looked at again after so many seconds though nothing happened."""
STORE_RETRY = 5.0
QUIET = (Reason.AS_WANTED, Reason.IN_PROGRESS)


class Judged(Struct, frozen=True, kw_only=True):
    """A subject's conditions; `told` are those of them that somebody outside should hear of."""

    subject: str
    tenant: str
    conditions: tuple[Condition, ...]
    told: tuple[Condition, ...] = ()


class Sight(Struct, frozen=True, kw_only=True):
    """What a home shows at a moment. Where it isn't `whole`, subjects that it doesn't name stay as they were."""

    subjects: tuple[Seen, ...]
    whole: bool = True


class ConditionSource(Protocol):
    """A home, as far as it is looked at."""

    async def seen(self) -> Sight:
        """What there is to see now."""

    async def changed(self, within: float) -> None:
        """Return when something may have changed, or after so many seconds."""


class ConditionStore(Protocol):
    """Where the conditions of one home are kept."""

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        """All that is kept, by subject."""

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        """Store what changed, forget what is gone and tell both, in one transaction; raises `LeaseLost`."""


class ConditionKeeper:
    """Keeps the conditions of one home. `run` it in one process at a time."""

    def __init__(self, source: ConditionSource, store: ConditionStore, clock: Clock) -> None:
        """Nothing runs yet."""
        self._source = source
        self._store = store
        self._clock = clock
        self.current: dict[str, tuple[Condition, ...]] = {}

    async def run(self, lease: Lease | None = None) -> None:
        """Look, judge and store until cancelled."""
        try:
            await self._load()
            while True:
                pause = LEAST_PAUSE
                try:
                    await self.once(lease)
                except ProblemError as error:
                    log.warning("conditions can't be stored", extra={"error": error.detail})
                    pause = STORE_RETRY
                await asyncio.sleep(pause)
                await self._source.changed(LONGEST_PAUSE)
        finally:
            self.current = {}  # another process may go on with them, and shows them then

    async def once(self, lease: Lease | None = None) -> None:
        """One pass."""
        sight = await self._source.seen()
        now = self._clock.wall()
        made = {one.subject: judge(one, self._before(one.subject), now) for one in sight.subjects}
        tenants = {one.subject: one.tenant for one in sight.subjects}
        changed = [
            Judged(subject=name, tenant=tenants[name], conditions=found, told=worth_telling(self._before(name), found))
            for name, found in made.items()
            if found != self._before(name)
        ]
        gone = [name for name in self.current if name not in made] if sight.whole else []
        if changed or gone:
            await self._store.put(changed, gone, lease)
        self.current = made if sight.whole else {**self.current, **made}
        for one in changed:
            for condition in one.told:
                if condition.type is not Aspect.READY:
                    _say(one, condition)

    def counts(self) -> Counter[tuple[str, str, str]]:
        """How many subjects have each type, status and reason; empty in a process that doesn't keep them."""
        return Counter(
            (one.type.value, one.status, one.reason.value) for found in self.current.values() for one in found
        )

    def _before(self, subject: str) -> tuple[Condition, ...]:
        return self.current.get(subject, ())

    async def _load(self) -> None:
        while True:
            try:
                self.current = dict(await self._store.load())
                return
            except ProblemError as error:
                log.warning("conditions can't be read", extra={"error": error.detail})
                await asyncio.sleep(STORE_RETRY)


def worth_telling(before: Sequence[Condition], after: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions that became trouble, other trouble, or well again; not what only came or is on its way."""
    known = {one.type: one for one in before}
    found = []
    for one in after:
        old = known.get(one.type)
        same = old is not None and (old.status, old.reason) == (one.status, one.reason)
        quiet = one.reason in QUIET and (old is None or old.reason in QUIET)
        if not same and not quiet:
            found.append(one)
    return tuple(found)


def _say(judged: Judged, condition: Condition) -> None:
    extra = {"subject": judged.subject, "condition": condition.type.value, "status": condition.status}
    extra |= {"reason": condition.reason.value, "cause": condition.message, "next_step": condition.next_step}
    log.log(logging.WARNING if condition.status == "False" else logging.INFO, "a condition changed", extra=extra)
