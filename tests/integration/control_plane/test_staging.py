"""Staging of a change: made, evaluated beside the live revisions, judged, taken away, and gone on with."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.delivery.staging.sampling import evaluated
from chimera.delivery.trials.asking import Ask, Told
from chimera.testing.definitions import compiled, staged
from chimera.testing.trials import FakeCalls, echo, problem
from chimera_host.testing.doubles import until

from .staging_world import LIVE, NEW, REPLAY, World, case, change, earlier


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


async def test_a_change_is_evaluated_beside_what_is_live_and_taken_away(world: World) -> None:
    tests = [case(), case("scripted", answers=[{"text": "hi"}])]
    live, new = compiled("a", tests=[case()]), compiled("a", tests=tests, metadata={"version": "1.1.0"})
    helper = compiled("helper")
    ask: Any = {"tools": [{"type": "agent", "name": "ask", "agent": "helper"}]}
    with_tools = compiled("b", tests=[case(integration=True), case("other")], **ask)
    await world.catalogue.apply("default", staged(live, helper), keep_going=False, expect=None, by="x")
    there: dict[str, list[str]] = {}

    async def answer(ask: Ask) -> str:
        rows = await world.catalogue.agents(ask.environment, {}, "", 9)
        there[ask.environment] = [row["name"] for row in rows]
        return echo(ask)

    world.calls.answer = answer
    how = await world.over(*change((live, new), (None, with_tools), (None, compiled("c")), (helper, None)))
    assert how.state == "passed", how
    assert "2 of 3 agents were evaluated" in how.detail and "low evidence" in how.detail
    assert there == {NEW: ["a", "b", "c", "helper"], LIVE: ["a"]}
    asked = [(one.environment, one.agent, one.request.trial.tools) for one in world.calls.asked]
    assert {one: asked.count(one) for one in asked} == {
        (NEW, "a", "scripted"): 20,
        (LIVE, "a", "scripted"): 20,
        (NEW, "b", "real"): 20,
    }
    figures = {one.agent: one.evidence for one in how.verdicts if one.check == "staging"}
    assert figures["a"]["live_calls"] == 20 and "live_calls" not in figures["b"]
    assert await world.open() == []


async def test_a_worse_revision_fails_by_its_errors_its_cases_and_beside_the_live_one(world: World) -> None:
    live = [compiled(name, tests=[case()]) for name in ("errs", "wrong", "slow", "fine")]
    new = [compiled(name, tests=[case()], metadata={"version": "2.0.0"}) for name in ("errs", "wrong", "slow", "fine")]

    def answer(ask: Ask) -> Told | str:
        if ask.environment == LIVE:
            return Told(output="hi", seconds=0.1)
        if ask.agent == "errs":
            return problem("agent-failed")
        return Told(output="ho" if ask.agent == "wrong" else "hi", seconds=0.9 if ask.agent == "slow" else 0.1)

    world.calls.answer = answer
    how = await world.over(*change(*zip(live, new, strict=True)))
    said = {one.agent: (one.outcome, one.detail) for one in how.verdicts}
    assert how.state == "failed" and how.next_step
    assert {agent: outcome for agent, (outcome, _) in said.items()} == {
        "errs": "failed",
        "wrong": "failed",
        "slow": "failed",
        "fine": "passed",
    }
    assert "20 of 20 calls failed" in said["errs"][1] and "of the live revision 0 of 20" in said["errs"][1]
    assert "0 of 20 runs passed" in said["wrong"][1]
    assert "in the middle" in said["slow"][1]


async def test_longer_times_fail_where_they_are_longer_each_time_that_they_are_measured(database: Database) -> None:
    pair = compiled("a", tests=[case()]), compiled("a", tests=[case()], metadata={"version": "2.0.0"})
    for measured, calls, outcome in ((1, 2, "passed"), (4, 5, "passed"), (5, 5, "failed")):
        world, seen = World(database), dict.fromkeys((NEW, LIVE), 0)

        def answer(ask: Ask, measured: int = measured, seen: dict[str, int] = seen) -> Told:
            seen[ask.environment] += 1
            late = ask.environment == NEW and seen[NEW] <= 20 * measured
            return Told(output="hi", seconds=0.9 if late else 0.1)

        world.calls.answer = answer
        how = await world.over(*change(pair))
        [found] = [one for one in how.verdicts if one.agent == "a" and one.check == "staging"]
        assert (how.state, seen) == (outcome, {NEW: 20 * calls, LIVE: 20 * calls})
        assert ("answers take 0.9 s in the middle" in found.detail) == (outcome == "failed")
        assert ("not shown again" in found.detail) == (outcome == "passed")
        assert found.evidence["median_seconds"] == 0.9 and found.evidence["calls"] == 20
        assert await world.open() == []


async def test_a_conversation_is_as_long_on_both_sides_whoever_likes_its_answers(database: Database) -> None:
    """The live revision's are neither judged, nor is it expected to pass what the change brings."""
    world = World(database, judge_model="default", staging_replays=0)
    rubric = {"expect": {"rubric": "It greets."}}
    tests = {
        "judged": [case(**rubric, then=[{"input": "more", **rubric}])],
        "mended": [case(then=[{"input": "more", "expect": {"contains": ["hi"]}}])],
    }
    pairs = [
        (compiled(name, tests=some), compiled(name, tests=some, metadata={"version": "2.0.0"}))
        for name, some in tests.items()
    ]

    def answer(ask: Ask) -> Told:
        if ask.agent.startswith("rubric-judge"):
            return Told(output='{"passed": true, "reasons": "it does"}')
        wrong = ask.agent == "mended" and ask.environment == LIVE
        return Told(output="no" if wrong else "hi", seconds=0.1)

    world.calls.answer = answer
    how = await world.over(*change(*pairs))
    assert how.state == "passed", how
    for one in how.verdicts:
        assert one.evidence["median_seconds"] == one.evidence["live_median_seconds"] == 0.2, one
        assert "not shown again" not in one.detail


