"""The deliverer in virtual time, against receivers that a test scripts and a store in memory."""

import asyncio
import itertools
from typing import Any

import pytest

from chimera.events.delivery.feed import RING
from chimera.events.delivery.model import Outcome, Target
from chimera.events.settings import EventSettings
from chimera.testing.events import DELIVERED, FAILED, GONE

from .worlds import SETTINGS, Receivers, World, simulate


def test_each_subscription_gets_what_it_wants_in_order() -> None:
    async def main(world: World) -> None:
        store = world.store
        store.happen("before")
        store.subscribe("all")
        store.subscribe("anna", filters=[{"exact": {"subject": "agents/anna"}}])
        store.subscribe("every", tenant="*")
        store.subscribe("other", tenant="other")
        store.subscribe("elsewhere", key="of another home")
        world.start()
        for number in range(30):
            store.happen(f"agents/{('anna', 'bert')[number % 2]}", tenant=("default", "other")[number // 20])
        await asyncio.sleep(5.0)
        assert sorted(world.receivers.of("all")) == list(range(2, 22))
        assert world.receivers.of("anna") == list(range(2, 22, 2))
        assert sorted(world.receivers.of("every")) == list(range(2, 32))
        assert sorted(world.receivers.of("other")) == list(range(22, 32))
        assert world.receivers.of("elsewhere") == []
        assert {one.cursor for one in store.stored.values() if one.key == "k"} == {31}
        assert store.rows == {}
        assert store.reads <= 3, "the journal is read once for all"

    simulate(main)


def test_a_failing_subject_holds_back_its_own_events_alone() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")
        bad = [store.happen("bad") for _ in range(3)]
        good = [store.happen("good") for _ in range(3)]

        async def answer(_: str, seq: int) -> Outcome:
            return FAILED if seq == bad[0] and len(receivers.asked) < 6 else DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(0.5)
        assert receivers.of("shop") == good
        assert sorted(seq for _, seq in store.rows) == bad, "they have rows, and the cursor went on"
        assert store.stored["shop"].cursor == good[-1]
        await asyncio.sleep(60.0)
        assert receivers.of("shop") == [*good, *bad]
        assert store.rows == {}

    simulate(main)


def test_what_is_never_taken_is_a_dead_letter_and_its_subject_goes_on() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")
        first, second = store.happen("s"), store.happen("s")

        async def answer(_: str, seq: int) -> Outcome:
            return FAILED if seq == first else DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(120.0)
        assert receivers.of("shop") == [second]
        assert store.letters("shop") == [first]
        tried = [at for at, _, seq in receivers.asked if seq == first]
        assert len(tried) == SETTINGS.attempts
        waits = [later - earlier for earlier, later in itertools.pairwise(tried)]
        assert waits == pytest.approx([0.75, 1.5, 3.0], abs=0.01)
        row = store.rows["shop", first]
        assert (row.status, row.fact and row.fact.seq, row.attempts) == (500, first, 4)
        assert world.told.count("dead") == 1 and store.stored["shop"].failure == FAILED.reason

        receivers.answer = Receivers().answer
        store.replay("shop", first)
        await asyncio.sleep(1.0)
        assert receivers.of("shop") == [second, first]
        assert store.rows == {}

    simulate(main)


def test_nothing_is_delivered_after_it_was_dropped_whoever_delivers() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")
        slow, dead = store.happen("slow"), store.happen("dead")

        async def answer(_: str, seq: int) -> Outcome:
            if seq == slow:
                await asyncio.sleep(1_000_000)
            return FAILED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(60.0)
        assert store.letters("shop") == [dead] and store.stored["shop"].cursor < dead
        store.drop("shop", dead)
        await world.kill()
        tried = len(receivers.asked)
        receivers.answer = Receivers().answer
        world.start()
        await asyncio.sleep(10.0)
        assert receivers.of("shop") == [slow]
        assert len(receivers.asked) == tried + 1

    simulate(main, EventSettings(attempts=2))


def test_a_receiver_says_when_to_come_back() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")
        seq = store.happen("s")

        async def answer(_: str, __: int) -> Outcome:
            if len(receivers.asked) == 1:
                return Outcome(result="failed", status=503, reason="later", retry_after=40.0)
            return DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(39.0)
        assert len(receivers.asked) == 1
        await asyncio.sleep(3.0)
        assert receivers.of("shop") == [seq]

    simulate(main)


def test_gone_pauses_the_subscription_and_it_goes_on_where_it_was() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")
        places = [store.happen("s") for _ in range(3)]

        async def answer(_: str, seq: int) -> Outcome:
            return GONE

        receivers.answer = answer
        world.start()
        await asyncio.sleep(30.0)
        assert (store.stored["shop"].state, store.stored["shop"].why) == ("paused", "gone")
        assert len(receivers.asked) == 1
        receivers.answer = Receivers().answer
        places.append(store.happen("s"))
        await asyncio.sleep(30.0)
        assert receivers.arrived == []
        store.change("shop", state="active", why="")
        await asyncio.sleep(5.0)
        assert receivers.of("shop") == places and store.rows == {}

    simulate(main)


def test_a_slow_receiver_does_not_starve_the_others() -> None:
    settings = EventSettings(concurrency=8, per_receiver=4)

    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        for name in ("slow", "quick"):
            store.subscribe(name)
        for number in range(200):
            store.happen(f"s{number}")

        async def answer(name: str, seq: int) -> Outcome:
            if name == "slow":
                await asyncio.sleep(15.0)
                return FAILED
            await asyncio.sleep(0.05)
            return DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(6.0)
        assert len(receivers.of("quick")) == 200
        assert receivers.most["slow"] <= 4
        receivers.most["slow"] = 0
        await asyncio.sleep(200.0)
        assert receivers.most["slow"] == 1, "it is asked less while it fails"

    simulate(main, settings)


def test_after_a_kill_everything_arrives_and_first_arrivals_are_in_order() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("shop")

        async def answer(_: str, seq: int) -> Outcome:
            await asyncio.sleep(0.01 * (seq % 7))
            return FAILED if (seq * 7919 + len(receivers.asked)) % 5 == 0 else DELIVERED

        receivers.answer = answer
        for kill in range(12):
            world.start()
            for number in range(10):
                store.happen(f"s{number % 4}")
                await asyncio.sleep(0.013 * (kill % 3 + 1))
            await world.kill()
        receivers.answer = Receivers().answer
        world.start()
        await asyncio.sleep(600.0)
        assert set(receivers.of("shop")) == set(range(1, 121))
        for subject in {fact.subject for fact in store.journal.values()}:
            mine = [seq for seq in receivers.of("shop") if store.journal[seq].subject == subject]
            first = list(dict.fromkeys(mine))
            assert first == sorted(first)
        assert store.rows == {} and store.stored["shop"].cursor == 120

    simulate(main)


def test_changes_of_subscriptions_are_followed() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        world.start()
        await asyncio.sleep(1.0)
        store.subscribe("new")
        store.subscribe("gone")
        store.happen("s")
        await asyncio.sleep(1.0)
        assert sorted(receivers.arrived) == [("gone", 1), ("new", 1)]
        store.delete("gone")
        store.change("new", url="https://moved.example/in")
        await asyncio.sleep(1.0)
        store.happen("s")
        await asyncio.sleep(1.0)
        assert sorted(receivers.arrived)[2:] == [("moved", 2), ("new", 1)][:1] or ("moved", 2) in receivers.arrived
        assert ("gone", 2) not in receivers.arrived
        store.change("new", cursor=0)
        await asyncio.sleep(1.0)
        assert receivers.of("moved") == [2, 1, 2], "set back, it gets them again"
        store.change("new", state="paused")
        await asyncio.sleep(1.0)
        store.happen("s")
        await asyncio.sleep(5.0)
        assert receivers.of("moved") == [2, 1, 2]
        store.change("new", state="active")
        await asyncio.sleep(1.0)
        assert receivers.of("moved") == [2, 1, 2, 3]

    simulate(main)


def test_a_suspended_tenant_gets_nothing_until_it_is_resumed() -> None:
    async def main(world: World) -> None:
        world.store.subscribe("shop")
        world.suspended.add("default")
        world.start()
        world.store.happen("s")
        await asyncio.sleep(30.0)
        assert world.receivers.asked == []
        world.suspended.clear()
        await asyncio.sleep(10.0)
        assert world.receivers.of("shop") == [1]

    simulate(main)


def test_while_progress_can_not_be_written_nothing_is_sent() -> None:
    async def main(world: World) -> None:
        store = world.store
        store.subscribe("shop")
        world.start()
        store.happen("s")
        await asyncio.sleep(1.0)
        store.happen("s")
        save = store.save

        async def failing(*_: Any) -> None:
            raise OSError("the disk is full")

        store.save = failing  # type: ignore[method-assign]
        await asyncio.sleep(1.0)
        sent = len(world.receivers.asked)
        for _ in range(5):
            store.happen("s")
        await asyncio.sleep(30.0)
        assert len(world.receivers.asked) == sent == 2
        store.save = save  # type: ignore[method-assign]
        await asyncio.sleep(2.0)
        assert world.receivers.of("shop") == list(range(1, 8))
        assert store.stored["shop"].cursor == 7

    simulate(main)


def test_who_is_far_behind_is_caught_up_without_holding_up_the_newest() -> None:
    settings = EventSettings(batch=50, outstanding=60)

    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("late", cursor=0)
        for number in range(RING + 500):
            store.happen(f"s{number % 50}", at=1.0)
        store.subscribe("new")

        async def answer(name: str, _: int) -> Outcome:
            await asyncio.sleep(0.5 if name == "late" else 0.0)
            return DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(1.0)
        place = store.happen("s1")
        await asyncio.sleep(1.0)
        assert receivers.of("new") == [place]
        assert len(receivers.of("late")) < 100
        await asyncio.sleep(2_000.0)
        assert sorted(receivers.of("late")) == list(range(1, place + 1))

    simulate(main, settings)


def test_one_that_is_replaced_writes_nothing_and_ends() -> None:
    async def main(world: World) -> None:
        store = world.store
        store.subscribe("shop")
        world.start()
        store.happen("s")
        await asyncio.sleep(1.0)
        store.token = 99
        store.happen("s")
        await asyncio.sleep(3.0)
        assert store.stored["shop"].cursor == 1
        assert world.deliverer.running == 0

    simulate(main)


def test_a_tasks_webhook_is_told_the_chosen_states_and_then_forgotten() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("tasks-default", kind="tasks", url="")
        target = Target(url="https://hook.example/t", key="k", states=("started", "succeeded"))
        for task in ("t1", "t2"):
            store.webhooks["default", task] = target
        world.start()
        for task, last in (("t1", "succeeded"), ("t2", "failed"), ("t3", "succeeded")):
            for what in ("submitted", "started", last):
                store.happen(f"agents/a/tasks/{task}", f"task.{what}")
        await asyncio.sleep(3.0)
        assert sorted(receivers.of("hook")) == [2, 3, 5]
        assert store.webhooks == {} and store.rows == {}

    simulate(main)


def test_a_tasks_receiver_that_is_gone_or_fails_leaves_dead_letters_and_stops_no_other() -> None:
    async def main(world: World) -> None:
        store, receivers = world.store, world.receivers
        store.subscribe("tasks-default", kind="tasks", url="")
        for name in ("bad", "good"):
            store.webhooks["default", name] = Target(
                url=f"https://{name}.example/t", key="k", states=("succeeded", "failed")
            )
        bad = store.happen("agents/a/tasks/bad", "task.succeeded")
        good = store.happen("agents/a/tasks/good", "task.failed")

        async def answer(name: str, _: int) -> Outcome:
            return GONE if name == "bad" else DELIVERED

        receivers.answer = answer
        world.start()
        await asyncio.sleep(3.0)
        assert receivers.of("good") == [good]
        assert store.letters("tasks-default") == [bad]
        letter = store.rows["tasks-default", bad]
        assert letter.target is not None and letter.target.url == "https://bad.example/t"
        assert store.stored["tasks-default"].state == "active"
        receivers.answer = Receivers().answer
        store.replay("tasks-default", bad)
        await asyncio.sleep(1.0)
        assert receivers.of("bad") == [bad]

    simulate(main)


def test_a_subscription_without_its_secret_fails_and_is_not_sent() -> None:
    async def main(world: World) -> None:
        world.store.subscribe("shop", secret="missing")
        world.start()
        world.store.happen("s")
        await asyncio.sleep(100.0)
        assert world.receivers.asked == [] and world.store.letters("shop") == [1]

    simulate(main)
