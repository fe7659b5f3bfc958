"""The upkeep loop over days of virtual time: what is removed when, whose turn it is, and what failures do."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chimera.adapters.storage.errors import full
from chimera.kernel.leases import Lease
from chimera.platform.upkeep import rules
from chimera.platform.upkeep.model import Kind
from chimera.platform.upkeep.rules import DAY
from chimera.platform.upkeep.service import LEASE, TURN, Upkeep
from chimera.platform.upkeep.settings import UpkeepSettings
from chimera.testing.leases import MemoryLeases
from chimera.testing.upkeep import MemoryUpkeepStore
from chimera.testing.virtual_time import EPOCH, LoopClock, run

KINDS = (
    Kind(name="sessions", keep=DAY, every=0.0),
    Kind(name="bundles", keep=DAY, every=3_600.0),
    Kind(name="kept", keep=None, every=0.0),
)
LIFE = 15.0


class World:
    def __init__(self, *, row_seconds: float = 0.0, patience: float = 1.0, **settings: float) -> None:
        self.clock = LoopClock()
        self.leases = MemoryLeases(self.clock)
        self.store = MemoryUpkeepStore(self.clock, self.leases, KINDS, row_seconds=row_seconds, patience=patience)
        self.settings = UpkeepSettings(**settings)  # type: ignore[arg-type]
        self.upkeep = self.another()

    def another(self) -> Upkeep:
        return Upkeep(self.store, self.clock, self.settings)

    def put(self, kind: str, count: int, ended: float = -2 * DAY) -> None:
        self.store.rows[kind] += [EPOCH + ended + number / 1e6 for number in range(count)]

    async def working(self, seconds: float, upkeep: Upkeep | None = None, owner: str = "cp") -> None:
        task = asyncio.create_task((upkeep or self.upkeep).while_held(self.leases, owner, LIFE))
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def steps(self, kind: str) -> list[tuple[float, int]]:
        return [(at, limit) for at, name, limit in self.store.steps if name == kind]


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def running() -> None:
        async def main() -> None:
            await test()

        run(main())

    running.__name__, running.__doc__ = test.__name__, test.__doc__
    return running


@in_virtual_time
async def test_each_kind_is_looked_through_in_its_time() -> None:
    world = World()
    world.put("sessions", 5)
    await world.working(10)
    assert not world.store.rows["sessions"]
    await world.working(2 * 3_600)
    passes = [at for at, _ in world.steps("sessions")]
    assert 12 <= len(passes) <= 14, "every ten minutes"
    assert 2 <= len(world.steps("bundles")) <= 3, "searched for once an hour"
    assert not world.steps("kept"), "what is kept for ever is measured and not touched"
    status = await world.upkeep.status()
    sessions, _, kept = status.kinds
    assert (sessions.removed, sessions.last, sessions.rows, sessions.failures) == (5, 0, 0, 0)
    assert kept.finished is not None and kept.keep is None
    world.put("kept", 7)
    await world.working(601)
    assert (await world.upkeep.status()).kinds[2].rows == 7


@in_virtual_time
async def test_a_restart_and_another_process_go_on_where_the_first_was() -> None:
    world = World()
    await world.working(10)
    seen = len(world.store.steps)
    await world.working(60, world.another(), "another")
    assert len(world.store.steps) == seen, "nothing is due yet, whoever works"
    await world.upkeep.ask(["bundles"])
    await world.working(60, world.another(), "a third")
    assert len(world.store.steps) == seen + 1, "what is asked for is done by whoever works"


@in_virtual_time
async def test_of_several_processes_one_works_and_shows_it() -> None:
    world = World()
    world.put("sessions", 50)
    first, second = world.another(), world.another()
    both = asyncio.gather(world.working(30, first, "one"), world.working(30, second, "two"))
    await asyncio.sleep(20)
    assert (len(first.progress.kinds) == len(KINDS)) != (len(second.progress.kinds) == len(KINDS))
    assert (await first.status()).worker in ("one", "two")
    await both
    assert first.progress.kinds == second.progress.kinds == ()
    assert (await world.upkeep.status()).kinds[0].removed == 50


@in_virtual_time
async def test_removals_take_their_share_of_the_time_in_small_batches() -> None:
    world = World(row_seconds=0.0001, batch=0.01, share=0.2)
    world.put("sessions", 20_000)
    await world.working(25)
    steps = world.steps("sessions")
    taken = sum(limit for _, limit in steps) * 0.0001
    assert steps[-1][0] - steps[0][0] >= taken * 0.8 / 0.2 * 0.9, "pauses are four times as long"
    assert max(limit for _, limit in steps[3:]) <= 110, "0.01 s is a hundred rows here"
    assert not world.store.rows["sessions"]


@in_virtual_time
async def test_batches_are_larger_where_nobody_waits_for_them_and_their_share_is_the_same() -> None:
    world = World(row_seconds=0.0001, patience=10.0, batch=0.01, share=0.2)
    world.put("sessions", 20_000)
    await world.working(25)
    steps = world.steps("sessions")
    assert 900 <= max(limit for _, limit in steps) <= 1_100, "0.1 s is a thousand rows here"
    taken = 20_000 * 0.0001
    assert steps[-1][0] - steps[0][0] >= taken * 0.8 / 0.2 * 0.9, "pauses are four times as long"
    assert not world.store.rows["sessions"]


@in_virtual_time
async def test_a_kind_with_much_to_remove_leaves_the_others_their_turn() -> None:
    world = World(row_seconds=0.01, share=0.25)
    world.put("sessions", 20_000)
    await world.working(120)
    assert world.store.rows["sessions"], "there is more than two minutes' work"
    (first, *_) = world.steps("bundles")
    assert first[0] <= TURN + 2
    assert (await world.upkeep.status()).kinds[0].removed == 20_000 - len(world.store.rows["sessions"])


@in_virtual_time
async def test_a_full_disk_is_waited_out_with_small_attempts_and_what_was_removed_is_counted() -> None:
    world = World(row_seconds=0.001)
    world.put("sessions", 5_000)
    await world.working(3)
    before = 5_000 - len(world.store.rows["sessions"])
    assert before
    world.store.failing = full("no room")
    task = asyncio.create_task(world.working(4_000))
    await asyncio.sleep(1_900)
    failed = [(at, limit) for at, limit in world.steps("sessions") if at > 3.1]
    assert 4 <= len(failed) <= 8, "it doesn't hammer"
    assert all(limit == rules.LEAST_ROWS for _, limit in failed[1:]), "little may still find room"
    world.store.failing = None
    await task
    assert not world.store.rows["sessions"]
    assert world.steps("sessions")[-1][0] > 1_900
    sessions = (await world.upkeep.status()).kinds[0]
    assert (sessions.removed, sessions.failures, sessions.problem) == (5_000, 0, None)


@in_virtual_time
async def test_failures_are_noted_and_tried_again_later_and_later() -> None:
    world = World()
    attempts: list[float] = []

    async def failing(*_: object) -> None:
        attempts.append(world.clock.monotonic())
        raise full("no room")

    world.store.step = failing  # type: ignore[method-assign, assignment]
    await world.working(4_000)
    sessions = (await world.upkeep.status()).kinds[0]
    assert sessions.problem is not None and sessions.failures >= 5
    assert len(attempts) <= 2 * 4_000 / rules.MOST_RETRY + 12, "it doesn't hammer"
    assert (await world.upkeep.status()).kinds[2].failures == 0, "other kinds go on"


@in_virtual_time
async def test_who_has_lost_the_lease_stops() -> None:
    world = World(row_seconds=0.001)
    world.put("sessions", 5_000)
    late = Lease(name=LEASE, owner="late", token=1, expires=0.0)
    await world.leases.acquire(LEASE, "late", 1.0)
    await asyncio.sleep(2)
    await world.leases.acquire(LEASE, "another", 1_000.0)
    with pytest.raises(Exception, match="another's"):
        await world.upkeep.run(late)
    assert len(world.store.rows["sessions"]) == 5_000


@in_virtual_time
async def test_with_no_interval_it_works_only_when_asked() -> None:
    world = World(interval=0.0)
    world.put("sessions", 3)
    await world.working(10)
    assert not world.store.rows["sessions"], "once, to know how much there is"
    world.put("sessions", 3)
    await world.working(DAY)
    assert len(world.store.rows["sessions"]) == 3
    assert [kind.due for kind in (await world.upkeep.status()).kinds] == [None] * 3
    await world.upkeep.ask(["sessions"])
    await world.working(10)
    assert not world.store.rows["sessions"]
