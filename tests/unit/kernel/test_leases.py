"""Work under a lease: it runs where the lease is, and ends before another may begin it."""

import asyncio
from collections.abc import Callable

import pytest

from chimera.kernel.leases import Lease, work_while_held
from chimera.testing.leases import MemoryLeases
from chimera.testing.virtual_time import LoopClock, run

LIFE = 9.0


class Workers:
    """Says who works at each moment."""

    def __init__(self) -> None:
        self.leases = MemoryLeases(LoopClock())
        self.working: set[str] = set()
        self.begun: list[tuple[str, int]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, owner: str, leases: MemoryLeases | None = None) -> None:
        async def work(lease: Lease) -> None:
            assert not self.working, f"{self.working} still work"
            self.working.add(owner)
            self.begun.append((owner, lease.token))
            try:
                await asyncio.sleep(1_000_000)
            finally:
                self.working.discard(owner)

        self.tasks[owner] = asyncio.create_task(work_while_held(leases or self.leases, "work", owner, LIFE, work))

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def test_one_of_several_works_and_another_takes_over_at_once_when_it_is_told_to_end() -> None:
    async def main() -> None:
        workers = Workers()
        for owner in ("a", "b", "c"):
            workers.start(owner)
        await asyncio.sleep(100 * LIFE)
        assert workers.begun == [("a", 1)]

        workers.tasks.pop("a").cancel()
        await asyncio.sleep(LIFE / 3 + 0.1)
        assert [owner for owner, _ in workers.begun[1:]] in (["b"], ["c"])
        assert workers.begun[1][1] == 2
        await workers.stop()
        assert not workers.working

    run(main())


def test_whoever_can_not_renew_stops_before_another_begins() -> None:
    async def main() -> None:
        workers = Workers()
        cut_off = MemoryLeases(LoopClock())
        cut_off.leases = workers.leases.leases
        workers.start("a", cut_off)
        await asyncio.sleep(LIFE * 5)
        workers.start("b")
        await asyncio.sleep(1.0)
        cut_off.away = True
        await asyncio.sleep(2 * LIFE)  # the work asserts that nobody else works
        assert workers.begun == [("a", 1), ("b", 2)]

        cut_off.away = False
        await asyncio.sleep(3 * LIFE)
        assert workers.working == {"b"}
        await workers.stop()

    run(main())


def test_a_short_absence_of_the_keeper_changes_nothing() -> None:
    async def main() -> None:
        workers = Workers()
        workers.start("a")
        await asyncio.sleep(LIFE)
        workers.leases.away = True
        await asyncio.sleep(LIFE / 2)
        workers.leases.away = False
        await asyncio.sleep(3 * LIFE)
        assert workers.begun == [("a", 1)]
        assert workers.working == {"a"}
        await workers.stop()

    run(main())


@pytest.mark.parametrize("end", [lambda: None, lambda: 1 / 0])
def test_work_that_ends_or_fails_begins_again(end: Callable[[], object]) -> None:
    async def main() -> None:
        begun = 0

        async def work(lease: Lease) -> None:
            nonlocal begun
            begun += 1
            end()

        task = asyncio.create_task(work_while_held(MemoryLeases(LoopClock()), "work", "me", LIFE, work))
        await asyncio.sleep(LIFE * 2 + 0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert begun == 7

    run(main())


def test_a_keeper_that_never_answers_stops_the_work_in_time() -> None:
    class Silent(MemoryLeases):
        silent = False

        async def acquire(self, name: str, owner: str, life: float) -> Lease | None:
            if self.silent:
                await asyncio.sleep(1_000_000)
            return await super().acquire(name, owner, life)

    async def main() -> None:
        workers, silent = Workers(), Silent(LoopClock())
        workers.start("a", silent)
        await asyncio.sleep(LIFE)
        silent.silent = True
        await asyncio.sleep(LIFE + 0.01)
        assert not workers.working
        await workers.stop()

    run(main())
