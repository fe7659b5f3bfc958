"""A change from its opening to its end, on both databases, without any part installed: approvals, and all at once."""

import asyncio

import pytest

from chimera.agents.catalogue import BatchHasFaults, ChangedMeanwhile, UnknownBatch
from chimera.delivery.errors import (
    ApprovalRefused,
    ChangeConflicts,
    DirectRefused,
    InvalidDeliveryPolicy,
    NoChange,
    OutOfReach,
    UnknownChange,
    WrongState,
)
from chimera.delivery.policy import ApprovalRule, Approvals, DeliveryPolicy, Freeze
from chimera.testing.definitions import compiled, refused

from .conftest import ADMIN, ANNA, BEN, CARA, TENANT, Delivery, asker, better, plain

SEARCH = {"type": "agent", "name": "search", "agent": "searcher"}


async def test_a_change_waits_for_somebody_else_and_then_is_live_as_a_whole(delivery: Delivery) -> None:
    await delivery.apply(plain("one"), plain("two"), plain("old"))
    change = await delivery.open(better("one"), better("two"), plain("new"), remove=("old", "never"))
    assert (change.state, change.risk, change.names) == ("open", "medium", ("new", "old", "one", "two"))
    await delivery.settle()
    waiting = await delivery.now(change)
    assert waiting.state == "awaiting-approval"
    assert "approver or admin" in waiting.reason
    assert await delivery.live("one") == plain("one").digest
    with pytest.raises(ApprovalRefused, match="nobody approves their own"):
        await delivery.approve(change, ANNA)
    await delivery.approve(change)
    await delivery.settle()
    assert (await delivery.now(change)).state == "done"
    assert [await delivery.live(name) for name in ("one", "two", "new", "old")] == [
        better("one").digest,
        better("two").digest,
        plain("new").digest,
        None,
    ]
    assert await delivery.facts() == [
        *("change.opened", "change.building", "change.built", "change.approved"),
        *("change.rolling-out", "change.done"),
    ]
    for fact in ("change.opened", "change.approved", "change.done", "agent.deleted"):
        assert await delivery.audited(fact) == 1
    history = await delivery.catalogue.history(TENANT, "one")
    assert history[0].by == ANNA.actor


async def test_opening_twice_opens_once(delivery: Delivery) -> None:
    batch = await delivery.batch(plain("one"))
    first = await delivery.open(batch=batch)
    again = await delivery.open(batch=batch)
    assert again == first
    assert await delivery.facts() == ["change.opened"]
    with pytest.raises(UnknownBatch):
        await delivery.open(batch="batch_never")


async def test_what_is_live_already_is_no_change(delivery: Delivery) -> None:
    await delivery.apply(plain("one"))
    with pytest.raises(NoChange):
        await delivery.open(plain("one"))
    with pytest.raises(NoChange):
        await delivery.open(remove=("never",))
    with pytest.raises(NoChange, match="both"):
        await delivery.open(better("one"), remove=("one",))


async def test_a_commit_that_breaks_some_definitions_opens_nothing(delivery: Delivery) -> None:
    batch = await delivery.batch(plain("one"))
    await delivery.catalogue.stage(TENANT, batch, [refused(1)])
    with pytest.raises(BatchHasFaults):
        await delivery.open(batch=batch)
    assert await delivery.facts() == []


async def test_high_risk_needs_two_people(delivery: Delivery) -> None:
    change = await delivery.open(compiled("one", tools=[SEARCH], data_class="personal"))
    assert change.risk == "high"
    await delivery.approve(change, BEN)
    await delivery.approve(change, BEN)
    await delivery.settle()
    assert (await delivery.now(change)).state == "awaiting-approval"
    await delivery.approve(change, CARA)
    await delivery.settle()
    assert (await delivery.now(change)).state == "done"


async def test_two_who_approve_at_once_are_both_heard(delivery: Delivery) -> None:
    change = await delivery.open(compiled("one", data_class="personal"))
    await asyncio.gather(delivery.approve(change, BEN), delivery.approve(change, CARA), delivery.settle())
    await delivery.settle()
    found = await delivery.now(change)
    assert (found.state, {one.by for one in found.approvals}) == ("done", {BEN.actor, CARA.actor})


