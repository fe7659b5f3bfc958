"""Replay in staging: earlier inputs are put to both revisions, compared, and no further than the tenant lets them."""

import asyncio
from typing import Any

import pytest

from chimera.adapters.storage.database import Database
from chimera.delivery.model import Verdict
from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.ports import Progress
from chimera.delivery.staging.sampling import NOT_RUN
from chimera.delivery.trials.asking import Ask, Told
from chimera.testing.definitions import compiled
from chimera.testing.trials import FakeCalls, echo, problem
from chimera_host.testing.doubles import until

from .staging_world import LIVE, NEW, REPLAY, REPLAY_LIVE, World, case, change, earlier

SIDES = (REPLAY, REPLAY_LIVE)
POLITE = {"expect": {"contains": ["please"]}}


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def pair(name: str = "a", **changes: Any) -> tuple[Any, Any]:
    """An agent as it is live and as it would become."""
    changes.setdefault("tests", [case(**POLITE)])
    return compiled(name, **changes), compiled(name, **{**changes, "metadata": {"version": "1.1.0"}})


def replays(how: Progress) -> dict[str, Verdict]:
    return {one.agent or "": one for one in how.verdicts if one.check == "replay"}


def replayed(world: World) -> list[Ask]:
    return [one for one in world.calls.asked if one.environment in SIDES]


def worse(ask: Ask) -> Told | str:
    """The new revision forgets its manners wherever its own case doesn't look."""
    rude = ask.environment == REPLAY and ask.messages[-1].content.startswith("earlier")
    return Told(output="no" if rude else "yes please", seconds=0.1)


async def test_a_revision_that_answers_worse_on_earlier_inputs_fails_though_its_cases_pass(world: World) -> None:
    world.traffic.add("default", *earlier(30))
    world.calls.answer = worse
    how = await world.over(*change(pair(), pair("b")))
    found = replays(how)
    assert how.state == "failed" and [one.outcome for one in how.verdicts if one.check == "staging"] == ["passed"] * 2
    assert found["a"].outcome == "failed" and "20 of 20 answers meet less" in found["a"].detail, found["a"]
    assert "most often missed: contains 'please'" in found["a"].detail and found["a"].next_step
    evidence = found["a"].evidence
    assert (evidence["inputs"], evidence["sessions"], evidence["worse_answers"]) == (20, 20, 20)
    assert evidence["low_evidence"] is False and evidence["missed"] == {"contains 'please'": 20}
    assert len(evidence["worse_on"]) == 5 and evidence["worse_on"][0].endswith(", message 3")
    # Of an agent that nobody has called, that is said.
    assert found["b"].outcome == "passed" and "no earlier input" in found["b"].detail
    assert found["b"].evidence["low_evidence"] and "the evidence on 1 is low" in how.detail
    # Both sides got the same, and nothing of it is left.
    asked = {side: [one.messages for one in replayed(world) if one.environment == side] for side in SIDES}
    assert len(asked[REPLAY]) == 20 and sorted(map(str, asked[REPLAY])) == sorted(map(str, asked[REPLAY_LIVE]))
    assert await world.open() == []
    assert world.traffic.told_of == [("default", "chg_1", {"agents": 1, "inputs": 20, "of_people": 0})]


async def test_a_revision_that_does_not_answer_or_answers_late_fails(world: World) -> None:
    def answer(ask: Ask) -> Told | str:
        new = ask.environment == REPLAY
        if ask.agent == "errs" and new:
            return problem("agent-failed")
        return Told(output="yes please", seconds=0.9 if ask.agent == "slow" and new else 0.1)

    world.calls.answer = answer
    for name in ("errs", "slow", "fine"):
        world.traffic.add("default", *earlier(20, agent=name))
    how = await world.over(*change(pair("errs"), pair("slow"), pair("fine")))
    found = replays(how)
    assert "20 of 20 inputs failed that the live revision answered" in found["errs"].detail
    assert "more than 1.25 times as long" in found["slow"].detail and found["slow"].evidence["median_ratio"] == 9.0
    assert found["fine"].outcome == "passed" and not found["fine"].evidence["low_evidence"], found["fine"]


