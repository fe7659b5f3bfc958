"""What is seen of sides: counted where there is a green one, in one batch, and kept while it can't be written."""

from collections.abc import Sequence

from msgspec.structs import replace

from chimera.adapters.storage.errors import StorageError
from chimera.delivery.sides.rules import BUCKETS, bucket_of
from chimera.gateway.sides.ports import Noticed
from chimera.gateway.sides.watching import Watcher
from chimera.platform.model import Route

LIVE = Route(tenant="default", agent="anna", revision="blue", cell="c", framework="function", sequence=1)
GREEN = replace(LIVE, revision="green", side="green", rollout="ro-1")
SIDED = replace(LIVE, others=(GREEN,))


class Store:
    def __init__(self) -> None:
        self.batches: list[Sequence[Noticed]] = []
        self.away = False

    async def add(self, gateway: str, noticed: Sequence[Noticed]) -> int:
        if self.away:
            raise StorageError("it is away")
        assert gateway == "gw-1"
        self.batches.append(noticed)
        return len(self.batches)


async def test_each_side_is_counted_by_fault_and_time() -> None:
    store = Store()
    watcher = Watcher(store, "gw-1")
    watcher.ended(SIDED, "blue", "none", 0.2)
    watcher.ended(SIDED, "green", "none", 0.2)
    watcher.ended(SIDED, "green", "agent", 9.0)
    watcher.ended(SIDED, "green", "platform", 9.0)
    watcher.ended(SIDED, "green", "caller", 9.0)
    await watcher.flush()
    (noticed,) = store.batches
    blue, green = (one.seen for one in noticed)
    assert {(one.tenant, one.rollout) for one in noticed} == {("default", "ro-1")}
    assert (blue.green, blue.calls, blue.failures, blue.platform) == (False, 1, 0, 0)
    assert (green.green, green.calls, green.failures, green.platform) == (True, 2, 1, 1)
    assert len(green.buckets) == BUCKETS and sum(green.buckets) == 2
    assert green.buckets[bucket_of(0.2)] == green.buckets[bucket_of(9.0)] == 1


async def test_nobody_else_is_counted_and_nothing_is_written_of_nothing() -> None:
    store = Store()
    watcher = Watcher(store, "gw-1")
    watcher.ended(LIVE, "blue", "none", 0.2)
    watcher.ended(replace(LIVE, others=(replace(GREEN, side="kept"),)), "green", "none", 0.2)
    watcher.ended(SIDED, "another", "none", 0.2)
    watcher.ended(None, "blue", "none", 0.2)
    await watcher.flush()
    assert store.batches == []


async def test_what_cannot_be_written_goes_with_the_next() -> None:
    store = Store()
    watcher = Watcher(store, "gw-1")
    store.away = True
    watcher.ended(SIDED, "blue", "none", 0.2)
    await watcher.flush()
    store.away = False
    watcher.ended(SIDED, "blue", "none", 0.2)
    await watcher.flush()
    assert [[one.seen.calls for one in batch] for batch in store.batches] == [[1, 1]]
