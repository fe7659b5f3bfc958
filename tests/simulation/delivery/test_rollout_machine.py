"""A rollout from its beginning to its end, with leaders killed at every step of it, in memory and in virtual time."""

from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.leases import LeaseLost
from chimera.delivery.rollout.errors import NothingToRollOut, RolloutConflict, RolloutState
from chimera.delivery.rollout.model import LEADER, MOVED, Item, Policy, Rollout
from chimera.delivery.sides.model import WHOLE
from chimera.testing.rollout_world import QUICK, TENANT, Killed, Killer, Rates, RolloutWorld

AGENTS = [f"a{number}" for number in range(4)]


def fails(*agents: str, share: float = 0.9) -> object:
    return lambda agent: Rates(green=share) if agent in agents else Rates()


def changed(policy: Policy = QUICK, **fields: object) -> Policy:
    return replace(policy, **fields)


async def begun(world: RolloutWorld, **more: object) -> str:
    await world.lead()
    return (await world.start(**more)).rollout.id


# -- the whole way -------------------------------------------------------------------------------------------------


async def test_good_revisions_become_live_together_and_the_old_ones_stay_warm() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    found = await world.until_over(rollout)
    assert found.rollout.state == "done"
    assert found.phases == {"done": 4}
    assert set(found.strengths) <= {"proven", "sufficient"}
    assert await world.all_at(new=True)
    standing = await world.standing()
    assert all(standing[one.agent].kept == one.before for one in world.items)
    assert [event for _, event in world.memory.told] == ["started", "wave", "wave", "promoting", "done"]
    # One transaction for all: no reader of the catalogue sees a half.
    assert len({change for _, _, _, change in world.sides.changes if change is not None}) == 1


async def test_no_call_goes_to_green_before_it_is_loaded_wherever_blue_is() -> None:
    world = RolloutWorld(AGENTS[:1])
    world.loads = False
    await begun(world)
    for _ in range(3):
        await world.tick()
        world.sides.load(TENANT, "a0", 2, 1)
    assert (await world.standing())["a0"].weight == 0
    world.sides.load(TENANT, "a0", 2, 2)
    await world.tick()
    assert (await world.standing())["a0"].weight == 0.2 * WHOLE


async def test_what_is_never_loaded_is_taken_back_with_the_reason() -> None:
    world = RolloutWorld(AGENTS[:1])
    world.loads = False
    rollout = await begun(world)
    await world.tick()
    world.sides.load(TENANT, "a0", 1, 0, "the bundle is not there")
    found = await world.until_over(rollout)
    assert found.rollout.state == "rolled-back"
    assert "not loaded within 100 s: the bundle is not there" in found.rollout.reason
    assert await world.all_at(new=False)


async def test_the_canary_goes_alone_and_weights_only_rise_by_the_steps() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    weights: dict[str, list[int]] = {agent: [] for agent in AGENTS}
    for _ in range(12):
        await world.tick()
        members = await world.store.members(TENANT, rollout)
        if members[0].phase in ("loading", "shifting", "baking"):
            assert all(one.phase == "pending" for one in members[1:])
        for agent, how in (await world.standing()).items():
            weights[agent].append(how.weight)
    for seen in weights.values():
        assert seen == sorted(seen)
        assert set(seen) <= {0, 2000, 6000}


@pytest.mark.parametrize("bad", AGENTS)
async def test_one_bad_agent_takes_all_of_the_change_back_whichever_wave_it_is_in(bad: str) -> None:
    world = RolloutWorld(AGENTS, rates=fails(bad))
    rollout = await begun(world)
    found = await world.until_over(rollout)
    assert found.rollout.state == "rolled-back"
    assert bad in found.rollout.reason
    assert "calls failed" in found.rollout.reason
    assert set(found.phases) <= {"rolled-back", "skipped"}
    assert await world.all_at(new=False)


async def test_who_takes_agents_back_is_whoever_wanted_that() -> None:
    by_itself = RolloutWorld(AGENTS, rates=fails("a2"))
    assert (await by_itself.until_over(await begun(by_itself))).rollout.state == "rolled-back"
    assert by_itself.sides.back_by == {LEADER}
    asked = RolloutWorld(AGENTS)
    rollout = await begun(asked)
    for _ in range(4):
        await asked.tick()
    await asked.service.ask(TENANT, rollout, "abort", by="user:bob")
    assert (await asked.until_over(rollout)).rollout.state == "aborted"
    assert asked.sides.back_by == {"user:bob"}


