"""What a rollout relies on, whatever keeps the sides: states that are asked for, and are there or refused."""

from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.leases import LeaseLost
from chimera.delivery.sides.model import WHOLE, Green, Seen
from chimera.delivery.sides.rules import BUCKETS

TENANT = "default"
ROLLOUT = "ro-1"


async def two(world: Any, agent: str = "anna") -> Green:
    """An agent whose first revision is live and whose second one is stored."""
    first = await world.apply(agent, "first")
    return Green(agent=agent, revision=await world.store(agent, "second"), before=first)


async def set_green(world: Any, *greens: Green, rollout: str = ROLLOUT) -> Any:
    return await world.sides.set_green(TENANT, greens, rollout=rollout, held=await world.held())


async def finish(world: Any, *, green: Any = (), blue: Any = (), rollout: str = ROLLOUT, **more: Any) -> Any:
    told = {"keep": 60.0, "by": "user:ann", "change": "chg-1", "held": await world.held(), **more}
    return await world.sides.finish(TENANT, green=green, blue=blue, rollout=rollout, **told)


async def standing(world: Any, agent: str = "anna") -> Any:
    return (await world.sides.look(TENANT, [agent]))[agent]


def seen(one: Green, calls: int, failures: int = 0, *, green: bool) -> Seen:
    buckets = tuple(calls if place == 3 else 0 for place in range(BUCKETS))
    revision = one.revision if green else one.before
    assert revision is not None
    return Seen(
        agent=one.agent,
        revision=revision,
        green=green,
        window=0,
        calls=calls,
        failures=failures,
        platform=1,
        buckets=buckets,
    )


# -- green ---------------------------------------------------------------------------------------------------------


async def test_a_green_side_begins_without_weight_and_unloaded(world: Any) -> None:
    one = await two(world)
    assert await set_green(world, one) == {}
    found = await standing(world)
    assert (found.blue, found.green, found.weight, found.rollout) == (one.before, one.revision, 0, ROLLOUT)
    assert (found.wanted, found.loaded, found.problem, found.kept) == (None, False, None, None)