async def test_answers_that_were_late_once_alone_fail_nothing(world: World) -> None:
    world.traffic.add("default", *earlier(20))
    late = 0

    def answer(ask: Ask) -> Told | str:
        nonlocal late
        late += ask.environment == REPLAY
        return Told(output="yes please", seconds=0.9 if ask.environment == REPLAY and late <= 20 else 0.1)

    world.calls.answer = answer
    how = await world.over(*change(pair()))
    found = replays(how)["a"]
    assert how.state == "passed" and found.outcome == "passed" and "not shown again" in found.detail
    assert found.evidence["slower"] == 20 and len(replayed(world)) == 80, "each side was asked once more"
    assert len({one.key for one in replayed(world)}) == 80


async def test_few_inputs_show_little_and_say_so(world: World) -> None:
    world.traffic.add("default", *earlier(4))
    world.calls.answer = worse
    how = await world.over(*change(pair()))
    found = replays(how)["a"]
    assert how.state == "passed" and found.outcome == "passed"
    assert found.evidence["low_evidence"] and found.evidence["worse_answers"] == 4 and "(low evidence)" in found.detail


async def test_nothing_is_replayed_where_cases_fail_or_nothing_is_wanted(database: Database) -> None:
    for settings, output in (({}, "no"), ({"staging_replays": 0}, "yes please")):
        world = World(database, **settings)
        world.traffic.add("default", *earlier(20))
        world.calls.answer = lambda _, output=output: output  # type: ignore[misc]
        how = await world.over(*change(pair()))
        assert how.state == ("failed" if output == "no" else "passed")
        assert replayed(world) == [] and world.traffic.told_of == [] and replays(how) == {}


async def test_what_is_of_a_person_or_of_another_class_of_data_stays_where_it_is(world: World) -> None:
    world.traffic.add("default", *earlier(10), *earlier(10, agent="grave"))
    world.traffic.add("default", *[one for one in earlier(20, subject="ann") if int(one.name[1:]) >= 10])
    world.calls.answer = lambda _: "yes please"
    changes = change(pair(), pair("grave", data_class="personal", tests=[case(**POLITE)]))
    how = await world.over(*changes)
    assert {one.agent for one in replayed(world)} == {"a"} and len(replayed(world)) == 20
    assert all(one.subject is None for one in replayed(world))
    assert "the policy replays nothing of personal data" in replays(how)["grave"].detail
    assert "1 may not be replayed to" in how.detail


async def test_a_tenant_may_let_people_be_replayed_and_their_calls_carry_them(world: World) -> None:
    world.traffic.policy = ReplayPolicy(data_classes=("personal",), people=True)
    world.traffic.add("default", *earlier(20, subject="ann"))
    judged = case(expect={"rubric": "It is polite."})
    world.settings = type(world.settings)(judge_model="judge")
    world.staging = world.process(world.calls)

    def answer(ask: Ask) -> str:
        return '{"passed": true, "reasons": ""}' if ask.agent == "rubric-judge" else f"yes please {ask.environment}"

    world.calls.answer = answer
    how = await world.over(*change(pair(tests=[judged], data_class="personal")))
    assert replays(how)["a"].outcome == "passed" and not how.detail.startswith("0")
    assert {one.subject for one in replayed(world)} == {"ann"}, "the judge's questions hold what they said, too"
    assert "rubric-judge" in {one.agent for one in replayed(world)}
    assert world.traffic.told_of[0][2]["of_people"] == 20
    said = str(replays(how)["a"])
    assert "s1" not in said and "earlier" not in said.replace("earlier inputs", ""), "a verdict quotes nobody"


async def test_a_judge_compares_two_answers_either_way_round(world: World) -> None:
    world.traffic.add("default", *earlier(20))
    world.settings = type(world.settings)(judge_model="judge")
    world.staging = world.process(world.calls)

    def answer(ask: Ask) -> str:
        if ask.agent == "rubric-judge":
            passed = '"answer":"thorough please"' in ask.messages[0].content
            return f'{{"passed": {"true" if passed else "false"}, "reasons": "r"}}'
        return "curt please" if ask.environment == REPLAY else "thorough please"

    world.calls.answer = answer
    how = await world.over(*change(pair()))
    found = replays(how)["a"]
    assert found.outcome == "failed" and "is as good as the other" in found.detail, found
    asked = [one.messages[0].content for one in world.calls.asked if one.agent == "rubric-judge"]
    assert len(asked) == 40 and all('"other"' in one for one in asked)


async def test_what_is_erased_meanwhile_is_not_asked(world: World) -> None:
    inputs = earlier(20)
    world.traffic.add("default", *inputs)

    def answer(ask: Ask) -> str:
        if ask.environment in SIDES:
            world.traffic.kept.clear()
        return "yes please"

    world.calls.answer = answer
    how = await world.over(*change(pair()))
    assert 0 < len(replayed(world)) <= 2 * 8, "those that were under way"
    assert 0 < replays(how)["a"].evidence["inputs"] <= 8