async def test_a_bad_agent_goes_back_alone_where_that_is_tolerated() -> None:
    world = RolloutWorld(AGENTS, rates=fails("a2"), policy=changed(tolerate=1))
    rollout = await begun(world)
    found = await world.until_over(rollout)
    assert found.rollout.state == "done"
    assert found.phases == {"done": 3, "rolled-back": 1}
    assert found.rollout.reason == "all but a2"
    standing = await world.standing()
    assert standing["a2"].blue == world.items[2].before
    assert (world.memory.told[0][0], "lost") in world.memory.told


async def test_agents_with_the_same_change_that_are_a_little_worse_go_back_together() -> None:
    names = [f"b{number:02}" for number in range(24)]
    policy = changed(waves=(), canary=24, tolerate=3, bake_seconds=200.0, longest_bake=200.0)
    world = RolloutWorld(names, rates=lambda agent: Rates(blue=0.01, green=0.05, calls=24), policy=policy, seed=3)
    rollout = await begun(world)
    found = await world.until_over(rollout)
    assert found.rollout.state == "rolled-back"
    assert "the 24 agents with the same change are worse together" in found.rollout.reason


async def test_agents_without_calls_are_decided_by_the_bake_time_and_marked() -> None:
    world = RolloutWorld(AGENTS, rates=lambda agent: Rates(calls=0))
    world.items = [
        Item(agent=one.agent, revision=one.revision, before=one.before, cases="passed") for one in world.items
    ]
    rollout = await begun(world)
    found = await world.until_over(rollout)
    assert found.rollout.state == "done"
    assert found.strengths == {"low": 4}
    assert {one.reason for one in await world.store.members(TENANT, rollout)} == {
        "0 calls; its evaluation cases passed"
    }


async def test_few_calls_and_failed_cases_are_not_kept() -> None:
    world = RolloutWorld(AGENTS[:1], rates=lambda agent: Rates(calls=0))
    world.items = [
        Item(agent=one.agent, revision=one.revision, before=one.before, cases="failed") for one in world.items
    ]
    rollout = await begun(world)
    assert (await world.until_over(rollout)).rollout.state == "rolled-back"


async def test_new_agents_get_all_calls_at_once_and_agents_taken_out_are_gone_at_the_end() -> None:
    world = RolloutWorld(AGENTS[:3])
    fresh = world.items[1]
    world.sides.apply(TENANT, "a1", None)
    world.items[1] = Item(agent="a1", revision=fresh.revision, before=None)
    world.items[2] = Item(agent="a2", revision=None, before=world.items[2].before)
    rollout = await begun(world)
    seen = set()
    for _ in range(40):
        await world.tick()
        standing = await world.standing()
        if "a1" in standing and standing["a1"].green is not None:
            seen.add(standing["a1"].weight)
    assert seen == {0, WHOLE}
    assert (await world.until_over(rollout)).rollout.state == "done"
    standing = await world.standing()
    assert standing["a1"].blue == fresh.revision
    assert "a2" not in standing


async def test_the_most_that_may_be_on_their_way_are() -> None:
    world = RolloutWorld([f"a{number}" for number in range(9)], policy=changed(max_parallel=2, waves=()))
    rollout = await begun(world)
    most = 0
    for _ in range(60):
        await world.tick()
        members = await world.store.members(TENANT, rollout)
        most = max(most, sum(one.phase in ("loading", "shifting", "baking") for one in members))
    assert most == 2
    assert (await world.until_over(rollout)).rollout.state == "done"


# -- people and others ---------------------------------------------------------------------------------------------


async def test_a_rollout_that_rests_goes_no_further_and_takes_nothing_back_until_it_goes_on() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    for _ in range(5):
        await world.tick()
    await world.service.ask(TENANT, rollout, "pause", by="user:bob", reason="lunch")
    before = await world.standing()
    for _ in range(20):
        await world.tick()
    assert {agent: how.weight for agent, how in (await world.standing()).items()} == {
        agent: how.weight for agent, how in before.items()
    }
    found = await world.store.get(TENANT, rollout)
    assert (found.rollout.state, found.rollout.reason) == ("paused", "paused by user:bob: lunch")
    await world.service.ask(TENANT, rollout, "run", by="user:bob")
    assert (await world.until_over(rollout)).rollout.state == "done"


async def test_a_bad_side_is_taken_back_also_while_a_rollout_rests() -> None:
    rates = Rates()
    world = RolloutWorld(AGENTS, rates=lambda agent: rates)
    rollout = await begun(world)
    for _ in range(5):
        await world.tick()
    await world.service.ask(TENANT, rollout, "pause", by="user:bob")
    await world.tick()
    rates = Rates(green=0.9)
    assert (await world.until_over(rollout)).rollout.state == "rolled-back"
    assert await world.all_at(new=False)


