"""The loop that keeps conditions: what it stores when, and what it does when it can't."""

import asyncio
from collections.abc import Mapping, Sequence

from chimera.kernel.leases import Lease
from chimera.platform.condition_keeper import ConditionKeeper, Judged, Sight, worth_telling
from chimera.platform.conditions import Condition, Evidence, Seen, cell_subject, judge
from chimera.platform.reasons import Reason
from chimera.testing.clock import ManualClock
from chimera.testing.virtual_time import run as run_virtually
from chimera_host.contract.problem import ProblemError


class Home:
    """A `ConditionSource` that a test sets."""

    def __init__(self) -> None:
        self.sight = Sight(subjects=())
        self.news = asyncio.Event()
        self.looked = 0

    def put(self, *subjects: Seen, whole: bool = True) -> None:
        self.sight = Sight(subjects=subjects, whole=whole)
        self.news.set()

    async def seen(self) -> Sight:
        self.looked += 1
        self.news.clear()
        return self.sight

    async def changed(self, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self.news.wait()
        except TimeoutError:
            pass


class Store:
    """A `ConditionStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Condition, ...]] = {}
        self.puts: list[tuple[list[str], list[str]]] = []
        self.away = False

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        if self.away:
            raise ProblemError("the database is away")
        return self.kept

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        if self.away:
            raise ProblemError("the database is away")
        self.puts.append(([one.subject for one in changed], list(gone)))
        self.kept.update({one.subject: one.conditions for one in changed})
        for subject in gone:
            del self.kept[subject]


def cell(name: str, *reasons: Reason, ready: int = 1) -> Seen:
    evidence = tuple(Evidence(reason=reason, message="why") for reason in reasons)
    return Seen(subject=cell_subject(name), tenant="default", ready_hosts=ready, evidence=evidence)


def test_a_change_of_many_is_one_write_and_no_change_is_none() -> None:
    async def story() -> None:
        home, store = Home(), Store()
        keeper = ConditionKeeper(home, store, ManualClock())
        home.put(*(cell(f"c{number}") for number in range(200)))
        running = asyncio.create_task(keeper.run())
        await asyncio.sleep(3_600)
        assert [len(changed) for changed, _ in store.puts] == [200]
        assert home.looked <= 3_600 / 30 + 2, "a look costs nothing and isn't taken without a reason"
        home.put(cell("c0", Reason.NODE_GONE), *(cell(f"c{number}") for number in range(1, 199)))
        await asyncio.sleep(5)
        assert store.puts[1:] == [(["cells/c0"], ["cells/c199"])]
        assert keeper.counts()["Healthy", "False", "NodeGone"] == 1
        assert keeper.counts()["Ready", "True", "AsWanted"] == 199
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert keeper.counts() == {}, "who keeps none shows none"

    run_virtually(story())


def test_a_home_that_changes_all_the_time_is_written_at_most_once_a_second() -> None:
    async def story() -> None:
        home, store = Home(), Store()
        running = asyncio.create_task(ConditionKeeper(home, store, ManualClock()).run())
        for number in range(1_000):
            home.put(cell("a", *([Reason.NODE_GONE] if number % 2 else [])))
            await asyncio.sleep(0.01)
        running.cancel()
        assert len(store.puts) <= 11

    run_virtually(story())


def test_what_is_not_seen_stays_and_what_is_gone_goes() -> None:
    async def story() -> None:
        home, store = Home(), Store()
        running = asyncio.create_task(ConditionKeeper(home, store, ManualClock()).run())
        home.put(cell("a"), cell("b"))
        await asyncio.sleep(2)
        home.put(Seen(subject="home", tenant="default"), whole=False)
        await asyncio.sleep(2)
        assert set(store.kept) == {"cells/a", "cells/b", "home"}
        home.put(cell("a"))
        await asyncio.sleep(2)
        assert set(store.kept) == {"cells/a"}
        running.cancel()

    run_virtually(story())


def test_a_database_that_is_away_is_waited_for_and_gets_what_is_true_then() -> None:
    async def story() -> None:
        home, store, clock = Home(), Store(), ManualClock()
        store.away = True
        running = asyncio.create_task(ConditionKeeper(home, store, clock).run())
        home.put(cell("a", Reason.CRASH_LOOP, ready=0))
        await asyncio.sleep(60)
        store.away = False
        await asyncio.sleep(60)
        assert len(store.puts) == 1
        store.away = True
        home.put(cell("a", Reason.QUOTA_EXCEEDED, ready=0))
        await asyncio.sleep(60)
        home.put(cell("a"))
        store.away = False
        await asyncio.sleep(60)
        assert len(store.puts) == 2 and {one.status for one in store.kept["cells/a"]} == {"True"}
        running.cancel()

    run_virtually(story())


def test_since_outlives_the_keeper() -> None:
    async def story() -> None:
        home, store, clock = Home(), Store(), ManualClock()
        home.put(cell("a", Reason.CRASH_LOOP, ready=0))
        before = clock.wall()
        for _ in range(2):
            running = asyncio.create_task(ConditionKeeper(home, store, clock).run())
            await asyncio.sleep(5)
            clock.advance(100)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert len(store.puts) == 1
        assert {one.since for one in store.kept["cells/a"] if one.status == "False"} == {before}

    run_virtually(story())


def test_only_trouble_and_its_end_are_worth_telling() -> None:
    fine = judge(cell("a"), (), 0.0)
    bad = judge(cell("a", Reason.CRASH_LOOP, ready=0), fine, 1.0)
    other = judge(cell("a", Reason.QUOTA_EXCEEDED, ready=0), bad, 2.0)
    assert worth_telling((), fine) == ()
    assert worth_telling((), judge(cell("a", ready=0), (), 0.0)) == ()
    assert [one.type.value for one in worth_telling(fine, bad)] == ["Ready", "Startable"]
    assert [one.type.value for one in worth_telling(bad, other)] == ["Ready", "Startable"]
    assert [one.type.value for one in worth_telling(other, judge(cell("a"), other, 3.0))] == ["Ready", "Startable"]
    assert worth_telling(bad, bad) == ()