async def test_asked_again_it_changes_and_refuses_nothing(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    await world.sides.set_weights(TENANT, {"anna": 700}, rollout=ROLLOUT, held=await world.held())
    await world.load("anna", 2, 2)
    before = await standing(world)
    assert await set_green(world, one) == {}
    assert await standing(world) == before and before.weight == 700 and before.loaded


async def test_an_agent_that_is_live_as_wanted_needs_no_green_side(world: Any) -> None:
    one = await two(world)
    await world.apply("anna", "second")
    assert await set_green(world, one) == {}
    assert (await standing(world)).green is None


async def test_one_refused_agent_keeps_no_other_back(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    changed, owned = await two(world, "carl"), await two(world, "dora")
    unknown = Green(agent="emil", revision="sha256:" + "0" * 64, before=await world.apply("emil", "first"))
    await world.apply("carl", "third")
    await world.own("dora")
    await set_green(world, bert, rollout="ro-0")
    refused = await set_green(world, anna, bert, changed, owned, unknown)
    assert set(refused) == {"bert", "carl", "dora", "emil"}
    assert "ro-0" in refused["bert"] and all(reason for reason in refused.values())
    assert (await standing(world)).green == anna.revision
    assert (await standing(world, "carl")).green is None


async def test_a_new_agent_has_a_green_side_alone(world: Any) -> None:
    one = Green(agent="anna", revision=await world.store("anna", "first"), before=None)
    assert await set_green(world, one) == {}
    found = await standing(world)
    assert (found.blue, found.green) == (None, one.revision)


async def test_what_is_to_go_has_no_green_side(world: Any) -> None:
    one = Green(agent="anna", revision=None, before=await world.apply("anna", "first"))
    assert await set_green(world, one) == {}
    assert (await standing(world)).green is None


async def test_who_is_not_there_is_not_in_the_look(world: Any) -> None:
    assert await world.sides.look(TENANT, ["nobody"]) == {}


async def test_a_revision_that_was_taken_back_gets_no_green_side_of_the_same_rollout_again(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    new = Green(agent="carl", revision=await world.store("carl", "first"), before=None)
    await set_green(world, anna, bert, new)
    await world.roll_back("anna")
    assert await finish(world, blue=[bert, new]) == {}
    refused = await set_green(world, anna, bert, new)
    assert set(refused) == {"anna", "bert", "carl"} and "taken back" in refused["anna"]
    found = await world.sides.look(TENANT, ["anna", "bert", "carl"])
    assert {name: (one.blue, one.green) for name, one in found.items()} == {
        "anna": (anna.before, None),
        "bert": (bert.before, None),
    }
    assert await set_green(world, anna, rollout="ro-2") == {}, "another rollout may try it again"
    assert (await standing(world)).green == anna.revision


# -- weights and loading -------------------------------------------------------------------------------------------


async def test_weights_are_the_rollouts_own(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    await world.apply("bert", "first")
    held = await world.held()
    await world.sides.set_weights(TENANT, {"anna": 2_500, "bert": 100, "nobody": 1}, rollout=ROLLOUT, held=held)
    await world.sides.set_weights(TENANT, {"anna": 9_000}, rollout="ro-2", held=held)
    assert (await standing(world)).weight == 2_500 and (await standing(world, "bert")).weight == 0
    await world.sides.set_weights(TENANT, {"anna": WHOLE}, rollout=ROLLOUT, held=held)
    assert (await standing(world)).weight == WHOLE


async def test_no_weight_is_above_the_whole(world: Any) -> None:
    await set_green(world, await two(world))
    for weight in (-1, WHOLE + 1):
        with pytest.raises(ValueError):
            await world.sides.set_weights(TENANT, {"anna": weight}, rollout=ROLLOUT, held=await world.held())


async def test_green_is_loaded_where_it_is_wherever_blue_is(world: Any) -> None:
    await set_green(world, await two(world))
    await world.load("anna", 3, 1, "its code can't be imported")
    found = await standing(world)
    assert (found.wanted, found.holding, found.loaded) == (3, 1, False)
    assert found.problem == "its code can't be imported"
    await world.load("anna", 0, 0)
    assert (await standing(world)).loaded, "where blue is loaded nowhere, the switch is a pointer"


# -- the end -------------------------------------------------------------------------------------------------------


async def test_green_becomes_live_and_blue_is_kept_for_a_time(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    assert await finish(world, green=[one]) == {}
    found = await standing(world)
    assert (found.blue, found.green, found.kept) == (one.revision, None, one.before)
    assert await world.changes("anna") == [(one.before, None), (one.revision, "chg-1")]
    assert await finish(world, green=[one]) == {}, "it stands so already"
    assert len(await world.changes("anna")) == 2
    world.later(61.0)
    assert (await standing(world)).kept is None


async def test_blue_stays_and_green_is_gone(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    assert await finish(world, blue=[one], now=True) == {}
    found = await standing(world)
    assert (found.blue, found.green, found.kept) == (one.before, None, None)
    assert await world.changes("anna") == [(one.before, None)]
    assert await finish(world, blue=[one]) == {}


async def test_what_a_rollout_made_live_it_takes_back(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    await finish(world, green=[one])
    assert await finish(world, blue=[one]) == {}
    assert (await standing(world)).blue == one.before
    assert [revision for revision, _ in await world.changes("anna")] == [one.before, one.revision, one.before]


async def test_several_end_at_once_some_with_green_and_some_with_blue(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    await set_green(world, anna, bert)
    assert await finish(world, green=[anna], blue=[bert]) == {}
    assert (await standing(world)).blue == anna.revision and (await standing(world, "bert")).blue == bert.before


async def test_new_agents_come_and_old_ones_go_by_the_same_end(world: Any) -> None:
    new = Green(agent="anna", revision=await world.store("anna", "first"), before=None)
    old = Green(agent="bert", revision=None, before=await world.apply("bert", "first"))
    await set_green(world, new, old)
    assert await finish(world, green=[new, old]) == {}
    assert (await standing(world)).blue == new.revision
    assert await world.sides.look(TENANT, ["bert"]) == {}
    assert await finish(world, blue=[new, old]) == {}, "and back"
    assert await world.sides.look(TENANT, ["anna"]) == {}
    assert (await standing(world, "bert")).blue == old.before


async def test_a_direct_change_ends_the_green_side_and_the_end_is_refused(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    await set_green(world, anna, bert)
    third = await world.apply("anna", "third")
    await world.delete("bert")
    assert (await standing(world)).green is None
    assert await world.sides.look(TENANT, ["bert"]) == {}
    assert set(await finish(world, green=[anna, bert])) == {"anna", "bert"}
    assert set(await finish(world, blue=[anna, bert])) == {"anna", "bert"}
    assert (await standing(world)).blue == third


async def test_what_was_taken_back_doesnt_become_live_by_the_end(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    new = Green(agent="carl", revision=await world.store("carl", "first"), before=None)
    await set_green(world, anna, bert)
    await world.roll_back("anna")
    assert set(await finish(world, green=[anna, bert, new])) == {"anna", "carl"}
    found = await world.sides.look(TENANT, ["anna", "bert", "carl"])
    assert {name: one.blue for name, one in found.items()} == {"anna": anna.before, "bert": bert.revision}
    assert await finish(world, blue=[anna]) == {}, "it is back already"


async def test_where_more_are_refused_than_are_tolerated_none_becomes_live(world: Any) -> None:
    anna, bert, carl = await two(world), await two(world, "bert"), await two(world, "carl")
    old = Green(agent="dora", revision=None, before=await world.apply("dora", "first"))
    await set_green(world, anna, bert, carl, old)
    await world.roll_back("anna")
    assert set(await finish(world, green=[anna, bert, old], blue=[carl], tolerate=0)) == {"anna"}
    assert [(await standing(world, name)).green for name in ("bert", "carl")] == [bert.revision, None]
    assert (await standing(world, "dora")).blue == old.before, "carl alone was ended"
    assert set(await finish(world, green=[anna, bert, old], tolerate=1)) == {"anna"}
    assert (await standing(world, "bert")).blue == bert.revision
    assert await world.sides.look(TENANT, ["dora"]) == {}


async def test_a_rollout_ends_no_other_ones_sides(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    assert set(await finish(world, green=[one], rollout="ro-2")) == {"anna"}
    assert (await standing(world)).green == one.revision


async def test_a_late_leader_moves_nothing(world: Any) -> None:
    one = await two(world)
    late = await world.held()
    await world.held("another")
    with pytest.raises(LeaseLost):
        await world.sides.set_green(TENANT, [one], rollout=ROLLOUT, held=late)
    assert (await standing(world)).green is None
    await set_green(world, one)
    late = await world.held("a third")
    await world.held("a fourth")
    with pytest.raises(LeaseLost):
        await world.sides.set_weights(TENANT, {"anna": 1}, rollout=ROLLOUT, held=late)
    with pytest.raises(LeaseLost):
        await world.sides.finish(TENANT, green=[one], rollout=ROLLOUT, keep=1.0, by="user:ann", held=late)
    found = await standing(world)
    assert (found.weight, found.blue) == (0, one.before)


# -- observations --------------------------------------------------------------------------------------------------


async def test_what_is_seen_is_read_from_a_place_on_by_windows(world: Any) -> None:
    anna, bert = await two(world), await two(world, "bert")
    await set_green(world, anna)
    await set_green(world, bert, rollout="ro-2")
    start = await world.sides.observed()
    first = await world.see(seen(anna, 5, green=False), seen(anna, 3, 1, green=True), seen(bert, 9, green=True))
    second = await world.see(seen(anna, 2, green=True))
    found = await world.sides.observations(TENANT, ROLLOUT, start)
    assert [(one.window, one.green, one.calls, one.failures, one.platform) for one in found.seen] == [
        (first, False, 5, 0, 1),
        (first, True, 3, 1, 1),
        (second, True, 2, 0, 1),
    ]
    assert {one.agent for one in found.seen} == {"anna"} and found.seen[1].revision == anna.revision
    assert found.seen[0].buckets[3] == 5 and len(found.seen[0].buckets) == BUCKETS
    assert found.through == second == await world.sides.observed()
    assert await world.sides.observations(TENANT, ROLLOUT, second) == type(found)(seen=(), through=second)


async def test_windows_are_read_in_pages(world: Any) -> None:
    one = await two(world)
    await set_green(world, one)
    start = await world.sides.observed()
    for calls in (1, 2, 3):
        await world.see(seen(one, calls, green=True))
    found = await world.sides.observations(TENANT, ROLLOUT, start, 2)
    assert [each.calls for each in found.seen] == [1, 2]
    found = await world.sides.observations(TENANT, ROLLOUT, found.through, 2)
    assert [each.calls for each in found.seen] == [3]


async def test_the_owner_of_an_agent_may_and_is_known_of_a_new_one(world: Any) -> None:
    bert = replace(await two(world, "bert"), owner="there/agent")
    dora = replace(await two(world, "dora"), owner="elsewhere/agent")
    api = replace(await two(world, "emil"), owner="there/agent")
    await world.own("bert")
    await world.own("dora")
    new = Green(agent="anna", revision=await world.store("anna", "first"), before=None, owner="there/agent")
    refused = await set_green(world, bert, dora, api, new)
    assert set(refused) == {"dora", "emil"}
    assert set(await finish(world, green=(bert, dora, api, new))) == {"dora", "emil"}
    assert (await standing(world, "bert")).blue == bert.revision
    assert await world.owner("anna") == await world.owner("bert") == "there/agent"
    assert await finish(world, blue=(bert, new)) == {}
    assert (await standing(world, "bert")).blue == bert.before and await world.owner("bert") == "there/agent"
    assert await world.sides.look(TENANT, ["anna"]) == {}