@pytest.mark.parametrize("ticks", range(0, 40, 3))
async def test_aborted_at_any_moment_nothing_is_left_half(ticks: int) -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    for _ in range(ticks):
        await world.tick()
    if (await world.store.get(TENANT, rollout)).rollout.state not in ("running", "paused"):
        with pytest.raises(RolloutState):
            await world.service.ask(TENANT, rollout, "abort", by="user:bob")
        assert (await world.until_over(rollout)).rollout.state == "done"
        return
    await world.service.ask(TENANT, rollout, "abort", by="user:bob", reason="not today")
    with pytest.raises(RolloutState):
        await world.service.ask(TENANT, rollout, "run", by="user:bob")
    found = await world.until_over(rollout)
    assert (found.rollout.state, found.rollout.reason) == ("aborted", "aborted by user:bob: not today")
    assert await world.all_at(new=False)
    assert found.moved == 0


async def test_an_agent_that_somebody_else_changes_meanwhile_is_left_as_they_made_it() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    for _ in range(15):
        await world.tick()
    first = (await world.store.members(TENANT, rollout))[0]
    assert (first.agent, first.phase) == ("a0", "waiting")
    world.sides.apply(TENANT, "a0", "sha256:theirs")
    found = await world.until_over(rollout)
    assert found.rollout.state == "rolled-back"
    assert "somebody else changed the agent meanwhile" in found.rollout.reason
    assert (await world.standing())["a0"].blue == "sha256:theirs"


@pytest.mark.parametrize("paused", [False, True])
async def test_an_agent_that_is_taken_back_while_it_is_loaded_stays_so_and_takes_all_back(paused: bool) -> None:
    world = RolloutWorld(AGENTS)
    world.loads = False
    rollout = await begun(world)
    await world.tick()
    assert (await world.standing())["a0"].green is not None
    if paused:
        await world.service.ask(TENANT, rollout, "pause", by="user:bob")
        await world.tick()
    world.sides.roll_back(TENANT, "a0")
    world.loads = True
    found = await world.until_over(rollout)
    assert (found.rollout.state, "taken back" in found.rollout.reason) == ("rolled-back", True)
    assert await world.all_at(new=False)


