"""Agents that may not go live at once: by change requests where the tenant says so, by Rollouts that govern them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from chimera.adapters.storage.leases import LeaseLost
from chimera.adapters.substrates.knative.resources.kinds import ROLLOUTS
from chimera.testing.definitions import compiled, staged


async def quietly(rig: Any) -> Counter[tuple[str, str]]:
    """The calls of the API server, after a while in which none was made."""
    await rig.quiet()
    calls = Counter(rig.cluster.calls)
    await asyncio.sleep(20 * rig.settings.poll)
    assert rig.cluster.calls == calls, "no call, but the watches that are open"
    return calls


def overtaken(rig: Any, monkeypatch: Any, service: Any, name: str) -> Callable[[], Any]:
    """Have another take the operator's lease over as it calls a service next.

    Awaiting what is returned waits until that call was refused, and returns what lets an operator go on.
    """
    asking, refused = getattr(service, name), asyncio.Event()
    other: list[Any] = []

    async def late(*asked: Any, held: Any, **more: Any) -> Any:
        monkeypatch.setattr(service, name, asking)
        await rig.leases.release(held)
        other.append(await rig.leases.acquire("operator", "other", 60.0))
        try:
            return await asking(*asked, held=held, **more)
        except LeaseLost:
            refused.set()
            raise

    async def refusal() -> Callable[[], Any]:
        await asyncio.wait_for(refused.wait(), 20.0)
        return lambda: rig.leases.release(other[0])

    monkeypatch.setattr(service, name, late)
    return refusal


# -- by change requests ------------------------------------------------------------------------------------------------


async def test_where_no_direct_changes_are_taken_a_change_carries_what_resources_want(rig: Any) -> None:
    await rig.apply("one")
    before = (await rig.phase("one", "Live"))["revision"]
    await rig.only_changes()
    await rig.apply("one", metadata={"description": "Changed."})
    await rig.apply("two")
    told = await rig.phase("one", "Changing")
    assert (await rig.phase("two", "Changing"))["change"] == told["change"], "one change of both"
    assert list(await rig.changes()) == [told["change"]] and told["revision"] == before, "nothing of it is live"
    condition = rig.condition("one", kind="Delivered")
    assert (condition["status"], condition["reason"]) == ("False", "Changing")
    assert told["change"] in condition["message"] and "stays in service" in condition["message"]
    await quietly(rig)

    await rig.again()
    await rig.quiet()
    assert list(await rig.changes()) == [told["change"]], "another operator finds it"
    await rig.decide(told["change"])
    await rig.phase("one", "Live")
    live = await rig.phase("two", "Live")
    assert "change" not in live and rig.condition("two", kind="Delivered") is None
    assert await rig.owners() == {"one": "team/one", "two": "team/two"}
    assert (await rig.catalogue.agent("default", "one"))["description"] == "Changed."


async def test_an_agent_whose_resource_goes_stays_until_the_change_is_through(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    await rig.only_changes()
    await rig.delete("one")

    async def opened() -> bool:
        return len(await rig.changes()) == 1

    await rig.until(opened)
    await rig.quiet()
    assert await rig.owners() == {"one": "team/one"}
    (change,) = await rig.changes()
    await rig.decide(change)

    async def gone() -> bool:
        return await rig.owners() == {}

    await rig.until(gone)


async def test_an_agent_that_may_not_go_though_its_resource_did_is_counted(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    await rig.only_changes()
    await rig.delete("one")

    async def opened() -> bool:
        return len(await rig.changes()) == 1

    await rig.until(opened)
    assert rig.operator.agents.staying == frozenset(), "nobody has refused it yet"
    (change,) = await rig.changes()
    await rig.decide(change, "rejected")
    await rig.until(lambda: rig.operator.agents.staying == {("default", "one")})
    assert await rig.owners() == {"one": "team/one"}
    await rig.apply("one")
    await rig.until(lambda: rig.operator.agents.staying == frozenset())


async def test_an_agent_that_changes_all_the_time_holds_up_no_other_for_ever(make: Callable[..., Any]) -> None:
    rig = make(gather=0.5)
    rig.start()
    await rig.only_changes()

    async def change() -> None:
        for number in count():
            await rig.apply("restless", metadata={"description": f"The {number}."})
            await asyncio.sleep(0.1)

    changing = asyncio.create_task(change())
    try:
        await rig.apply("one")
        await rig.phase("one", "Changing")
    finally:
        changing.cancel()


async def test_what_was_applied_at_once_is_not_remembered(rig: Any) -> None:
    for number in range(3):
        await rig.apply(f"agent-{number}")
        await rig.phase(f"agent-{number}", "Live")
    await rig.quiet()
    assert rig.operator.agents._deliveries._refused == {}


async def test_what_was_rejected_waits_for_another_definition(rig: Any) -> None:
    await rig.only_changes()
    await rig.apply("one")
    first = (await rig.phase("one", "Changing"))["change"]
    await rig.decide(first, "rejected")
    told = await rig.phase("one", "Refused")
    assert told["change"] == first and "rejected" in rig.condition("one", kind="Delivered")["message"]
    await rig.again()
    await quietly(rig)
    assert list(await rig.changes()) == [first], "it isn't tried again by itself"
    await rig.apply("one", metadata={"description": "Better."})
    second = (await rig.phase("one", "Changing"))["change"]
    assert second != first
    await rig.apply("one", metadata={"description": "Better still."})
    await rig.until(lambda: rig.status("one").get("change") not in (first, second))
    third = rig.status("one")["change"]
    assert await rig.changes() == {first: "rejected", second: "aborted", third: "open"}
    await rig.apply("one", metadata={"description": "Better."})
    await rig.until(lambda: rig.status("one").get("change") not in (first, second, third))
    assert rig.status("one")["phase"] == "Changing", "what was given up was refused by nobody"


async def test_what_was_rejected_before_the_operator_looked_again_is_not_tried_again_either(
    rig: Any, monkeypatch: Any
) -> None:
    opening = rig.delivery.changes.open

    async def at_once(*asked: Any, **more: Any) -> Any:
        made = await opening(*asked, **more)
        await rig.decide(made.id, "rejected")
        return made

    monkeypatch.setattr(rig.delivery.changes, "open", at_once)
    await rig.only_changes()
    await rig.apply("one")
    await rig.phase("one", "Refused")
    await rig.quiet()
    assert list((await rig.changes()).values()) == ["rejected"]


async def test_what_ended_is_asked_again_only_where_something_ended(rig: Any, monkeypatch: Any) -> None:
    asking, asked = rig.delivery.carriers.ended, Counter[str]()

    async def counted(tenant: str, agents: Any) -> Any:
        asked.update(agents)
        return await asking(tenant, agents)

    monkeypatch.setattr(rig.delivery.carriers, "ended", counted)
    await rig.only_changes()
    await rig.apply("one")
    change = (await rig.phase("one", "Changing"))["change"]
    await rig.quiet()
    before = asked["one"]
    await rig.apply("two")
    other = (await rig.phase("two", "Changing"))["change"]
    await rig.quiet()
    assert other != change and asked["one"] == before
    await rig.decide(other, "rejected")
    await rig.phase("two", "Refused")
    assert asked["one"] > before


async def test_a_change_that_nobody_wants_any_more_is_given_up_and_one_of_many_makes_room(rig: Any) -> None:
    await rig.only_changes()
    await rig.apply("one")
    await rig.apply("two")
    both = (await rig.phase("one", "Changing"))["change"]
    await rig.phase("two", "Changing")
    await rig.delete("two")
    await rig.until(lambda: rig.status("one").get("change") not in ("", both))
    rest = rig.status("one")["change"]
    assert await rig.changes() == {both: "superseded", rest: "open"}
    await rig.delete("one")

    async def given_up() -> bool:
        return (await rig.changes())[rest] == "aborted"

    await rig.until(given_up)


async def test_an_agent_of_the_api_is_told_so_and_holds_up_no_other(rig: Any) -> None:
    await rig.catalogue.apply("default", staged(compiled("one")), keep_going=False, expect=None, by="user:me")
    await rig.only_changes()
    await rig.apply("one", metadata={"description": "Mine."})
    await rig.apply("two")
    await rig.phase("one", "Conflict")
    await rig.phase("two", "Changing")


async def test_an_operator_that_was_paused_beyond_its_lease_opens_no_change_and_gives_none_up(
    rig: Any, monkeypatch: Any
) -> None:
    await rig.only_changes()
    refusal = overtaken(rig, monkeypatch, rig.delivery.changes, "open")
    await rig.apply("one")
    resume = await refusal()
    assert await rig.changes() == {}
    await resume()
    told = await rig.phase("one", "Changing")
    assert list(await rig.changes()) == [told["change"]]

    refusal = overtaken(rig, monkeypatch, rig.delivery.changes, "abort")
    await rig.delete("one")
    resume = await refusal()
    assert await rig.changes() == {told["change"]: "open"}
    await resume()

    async def given_up() -> bool:
        return await rig.changes() == {told["change"]: "aborted"}

    await rig.until(given_up)


# -- by Rollouts -------------------------------------------------------------------------------------------------------


async def test_a_rollout_brings_what_its_agents_want_and_says_how_it_is(make: Callable[..., Any]) -> None:
    rig = make()
    rig.start()
    await rig.apply("apart")
    await rig.apply("one")
    before = (await rig.phase("one", "Live"))["revision"]
    await rig.govern("careful", agents={"names": ["one", "two"]}, policy={"bake_seconds": 1.0})
    await rig.phase("careful", "Idle", plural="rollouts")
    await rig.apply("one", metadata={"description": "Changed."})
    await rig.apply("two")
    await rig.apply("apart", metadata={"description": "At once."})
    told = await rig.phase("one", "RollingOut")
    assert told["revision"] == before and told["rollout"].startswith("rollout_")
    await rig.until(lambda: rig.status("apart")["observedGeneration"] == 2 and rig.status("apart")["phase"] == "Live")
    status = await rig.phase("careful", "Running", plural="rollouts")
    assert (status["rollout"], status["agents"], status["selected"]) == (told["rollout"], 2, 2)
    assert rig.condition("careful", plural="rollouts")["status"] == "False"

    await rig.again()
    await rig.quiet()
    assert len(await rig.delivery.rollouts.page("default", "", 10)) == 1, "another operator begins no other"
    await rig.roll()
    done = await rig.phase("careful", "Done", plural="rollouts")
    assert rig.condition("careful", plural="rollouts")["status"] == "True" and done["endedAt"]
    await rig.phase("one", "Live")
    await rig.phase("two", "Live")
    assert await rig.owners() == {"apart": "team/apart", "one": "team/one", "two": "team/two"}
    assert (await rig.catalogue.agent("default", "one"))["description"] == "Changed."
    calls = await quietly(rig)
    assert calls["GET", "rollouts"] == 2 and calls["WATCH", "rollouts"] == 2, "one watch for each of two operators"


async def test_a_paused_rollout_begins_nothing_and_an_aborted_one_is_tried_again_when_told(rig: Any) -> None:
    await rig.govern("careful", state="Paused")
    await rig.apply("one")
    await rig.phase("one", "Held")
    held = await rig.phase("careful", "Held", plural="rollouts")
    assert held["waiting"] == 1 and rig.condition("careful", kind="Stalled", plural="rollouts")["status"] == "True"
    await rig.govern("careful", state="Running")
    await rig.phase("one", "RollingOut")
    first = (await rig.phase("careful", "Running", plural="rollouts"))["rollout"]
    await rig.govern("careful", state="Aborted")
    await rig.roll()
    await rig.phase("careful", "Aborted", plural="rollouts")
    told = await rig.phase("one", "Refused")
    assert "spec.attempt" in rig.condition("one", kind="Delivered")["message"] and told["rollout"] == first
    await rig.govern("careful", state="Running")
    await rig.quiet()
    assert rig.status("one")["phase"] == "Refused" and await rig.owners() == {}
    await rig.govern("careful", state="Running", attempt=1)
    await rig.phase("one", "Live")
    assert len(await rig.delivery.rollouts.page("default", "", 10)) == 2


async def test_a_rollout_that_is_deleted_leaves_what_it_began(rig: Any) -> None:
    await rig.govern("careful")
    await rig.apply("one")
    begun = (await rig.phase("one", "RollingOut"))["rollout"]
    await rig.api.delete(ROLLOUTS, "team", "careful")
    await rig.quiet()
    assert rig.status("one")["phase"] == "RollingOut" and await rig.owners() == {}
    (one,) = await rig.delivery.rollouts.page("default", "", 10)
    assert (one.rollout.id, one.rollout.wanted) == (begun, "run")
    await rig.roll()
    await rig.phase("one", "Live")


async def test_a_rollout_that_nobody_wants_any_more_is_aborted(rig: Any) -> None:
    await rig.govern("careful")
    await rig.apply("one")
    begun = (await rig.phase("one", "RollingOut"))["rollout"]
    await rig.delete("one")

    async def given_up() -> bool:
        return (await rig.delivery.rollouts.get("default", begun)).rollout.wanted == "abort"

    await rig.until(given_up)


@pytest.mark.parametrize("by", ["change", "rollout"])
async def test_an_agent_that_changes_while_it_is_delivered_holds_up_none_of_those_that_go_with_it(
    rig: Any, monkeypatch: Any, by: str
) -> None:
    opening = rig.catalogue.open_batch

    async def late(tenant: str) -> str:
        monkeypatch.setattr(rig.catalogue, "open_batch", opening)
        await rig.apply("two", metadata={"description": "Changed."})
        await rig.until(lambda: rig.operator.agents.agents.objects["team", "two"].metadata.generation == 2)
        return str(await opening(tenant))

    if by == "change":
        await rig.only_changes()
    else:
        await rig.govern("careful")
        await rig.phase("careful", "Idle", plural="rollouts")
    monkeypatch.setattr(rig.catalogue, "open_batch", late)
    await rig.apply("one")
    await rig.apply("two")
    await rig.phase("one", "Changing" if by == "change" else "RollingOut")
    assert rig.status("two").get(by, "") != rig.status("one")[by]


async def test_what_was_rolled_out_once_or_given_up_is_rolled_out_again_when_it_is_wanted_again(rig: Any) -> None:
    await rig.apply("one", metadata={"description": "First."})
    await rig.phase("one", "Live")
    await rig.govern("careful")
    await rig.apply("one", metadata={"description": "Given up."})
    given_up = (await rig.phase("one", "RollingOut"))["rollout"]
    await rig.apply("one", metadata={"description": "First."})
    await rig.roll()
    await rig.phase("one", "Live")
    begun = [given_up]
    for words in ("Given up.", "First.", "Given up."):
        await rig.apply("one", metadata={"description": words})
        await rig.until(lambda: rig.status("one").get("rollout") not in (None, "", *begun))
        begun.append(rig.status("one")["rollout"])
        await rig.phase("one", "Live")
        assert (await rig.catalogue.agent("default", "one"))["description"] == words
    assert len(await rig.delivery.rollouts.page("default", "", 10)) == 4


@pytest.mark.parametrize("state", ["Paused", "Running"])
async def test_an_operator_that_was_paused_beyond_its_lease_asks_no_rollout_for_anything(
    rig: Any, monkeypatch: Any, state: str
) -> None:
    """Neither by `spec.state` nor since nobody wants it any more."""
    await rig.govern("careful")
    await rig.apply("one")
    begun = (await rig.phase("one", "RollingOut"))["rollout"]

    async def wanted() -> str:
        return str((await rig.delivery.rollouts.get("default", begun)).rollout.wanted)

    refusal = overtaken(rig, monkeypatch, rig.delivery.rollouts, "ask")
    if state == "Paused":
        await rig.govern("careful", state=state)
    else:
        await rig.delete("one")
    resume = await refusal()
    assert await wanted() == "run"
    await resume()

    async def asked() -> bool:
        return await wanted() == ("pause" if state == "Paused" else "abort")

    await rig.until(asked)


@pytest.mark.parametrize("spec", [{"policy": {"canary": 0}}, {"policy": {"nothing": 1}}])
async def test_a_policy_that_is_not_valid_holds_its_agents_and_says_why(rig: Any, spec: dict[str, Any]) -> None:
    await rig.govern("careful", **spec)
    await rig.phase("careful", "Invalid", plural="rollouts")
    assert "policy: " in rig.condition("careful", plural="rollouts")["message"]
    await rig.apply("one")
    await rig.phase("one", "Held")
    assert await rig.owners() == {}


async def test_where_no_direct_changes_are_taken_a_rollout_has_no_part_and_says_so(rig: Any) -> None:
    await rig.only_changes()
    await rig.govern("careful")
    await rig.apply("one")
    await rig.phase("one", "Changing")
    await rig.phase("careful", "ByChanges", plural="rollouts")
