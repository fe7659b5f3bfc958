"""Opening a change again after a lost answer, and by somebody whose lease is another's: on both databases."""

import asyncio

import pytest

from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.delivery.errors import ChangeConflicts
from chimera.delivery.service import Draft

from .conftest import ANNA, TENANT, Delivery, better, plain

LEAVE = Draft(title="A change", remove=("one",))


async def test_a_change_that_is_asked_for_again_with_its_key_is_the_same_one(delivery: Delivery) -> None:
    await delivery.apply(plain("one"), plain("two"))
    first = await delivery.changes.open(TENANT, ANNA, LEAVE, key="k1")
    assert await delivery.changes.open(TENANT, ANNA, LEAVE, key="k1") == first
    with pytest.raises(ChangeConflicts, match=first.id):
        await delivery.changes.open(TENANT, ANNA, LEAVE, key="k2")
    assert await delivery.facts() == ["change.opened"]
    await delivery.approve(await delivery.now(first))
    await delivery.settle()
    assert (await delivery.live("one"), (await delivery.now(first)).state) == (None, "done")
    again = await delivery.changes.open(TENANT, ANNA, LEAVE, key="k1")
    assert (again.id, again.state) == (first.id, "done"), "though nothing would be left to do"
    other = await delivery.changes.open(TENANT, ANNA, Draft(title="Another", remove=("two",)), key="k2")
    assert other.id != first.id, "what was refused has no key"
    batch = await delivery.batch(better("three"))
    assert (await delivery.changes.open(TENANT, ANNA, Draft(title="", batch=batch), key="k2")).id == other.id


async def test_of_two_that_ask_at_once_with_one_key_both_get_the_same(delivery: Delivery) -> None:
    await delivery.apply(plain("one"))
    found = await asyncio.gather(*(delivery.changes.open(TENANT, ANNA, LEAVE, key="k1") for _ in range(4)))
    assert len({one.id for one in found}) == 1
    assert await delivery.facts() == ["change.opened"]


async def test_who_lost_the_lease_opens_no_change_and_gives_none_up(delivery: Delivery) -> None:
    leases = StoredLeases(delivery.database)
    old = await leases.acquire("operator", "old", 60.0)
    assert old is not None
    await leases.release(old)
    new = await leases.acquire("operator", "new", 60.0)
    assert new is not None
    batch = await delivery.batch(plain("one"))
    with pytest.raises(LeaseLost):
        await delivery.changes.open(TENANT, ANNA, Draft(title="Late", batch=batch), held=old)
    assert await delivery.facts() == []
    made = await delivery.changes.open(TENANT, ANNA, Draft(title="In time", batch=batch), held=new)
    assert made.state == "open", "the batch is as it was"
    with pytest.raises(LeaseLost):
        await delivery.changes.abort(TENANT, ANNA, made.id, "late", held=old)
    assert (await delivery.now(made)).state == "open"
    assert (await delivery.changes.abort(TENANT, ANNA, made.id, "in time", held=new)).state == "aborted"