async def to_the_end(world: RolloutWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until all is decided, by a leader that is killed before any of it is live; another one leads then."""
    act = world.service._act

    async def die(rollout: Rollout, *others: object) -> None:
        if rollout.state == "promoting":
            raise Killed("before finish")
        await act(rollout, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(world.service, "_act", die)
    with pytest.raises(Killed):
        for _ in range(200):
            await world.tick()
    assert await world.moved() == set()
    await world.lead()


@pytest.mark.parametrize("way", ["taken back", "changed", "between look and end"])
async def test_what_is_being_made_live_becomes_so_as_a_whole_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    await to_the_end(world, monkeypatch)
    if way == "taken back":
        world.sides.roll_back(TENANT, "a1")
    elif way == "changed":
        world.sides.apply(TENANT, "a1", "sha256:theirs")
    else:
        finish = world.sides.finish

        async def late(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(world.sides, "finish", finish)
            world.sides.roll_back(TENANT, "a1")
            return await finish(*arguments, **options)

        monkeypatch.setattr(world.sides, "finish", late)
    ever = set()
    for _ in range(6):
        await world.tick()
        ever |= await world.moved()
    found = await world.until_over(rollout)
    assert (found.rollout.state, ever) == ("rolled-back", set())
    assert "1 of 4 agents had to be taken back (a1: " in found.rollout.reason


@pytest.mark.parametrize("tolerate", [0, 4])
async def test_a_rollout_of_which_all_was_taken_back_at_its_end_is_not_done(
    monkeypatch: pytest.MonkeyPatch, tolerate: int
) -> None:
    world = RolloutWorld(AGENTS, policy=changed(tolerate=tolerate))
    rollout = await begun(world)
    await to_the_end(world, monkeypatch)
    for agent in AGENTS:
        world.sides.roll_back(TENANT, agent)
    found = await world.until_over(rollout)
    assert found.rollout.state == "rolled-back" and found.rollout.reason
    assert await world.all_at(new=False)
    assert [event for _, event in world.memory.told if event not in ("wave", "lost")][-2:] == [
        "rolling-back",
        "rolled-back",
    ]


@pytest.mark.parametrize("late", [False, True])
async def test_of_what_is_being_made_live_as_many_go_back_alone_as_are_tolerated(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    world = RolloutWorld(AGENTS, policy=changed(tolerate=1))
    rollout = await begun(world)
    await to_the_end(world, monkeypatch)
    world.sides.roll_back(TENANT, "a1")
    if late:
        world.sides.roll_back(TENANT, "a2")
    found = await world.until_over(rollout)
    moved = set() if late else {"a0", "a2", "a3"}
    assert (found.rollout.state, await world.moved()) == ("rolled-back" if late else "done", moved)


async def test_an_agent_that_was_changed_before_its_turn_is_refused() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    world.sides.apply(TENANT, "a3", "sha256:theirs")
    found = await world.until_over(rollout)
    assert (found.rollout.state, "changed meanwhile" in found.rollout.reason) == ("rolled-back", True)


async def test_agents_are_in_one_rollout_at_a_time_and_a_change_has_one() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    assert (await world.start()).rollout.id == rollout
    with pytest.raises(RolloutConflict):
        await world.start(change="chg-2")
    await world.until_over(rollout)
    with pytest.raises(NothingToRollOut):
        await world.service.start(TENANT, [], title="", by="user:ann")


# -- leaders come and go -------------------------------------------------------------------------------------------


async def effects(rates: object = None) -> list[str]:
    """All effects of a rollout that nobody disturbs."""
    world = RolloutWorld(AGENTS, rates=rates or (lambda agent: Rates()))
    rollout = await begun(world)
    world.killer = Killer()
    await world.lead()
    await world.until_over(rollout)
    return world.killer.names


@pytest.mark.parametrize("bad", [False, True], ids=["kept", "taken back"])
async def test_a_leader_killed_at_any_step_is_followed_by_one_that_comes_to_the_same_end(bad: bool) -> None:
    rates = fails("a3") if bad else lambda agent: Rates()
    names = await effects(rates)
    assert {name.split()[1] for name in names} == {"save", "set_green", "set_weights", "finish"}
    for at in range(len(names)):
        world = RolloutWorld(AGENTS, rates=rates)
        rollout = await begun(world)
        world.killer = Killer(at=at)
        await world.lead()
        found = await world.until_over(rollout)
        assert world.killer.count > at, "it was killed"
        assert found.rollout.state == ("rolled-back" if bad else "done"), names[at]
        assert await world.all_at(new=not bad), names[at]
        assert all(one.phase not in MOVED for one in await world.store.members(TENANT, rollout))
        # What is told of it is told once, whatever was done twice.
        told = [event for _, event in world.memory.told if event != "wave"]
        assert len(told) == len(set(told)), names[at]


@pytest.mark.parametrize("after", ["before create", "after create"])
async def test_a_change_whose_start_was_killed_is_started_once(after: str) -> None:
    world = RolloutWorld(AGENTS)
    await world.lead()
    world.killer.at = ["before create", "after create"].index(after)
    with pytest.raises(Killed):
        await world.start()
    world.killer.at = -1
    await world.start()
    found = await world.store.page(TENANT, "", 10)
    assert len(found) == 1
    assert (await world.until_over(found[0].rollout.id)).rollout.state == "done"


@pytest.mark.parametrize("away", [1, 7, 60])
async def test_gateways_keep_their_weights_while_nobody_leads_and_the_next_leader_decides(away: int) -> None:
    rates = Rates()
    world = RolloutWorld(AGENTS, rates=lambda agent: rates)
    rollout = await begun(world)
    for _ in range(5):
        await world.tick()
    before = {agent: how.weight for agent, how in (await world.standing()).items()}
    assert max(before.values()) > 0
    rates = Rates(green=0.9)
    for _ in range(away):
        await world.tick(led=False)
    assert {agent: how.weight for agent, how in (await world.standing()).items()} == before
    await world.lead()
    if away > 1:
        await world.tick()
        assert (await world.store.get(TENANT, rollout)).rollout.state in ("rolling-back", "rolled-back")
        assert max(how.weight for how in (await world.standing()).values()) == 0
    assert (await world.until_over(rollout)).rollout.state == "rolled-back"
    assert await world.all_at(new=False)


async def test_a_leader_that_comes_back_late_moves_nothing() -> None:
    world = RolloutWorld(AGENTS)
    rollout = await begun(world)
    for _ in range(5):
        await world.tick()
    late, late_lease = world.service, world.held
    assert late_lease is not None
    await world.lead()
    for _ in range(3):
        await world.tick()
    before = await world.standing(), await world.store.members(TENANT, rollout)
    world.clock.advance(1_000.0)
    with pytest.raises(LeaseLost):
        await late.round(late_lease)
    assert (await world.standing(), await world.store.members(TENANT, rollout)) == before
    assert (await world.until_over(rollout)).rollout.state == "done"


async def test_no_window_counts_twice_however_often_leaders_change() -> None:
    world = RolloutWorld(AGENTS[:1], policy=changed(bake_seconds=1_000.0))
    rollout = await begun(world)
    for _ in range(20):
        await world.tick()
        await world.lead()
    (member,) = await world.store.members(TENANT, rollout)
    assert member.evidence.blue.calls + member.evidence.green.calls == 20 * 19