async def test_times_are_measured_again_without_checks_and_judges(database: Database) -> None:
    world = World(database, judge_model="default", staging_replays=0)
    tests = [case(expect={"rubric": "It greets."}, then=[{"input": "more", "expect": {"rubric": "It goes on."}}])]
    pair = compiled("a", tests=tests), compiled("a", tests=tests, metadata={"version": "2.0.0"})

    def answer(ask: Ask) -> Told:
        if ask.agent != "a":
            return Told(output='{"passed": true, "reasons": "it does"}')
        return Told(output="hi", seconds=0.9 if ask.environment == NEW else 0.1)

    world.calls.answer = answer
    assert (await world.over(*change(pair))).state == "failed"
    judged = [one for one in world.calls.asked if one.agent != "a"]
    assert (len(judged), len(world.calls.asked) - len(judged)) == (20 * 2, 5 * 20 * 2 * 2)


async def test_times_are_measured_again_within_the_bound_of_calls(database: Database) -> None:
    world = World(database, staging_most_calls=200, staging_replays=0)
    live, new = compiled("a", tests=[case()]), compiled("a", tests=[case()], metadata={"version": "2.0.0"})
    world.calls.answer = lambda ask: Told(output="hi", seconds=0.9 if ask.environment == NEW else 0.1)
    assert (await world.over(*change((live, new)))).state == "failed" and len(world.calls.asked) == 200
    world = World(database, staging_most_calls=199, staging_replays=0)
    world.calls.answer = lambda ask: Told(output="hi", seconds=0.9 if ask.environment == NEW else 0.1)
    how = await world.over(*change((live, new)))
    assert how.state == "passed" and "not shown again" in how.verdicts[0].detail
    assert len([one for one in world.calls.asked if one.environment in (NEW, LIVE)]) == 160


async def test_a_large_change_keeps_calls_to_measure_times_again(database: Database) -> None:
    world = World(database, staging_most_calls=3_000, staging_calls=10, staging_replays=0, parallel=200)
    names = [f"a{number:03}" for number in range(150)]
    new = {"tests": [case()], "metadata": {"version": "2.0.0"}}
    pairs = [(compiled(name, tests=[case()]), compiled(name, **new)) for name in names]
    world.calls.answer = lambda ask: Told(
        output="hi", seconds=0.9 if ask.agent == "a149" and ask.environment == NEW else 0.1
    )
    how = await world.over(*change(*pairs))
    assert how.state == "failed" and "1 did not pass, first a149" in how.detail, how
    assert len(world.calls.asked) == 2 * 9 * (150 + 11)