async def test_all_calls_of_a_change_are_bounded(database: Database) -> None:
    world = World(database, staging_most_calls=100)
    world.calls.answer = lambda _: "yes please"
    pairs = [pair(name) for name in ("a", "b", "c")]
    for name in ("a", "b", "c"):
        world.traffic.add("default", *earlier(20, agent=name))
    how = await world.over(*change(*pairs))
    assert how.state == "passed" and 90 <= len(world.calls.asked) <= 100
    by_agent = [sum(one.agent == name for one in world.calls.asked) for name in ("a", "b", "c")]
    assert max(by_agent) - min(by_agent) <= 4, by_agent
    # Where there is not enough for one round of all, some agents are left out, and it is said.
    world = World(database, staging_most_calls=5)
    world.calls.answer = lambda _: "yes please"
    how = await world.over(*change(*pairs))
    assert len(world.calls.asked) <= 5 and "left out by trials.staging_most_calls" in how.detail, how


async def test_tools_are_answered_for_and_none_is_real(world: World) -> None:
    tools: Any = {"tools": [{"type": "agent", "name": "ask", "agent": "helper"}]}
    scripted = case("s", answers=[{"text": "hi"}], tools=[{"tool": "ask", "output": "said"}])
    both = pair(tests=[case(integration=True, **POLITE), scripted], **tools)
    world.traffic.add("default", *earlier(10))
    world.calls.answer = lambda _: "yes please"
    await world.over(*change(both))
    told = [one.request.trial for one in replayed(world)]
    assert len(told) == 20 and {one.tools for one in told} == {"scripted"}
    assert [(one.output, one.error) for one in told[0].answers] == [("said", None), ("", NOT_RUN)]
    assert {one.request.model for one in replayed(world)} == {"real"}
    assert {one.request.trial.tools for one in world.calls.asked if one.environment in (NEW, LIVE)} == {"real"}


async def test_whoever_was_lost_with_a_host_is_asked_again_alone(world: World) -> None:
    world.traffic.add("default", *earlier(20))
    running, most_alone, dead = 0, 0, 0

    async def answer(ask: Ask) -> Told | str:
        nonlocal running, most_alone, dead
        if ask.environment not in SIDES:
            return "yes please"
        if ask.messages[-1].content == "earlier 3" and ask.environment == REPLAY:
            dead += 1
            return problem("host-failed")
        if dead == 1 and ask.messages[-1].content == "earlier 5" and ask.environment == REPLAY_LIVE:
            dead += 1  # a bystander, once
            return problem("host-failed")
        return "yes please"

    world.calls.answer = answer
    how = await world.over(*change(pair()))
    figures = replays(how)["a"].evidence
    assert (figures["inputs"], figures["errors"], figures["live_errors"]) == (20, 1, 0)
    assert sum(one.messages[-1].content == "earlier 3" for one in replayed(world)) == 2 * 4


async def test_another_process_replays_the_same_by_the_same_keys(world: World) -> None:
    world.traffic.add("default", *earlier(30))
    made = change(pair())
    begun = asyncio.Event()

    async def answer(ask: Ask) -> str:
        if len(replayed(world)) > 5:
            begun.set()
            await asyncio.Event().wait()
        return "yes please" if ask.environment in SIDES else echo(ask) + " please"

    world.calls.answer = answer
    assert (await world.staging.advance(*made)).state == "running"
    await begun.wait()
    await world.staging.aclose()
    assert sorted(await world.open()) == sorted([REPLAY, REPLAY_LIVE])
    keys = {one.key for one in replayed(world)}
    world.calls = FakeCalls(lambda _: "yes please")
    world.staging = world.process(world.calls)
    assert (await world.over(*made)).state == "passed"
    assert keys <= {one.key for one in replayed(world)} and len(replayed(world)) == 40
    assert await world.open() == []


async def test_a_change_that_is_removed_ends_its_replay(world: World) -> None:
    world.traffic.add("default", *earlier(5))
    made = change(pair())

    async def answer(ask: Ask) -> str:
        if ask.environment in SIDES:
            await asyncio.Event().wait()
        return "yes please"

    world.calls.answer = answer
    await world.staging.advance(*made)
    await until(lambda: replayed(world))
    await world.staging.remove(made[0])
    assert world.calls.cancelled and await world.open() == []