async def test_approvals_end_with_the_content(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    batch = await delivery.batch(better("one"))
    amended = await delivery.changes.amend(TENANT, CARA, change.id, batch=batch, remove=())
    assert (amended.state, amended.content == change.content) == ("open", False)
    await delivery.settle()
    assert (await delivery.now(change)).state == "awaiting-approval"
    with pytest.raises(WrongState, match="another content"):
        await delivery.approve(amended, content=change.content)
    with pytest.raises(ApprovalRefused, match="nobody approves their own"):
        await delivery.approve(amended, CARA)  # who amended it made it too
    await delivery.approve(amended)
    await delivery.settle()
    assert await delivery.live("one") == better("one").digest
    assert await delivery.catalogue.canonical(TENANT, plain("one").digest) is None, "nothing names it any more"


async def test_a_rejected_change_rests_until_it_is_another(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    await delivery.changes.decide(TENANT, BEN, change.id, "rejected", content=change.content, comment="no tests")
    resting = await delivery.now(change)
    assert (resting.state, resting.reason) == ("rejected", f"rejected by {BEN.actor}: no tests")
    with pytest.raises(WrongState):
        await delivery.approve(change)
    with pytest.raises(NoChange, match="was rejected with this very content"):
        await delivery.changes.amend(TENANT, ANNA, change.id, batch=await delivery.batch(plain("one")), remove=())
    await delivery.changes.amend(TENANT, ANNA, change.id, batch=await delivery.batch(better("one")), remove=())
    await delivery.settle()
    assert (await delivery.now(change)).state == "awaiting-approval"


async def test_two_open_changes_of_one_agent(delivery: Delivery) -> None:
    first = await delivery.open(plain("one"), plain("two"))
    with pytest.raises(ChangeConflicts, match=first.id):
        await delivery.open(better("two"))
    with pytest.raises(ChangeConflicts):
        await delivery.open(better("two"), by=CARA, supersede=True)
    second = await delivery.open(better("two"), supersede=True)
    assert (await delivery.now(first)).state == "superseded"
    assert second.id in (await delivery.now(first)).reason
    other = await delivery.open(plain("three"))
    with pytest.raises(ChangeConflicts):
        await delivery.changes.amend(
            TENANT, ANNA, other.id, batch=await delivery.batch(plain("three"), plain("two")), remove=()
        )
    assert (await delivery.now(other)).names == ("three",), "nothing of what was refused stays"


async def test_of_two_that_are_opened_at_once_one_is_refused(delivery: Delivery) -> None:
    batches = [await delivery.batch(plain("one")), await delivery.batch(better("one"))]
    found = await asyncio.gather(*(delivery.open(batch=batch) for batch in batches), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["Change", "ChangeConflicts"]


async def test_agents_that_were_changed_meanwhile_end_a_change(delivery: Delivery) -> None:
    await delivery.apply(plain("one"), plain("two"))
    change = await delivery.open(better("one"), better("two"))
    await delivery.settle()
    await delivery.apply(better("two", 3))
    await delivery.settle()
    found = await delivery.now(change)
    assert found.state == "superseded"
    assert "two" in found.reason and found.next_step
    assert await delivery.live("one") == plain("one").digest


async def test_what_became_live_by_another_way_ends_a_change(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    await delivery.apply(plain("one"))
    await delivery.settle()
    assert (await delivery.now(change)).state == "superseded"


async def test_a_freeze_holds_and_an_emergency_passes_it(delivery: Delivery) -> None:
    frozen = Freeze(name="always", days=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), starts="00:00", ends="00:00")
    await delivery.changes.put_freeze(TENANT, ADMIN, frozen)
    first, second = await delivery.open(plain("one")), await delivery.open(plain("two"))
    for change in (first, second):
        await delivery.approve(change)
    await delivery.settle()
    waiting = await delivery.now(first)
    assert waiting.state == "awaiting-approval"
    assert "freeze always" in waiting.reason
    with pytest.raises(ApprovalRefused, match="role admin"):
        await delivery.changes.declare_emergency(TENANT, ANNA, first.id, "customers get wrong answers")
    with pytest.raises(ApprovalRefused, match="reason"):
        await delivery.changes.declare_emergency(TENANT, ADMIN, first.id, "broken")
    await delivery.changes.declare_emergency(TENANT, ADMIN, first.id, "customers get wrong answers")
    await delivery.settle()
    assert [(await delivery.now(one)).state for one in (first, second)] == ["done", "awaiting-approval"]
    await delivery.changes.drop_freeze(TENANT, ADMIN, "always")
    await delivery.settle()
    assert (await delivery.now(second)).state == "done"


async def test_an_emergency_is_looked_at_by_somebody_else(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"), by=ADMIN, emergency="customers get wrong answers")
    await delivery.settle()
    assert (await delivery.now(change)).state == "done"
    rows = await delivery.changes.page(TENANT, state=None, agent=None, after=None, limit=5)
    assert [row.review for row in rows] == ["due"]
    delivery.clock.advance(73 * 3_600)
    rows = await delivery.changes.page(TENANT, state="done", agent="one", after=None, limit=5)
    assert [row.review for row in rows] == ["overdue"]
    with pytest.raises(ApprovalRefused):
        await delivery.changes.review(TENANT, ADMIN, change.id, "approved", "it was right")
    with pytest.raises(ApprovalRefused, match="role"):
        await delivery.changes.review(TENANT, ANNA, change.id, "approved", "it was right")
    await delivery.changes.review(TENANT, BEN, change.id, "approved", "it was right")
    with pytest.raises(WrongState):
        await delivery.changes.review(TENANT, CARA, change.id, "rejected", "it was not")
    rows = await delivery.changes.page(TENANT, state=None, agent=None, after=None, limit=5)
    assert [row.review for row in rows] == ["done"]
    assert await delivery.audited("change.emergency") == 0
    assert await delivery.audited("change.reviewed") == 1


async def test_nobody_approves_what_they_dont(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    with pytest.raises(ApprovalRefused, match="role"):
        await delivery.approve(change, asker("olga", "operator"))
    with pytest.raises(OutOfReach):
        await delivery.approve(change, asker("ben", "approver", agents=frozenset({"two"})))
    with pytest.raises(UnknownChange):
        await delivery.changes.abort(TENANT, ANNA, "chg_never", "")
    with pytest.raises(OutOfReach):
        await delivery.open(plain("two"), by=asker("anna", "operator", agents=frozenset({"one"})))


async def test_an_approval_that_nobody_gives(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    await delivery.settle()
    delivery.clock.advance(31 * 86_400)
    await delivery.settle()
    found = await delivery.now(change)
    assert (found.state, found.reason) == ("aborted", "nobody approved it within 30 days")


async def test_abort_before_anything_is_live(delivery: Delivery) -> None:
    change = await delivery.open(plain("one"))
    await delivery.changes.abort(TENANT, CARA, change.id, "not needed")
    await delivery.settle()
    assert (await delivery.now(change)).state == "aborted"
    assert await delivery.live("one") is None
    with pytest.raises(WrongState):
        await delivery.changes.abort(TENANT, CARA, change.id, "")
    await delivery.open(plain("one"))  # nothing is in its way any more


async def test_policies_are_versioned_and_say_whether_apply_is_direct(delivery: Delivery) -> None:
    stored = await delivery.changes.policy(TENANT)
    assert (stored.version, stored.policy) == (0, DeliveryPolicy())
    await delivery.changes.check_direct(TENANT)
    nobody = DeliveryPolicy(direct=False, approvals=Approvals(low=ApprovalRule(needs=())))
    assert (await delivery.changes.put_policy(TENANT, ADMIN, nobody, expect=0)).version == 1
    with pytest.raises(ChangedMeanwhile):
        await delivery.changes.put_policy(TENANT, ADMIN, nobody, expect=0)
    with pytest.raises(DirectRefused):
        await delivery.changes.check_direct(TENANT)
    await delivery.changes.check_direct("other")
    twice = Freeze(name="x", starts="2026-01-01T00:00", ends="2026-01-02T00:00")
    with pytest.raises(InvalidDeliveryPolicy):
        await delivery.changes.put_policy(TENANT, ADMIN, DeliveryPolicy(freezes=(twice, twice)), expect=1)
    assert await delivery.facts("delivery.") == ["delivery.changed"]
    await delivery.apply(plain("one"))
    change = await delivery.open(better("one"))
    await delivery.settle()
    assert ((await delivery.now(change)).risk, (await delivery.now(change)).state) == ("low", "done")


async def test_the_list_is_paged_newest_first(delivery: Delivery) -> None:
    made = [(await delivery.open(plain(f"agent-{number}"))).id for number in range(3)]
    first = await delivery.changes.page(TENANT, state="in-flight", agent=None, after=None, limit=2)
    rest = await delivery.changes.page(TENANT, state="in-flight", agent=None, after=first[-1].id, limit=2)
    assert [row.id for row in (*first, *rest)] == sorted(made, reverse=True)
    found = await delivery.changes.page(TENANT, state=None, agent="agent-1", after=None, limit=9)
    assert [row.agents for row in found] == [1]