async def test_another_process_goes_on_and_makes_no_call_twice(world: World) -> None:
    made = change((None, compiled("a", tests=[case()])))
    begun = asyncio.Event()

    async def answer(ask: Ask) -> str:
        if len(world.calls.asked) > 5:
            begun.set()
            await asyncio.Event().wait()
        return echo(ask)

    world.calls.answer = answer
    assert (await world.staging.advance(*made)).state == "running"
    await begun.wait()
    await world.staging.aclose()
    assert await world.open() == [NEW]
    keys = {one.key for one in world.calls.asked}
    world.calls = FakeCalls()
    world.staging = world.process(world.calls)
    assert (await world.over(*made)).state == "passed"
    assert keys <= {one.key for one in world.calls.asked}, "the same calls, which the queue knows by their keys"
    assert len(world.calls.asked) == 20


async def test_a_process_that_rests_leaves_what_is_there_and_begins_again_when_it_is_asked(world: World) -> None:
    made = change((None, compiled("a", tests=[case()])))
    begun = asyncio.Event()

    async def answer(ask: Ask) -> str:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return echo(ask)

    world.calls.answer = answer
    assert (await world.staging.advance(*made)).state == "running"
    await begun.wait()
    await world.staging.rest()
    assert await world.open() == [NEW], "another process may be validating in it"
    assert (await world.over(*made)).state == "passed"


async def test_who_lost_the_lease_makes_nothing_and_takes_nothing_away(world: World) -> None:
    made = change((None, compiled("a", tests=[case()])))
    begun, leases = asyncio.Event(), StoredLeases(world.database)
    old = await leases.acquire("pipeline", "old", 60.0)
    assert old is not None

    async def never(ask: Ask) -> str:
        begun.set()
        await asyncio.Event().wait()
        return echo(ask)

    world.calls.answer = never
    await world.staging.advance(*made, held=old)
    await begun.wait()
    await leases.release(old)
    new = await leases.acquire("pipeline", "new", 60.0)
    with pytest.raises(LeaseLost):
        await world.staging.remove(made[0], held=old)
    assert await world.open() == [NEW]
    assert len(await world.catalogue.agents(NEW, {}, "", 10)) == 1
    await world.staging.remove(made[0], held=new)
    assert await world.open() == []

    async def refused() -> bool:
        try:
            await world.staging.advance(*made, held=old)
        except LeaseLost:
            return True
        return False

    await until(refused)
    assert await world.open() == []


async def test_a_change_that_is_sent_again_as_it_was_is_evaluated_again(world: World) -> None:
    pair = compiled("a", tests=[case()]), compiled("a", tests=[case()], metadata={"version": "1.1.0"})
    made, revisions = change(pair)
    world.traffic.add("default", *earlier(8))
    world.calls.answer = lambda ask: problem("agent-failed")
    assert (await world.over(made, revisions)).state == "failed"
    await world.staging.remove(made)
    world.calls.answer = lambda ask: problem("agent-failed") if ask.environment == REPLAY else echo(ask)
    again = replace(made, since=made.since + 60.0)
    how = await world.over(again, revisions)
    assert how.state == "failed" and {one.check: one.outcome for one in how.verdicts} == {
        "staging": "passed",
        "replay": "failed",
    }
    await world.staging.remove(again)
    world.calls.answer = echo
    assert (await world.over(replace(made, since=made.since + 120.0), revisions)).state == "passed"


async def test_a_change_waits_for_room_and_holds_none_meanwhile(database: Database) -> None:
    world = World(database, environments=1)
    live, new = compiled("a", tests=[case()]), compiled("a", tests=[case()], metadata={"version": "1.1.0"})
    made = change((live, new))

    async def waits() -> bool:
        how = await world.staging.advance(*made)
        assert how.state == "running"
        return "room" in how.detail

    await until(waits)
    assert world.calls.asked == []
    await world.staging.remove(made[0])
    assert await world.open() == []


async def test_a_change_that_is_removed_ends_what_runs(world: World) -> None:
    made = change((None, compiled("a", tests=[case()])))

    async def answer(_: Ask) -> str:
        await asyncio.Event().wait()
        return ""

    world.calls.answer = answer
    await world.staging.advance(*made)
    await until(lambda: world.calls.asked)
    await world.staging.remove(made[0])
    assert world.calls.cancelled and await world.open() == []


def test_agents_are_evaluated_by_integration_tests_else_by_those_with_a_real_model() -> None:
    scripted = case("s", answers=[{"text": "x"}])
    with_code = [case("i", integration=True, answers=[{"text": "x"}]), case("r"), scripted]
    assert [one.name for one in evaluated(compiled("a", tests=with_code).value)] == ["i"]
    assert [one.name for one in evaluated(compiled("a", tests=[case("r"), scripted]).value)] == ["r"]
    assert evaluated(compiled("a", tests=[scripted]).value) == ()
