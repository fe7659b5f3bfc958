"""The conformance suite of `UpkeepStore`: the database's, on both dialects, and the shipped fake in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.state import stored_answer
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.store import UpkeepStorage
from chimera.kernel.leases import Lease, Leases
from chimera.platform.upkeep.model import START, Kind, Record
from chimera.platform.upkeep.ports import UpkeepStore
from chimera.platform.upkeep.rules import DAY
from chimera.platform.upkeep.settings import RetentionSettings
from chimera.testing.clock import ManualClock
from chimera.testing.leases import MemoryLeases
from chimera.testing.upkeep import MemoryUpkeepStore
from chimera_host.contract.problem import ProblemError

KIND, OTHER = "answers", "presence"


@dataclass(frozen=True, kw_only=True)
class World:
    store: UpkeepStore
    leases: Leases
    clock: ManualClock
    put: Callable[[float], Awaitable[None]]
    """Puts a row that ended at a time."""

    async def lease(self, owner: str = "me") -> Lease:
        got = await self.leases.acquire("upkeep", owner, 60.0)
        assert got is not None
        return got

    async def left(self) -> int:
        return (await self.store.measure(KIND)).rows


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def world(dialect: str, request: pytest.FixtureRequest) -> World:
    clock = ManualClock()
    if dialect == "memory":
        leases = MemoryLeases(clock)
        kinds = [Kind(name=KIND, keep=DAY, every=0.0), Kind(name=OTHER, keep=None, every=0.0)]
        fake = MemoryUpkeepStore(clock, leases, kinds)

        async def remember(ended: float) -> None:
            fake.rows[KIND].append(ended)

        return World(store=fake, leases=leases, clock=clock, put=remember)
    made = open_database(request.getfixturevalue("database_name"), clock=clock)
    request.addfinalizer(made.close)
    insert, count = made.prepared_insert(stored_answer), iter(range(10_000))

    async def put(ended: float) -> None:
        row = {"tenant": "t", "run": "r", "key": f"k{next(count)}", "digest": b"d", "answer": b"a" * 100}
        await made.write(lambda connection: insert.run(connection, **row, created=0.0, expires=ended))

    jobs = make_jobs(RetentionSettings(answers_days=1.0))
    return World(store=UpkeepStorage(made, jobs), leases=StoredLeases(made), clock=clock, put=put)


async def test_a_step_removes_a_few_that_ended_long_enough_ago(world: World) -> None:
    lease, now = await world.lease(), world.clock.wall()
    for ended in (now - 3 * DAY, now - 2 * DAY, now - 1.5 * DAY, now - 0.5 * DAY, now + DAY):
        await world.put(ended)
    assert await world.store.due(KIND, 100) == 3
    assert await world.store.due(KIND, 2) == 2, "counted up to so many"
    first = await world.store.step(KIND, 2, START, lease)
    assert (first.removed, first.after is None) == (2, False)
    assert await world.left() == 3
    second = await world.store.step(KIND, 2, first.after or START, lease)
    assert (second.removed, second.after) == (1, None)
    assert (await world.store.step(KIND, 2, START, lease)).removed == 0
    assert await world.store.due(KIND, 100) == 0
    await world.store.note(Record(kind=KIND, removed=1), lease)
    assert {one.kind: one.removed for one in await world.store.records()}[KIND] == 3, "counted where it was removed"
    measured = await world.store.measure(KIND)
    assert (measured.rows, measured.oldest) == (2, now - 0.5 * DAY) and measured.bytes >= 200


async def test_who_has_lost_the_lease_removes_and_notes_nothing(world: World) -> None:
    late = await world.lease("late")
    await world.put(0.0)
    world.clock.advance(61)
    assert await world.store.worker() is None
    await world.lease("another")
    assert await world.store.worker() == "another"
    for write in (world.store.step(KIND, 10, START, late), world.store.note(Record(kind=KIND, removed=7), late)):
        with pytest.raises(ProblemError) as refused:
            await write
        assert refused.value.code == "lease-lost"
    assert await world.left() == 1
    assert all(record.removed == 0 for record in await world.store.records())


async def test_kinds_are_due_until_they_are_looked_through_and_when_they_are_asked_for(world: World) -> None:
    lease = await world.lease()
    before = {record.kind: record for record in await world.store.records()}
    assert {KIND, OTHER} <= set(before) and all(record.due == 0.0 for record in before.values())
    record = Record(
        kind=KIND,
        due=5e6,
        finished=4e6,
        seconds=1.5,
        removed=10,
        last=3,
        failures=2,
        problem="p",
        rows=4,
        bytes=5,
        oldest=6.0,
    )
    await world.store.note(record, lease)
    after = {one.kind: one for one in await world.store.records()}
    assert after[KIND] == record and after[OTHER] == before[OTHER]
    world.clock.advance(7)
    asked = await world.store.ask([KIND, OTHER])
    assert asked == await world.store.now() == world.clock.wall()
    again = {one.kind: one for one in await world.store.records()}
    assert (again[KIND].due, again[KIND].removed, again[KIND].last) == (asked, 10, 3), "what it did is kept"
    assert again[OTHER].due == asked


async def test_two_who_work_at_once_remove_each_row_once(world: World) -> None:
    lease = await world.lease()
    for number in range(60):
        await world.put(float(number))

    async def work() -> int:
        removed = 0
        while (step := await world.store.step(KIND, 7, START, lease)).removed:
            removed += step.removed
        return removed

    assert sum(await asyncio.gather(work(), work())) == 60
    assert await world.left() == 0


async def test_what_is_kept_for_ever_is_never_due(database: Database) -> None:
    jobs = make_jobs(RetentionSettings(**dict.fromkeys((field for field in _DAYS), 0.0)))
    store = UpkeepStorage(database, jobs)
    kept = {kind.name for kind in store.kinds if kind.keep is None}
    assert kept == {kind.name for kind in store.kinds} - {
        *("batches", "sides", "letters", "agent-letters", "messages", "webhooks", "presence", "tests"),
        "rollbacks",
    }
    assert [await store.due(kind, 10) for kind in sorted(kept)] == [0] * len(kept)


_DAYS = [name for name in RetentionSettings.__dataclass_fields__ if name.endswith("_days")]
