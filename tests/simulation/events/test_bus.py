"""A tenant's bus in virtual time: adopted, published to, given up, and what a kill leaves of it."""

import asyncio

from chimera.testing.events import FAILED

from .worlds import World, simulate


def test_a_bus_is_adopted_and_gets_what_it_wants_in_the_order_of_each_subject() -> None:
    async def main(world: World) -> None:
        store, bus = world.store, world.bus
        store.subscribe("bus", kind="bus", url="", key="")
        one, two, other, three = (
            store.happen("a", "task.failed"),
            store.happen("a", "task.failed"),
            store.happen("a"),
            store.happen("b", "task.failed"),
        )
        store.happen("a", "task.failed", tenant="other")
        bus.outcomes[one] = [FAILED]
        world.start()
        await asyncio.sleep(10.0)
        assert bus.published == [three, one, two] and other not in bus.asked
        assert store.stored["bus"].key == "k" and store.stored["bus"].cursor == store.last and not store.rows

    simulate(main)


def test_what_a_bus_does_not_take_is_a_dead_letter_and_a_kill_loses_nothing() -> None:
    async def main(world: World) -> None:
        store, bus = world.store, world.bus
        store.subscribe("bus", kind="bus", url="", key="")
        dead, late = store.happen("a", "task.failed"), store.happen("b", "task.failed")
        bus.outcomes = {dead: [FAILED] * 4, late: [FAILED] * 2}
        world.start()
        await asyncio.sleep(0.5)
        await world.kill()
        world.start()
        await asyncio.sleep(100.0)
        assert bus.published == [late] and store.letters("bus") == [dead]
        bus.outcomes.clear()
        store.replay("bus", dead)
        await asyncio.sleep(5.0)
        assert bus.published == [late, dead] and not store.letters("bus")

    simulate(main)
