"""The last stages: words that are missing after staging, rollouts that people stop, and who is told of it."""

import pytest
from sqlalchemy import select

from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.schema.journal import audit_entry
from chimera.adapters.storage.sides.store import SideStorage
from chimera.delivery.pipeline import LEASE
from chimera.delivery.policy import ApprovalRule, Approvals, DeliveryPolicy, Need
from chimera.delivery.rollout.changes import ChangeRollouts
from chimera.delivery.rollout.model import Policy
from chimera.delivery.rollout.service import RolloutService
from chimera.testing.delivery import FakeRollouts, FakeStaging

from .conftest import ADMIN, ANNA, CARA, TENANT, Delivery, plain
from .test_pipeline import through


async def actors(delivery: Delivery, action: str) -> list[str]:
    query = select(audit_entry.c.actor).where(audit_entry.c.action == action).order_by(audit_entry.c.seq)
    return list(await delivery.database.read(lambda connection: connection.execute(query).scalars().all()))


async def test_what_a_rollout_does_by_itself_is_told_of_nobody_who_asked_before(delivery: Delivery) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts()
    change = await delivery.open(*(plain(f"agent-{number}") for number in range(9)))
    await delivery.approve(change)
    await through(delivery, change, 1)
    await delivery.changes.want(TENANT, ANNA, change.id, "pause", "looks odd")
    await through(delivery, change, 2)
    await delivery.changes.want(TENANT, ANNA, change.id, "go", "")
    await through(delivery, change, 1)
    rollouts.rollouts[change.id].state = "rolled-back"
    assert (await through(delivery, change, 1)).state == "rolled-back"
    assert await actors(delivery, "change.paused") == [ANNA.actor]
    assert await actors(delivery, "change.rolled-back") == ["system:pipeline"]


async def test_who_lets_a_rollout_go_on_before_it_has_come_to_rest_is_heard(delivery: Delivery) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts()
    change = await delivery.open(*(plain(f"agent-{number}") for number in range(9)))
    await delivery.approve(change)
    await through(delivery, change, 1)
    await delivery.changes.want(TENANT, ANNA, change.id, "pause", "looks odd")
    await delivery.settle()  # it is told to pause, and nobody has looked whether it does
    await delivery.changes.want(TENANT, ANNA, change.id, "go", "")
    found = await through(delivery, change, 2)
    assert (found.state, found.wanted, rollouts.asked) == ("rolling-out", "go", ["pause", "resume"])


async def test_a_pipeline_that_comes_late_begins_no_rollout(delivery: Delivery) -> None:
    """Another has taken over between its last look and the beginning, and may have ended the change."""
    leases = StoredLeases(delivery.database)
    late = await leases.acquire(LEASE, "me", 1_000.0)
    assert late is not None
    store = StoredRollouts(delivery.database)
    sides = SideStorage(delivery.database, max_hosts=4, clock=delivery.clock)
    rollouts = ChangeRollouts(RolloutService(store, sides, store, Policy()))
    change = await delivery.open(plain("one"))
    await leases.release(late)
    assert await leases.acquire(LEASE, "other", 1_000.0) is not None
    with pytest.raises(LeaseLost):
        await rollouts.start(change, held=late)
    assert await rollouts.look(change) is None


async def test_a_policy_that_became_stricter_while_a_change_was_staged_is_met_by_more_words(delivery: Delivery) -> None:
    delivery.parts.staging = FakeStaging()
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    await delivery.settle()
    assert (await delivery.now(change)).state == "staging"
    two = ApprovalRule(needs=(Need(count=2),))
    stricter = DeliveryPolicy(approvals=Approvals(low=two, medium=two, high=two))
    await delivery.changes.put_policy(TENANT, ADMIN, stricter, expect=None)
    waiting = await through(delivery, change, 3)
    assert (waiting.state, "waits for approval" in waiting.reason) == ("staging", True)
    await delivery.approve(change, CARA)
    assert (await through(delivery, change, 3)).state == "done"


async def test_what_was_staged_and_is_not_approved_in_time_is_given_up(delivery: Delivery) -> None:
    delivery.parts.staging = FakeStaging()
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    await delivery.settle()
    two = ApprovalRule(needs=(Need(count=2),))
    await delivery.changes.put_policy(
        TENANT, ADMIN, DeliveryPolicy(approvals=Approvals(low=two, medium=two)), expect=None
    )
    await through(delivery, change, 3)
    delivery.clock.advance(31 * 86_400)
    assert (await through(delivery, change, 2)).state == "aborted"
    assert delivery.parts.staging.removed == [change.id]
