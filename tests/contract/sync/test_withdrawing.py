"""A change request of a commit that the branch has left: it is withdrawn, or what it made live is recorded first."""

import shutil
from contextlib import suppress
from typing import cast

import pytest

from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.sources import SourceStorage
from chimera.bootstrap.sync_parts import ByPolicy
from chimera.delivery import transitions
from chimera.delivery.errors import WrongState
from chimera.delivery.model import Change

from .conftest import ADMIN, NAME, TENANT, Sync, approve, policed
from .test_under_way import Dying, Killed


async def asked(sync: Sync, *names: str, description: str = "Another.") -> Change:
    """A commit that changes these agents, and the change request that waits for it."""
    sync.clock.advance(60)
    sync.commit(sync.repository.agents(*names, description=description))
    state = await sync.look()
    assert (state.phase, state.seen) == ("waiting", sync.repository.git("rev-parse", "HEAD"))
    assert state.change is not None
    return await sync.changes.change(TENANT, state.change)


async def state_of(sync: Sync, change: Change) -> str:
    return (await sync.changes.change(TENANT, change.id)).state


def revert(sync: Sync) -> str:
    sync.repository.git("revert", "--no-edit", "HEAD")
    return sync.repository.git("rev-parse", "HEAD")


async def in_flight(sync: Sync) -> list[str]:
    rows = await sync.changes.page(TENANT, state="in-flight", agent=None, after=None, limit=10)
    return [one.id for one in rows if one.author == f"git:{NAME}"]


async def test_a_reverted_commit_does_not_become_live(strict: Sync) -> None:
    before = await strict.live()
    change = await asked(strict, "ann", "bob")
    commit = revert(strict)
    state = await strict.look()
    assert (state.phase, state.commit, state.change) == ("current", commit, None)
    found = await strict.changes.change(TENANT, change.id)
    assert (found.state, found.reason) == ("superseded", f"the branch is at {commit[:12]}")
    with pytest.raises(WrongState):
        await strict.changes.decide(TENANT, ADMIN, change.id, "approved", content=change.content, comment="")
    assert await strict.live() == before


async def test_a_branch_that_is_reset_to_what_is_live(strict: Sync) -> None:
    change = await asked(strict, "ann", "bob")
    strict.repository.git("reset", "-q", "--hard", "HEAD~1")
    state = await strict.look()
    assert (state.phase, state.commit) == ("current", strict.repository.git("rev-parse", "HEAD"))
    assert (state.reason, state.change, await state_of(strict, change)) == ("", None, "superseded")


async def test_a_newer_commit_that_touches_other_agents(strict: Sync) -> None:
    change = await asked(strict, "bob")
    strict.commit({"agents/bob.yaml": None})
    other = await asked(strict, "cid")
    assert await state_of(strict, change) == "superseded"
    assert other.names == ("cid",)
    assert (await approve(strict, other.id)).state == "done"
    assert (await strict.look()).phase == "current"
    assert set(await strict.live()) == {"ann", "cid"}


async def test_a_newer_commit_that_is_broken(strict: Sync) -> None:
    change = await asked(strict, "bob")
    strict.commit({"agents/bob.yaml": "schema_version: x\n"})
    state = await strict.look()
    assert (state.phase, state.change, await state_of(strict, change)) == ("broken", None, "superseded")
    assert (await strict.look()).phase == "broken"


async def test_a_change_that_the_source_never_heard_of(strict: Sync) -> None:
    strict.commit(strict.repository.agents("bob"))
    with suppress(Killed):
        await strict.look(delivery=ByPolicy(cast(SourceStorage, Dying(strict.store, 1)), strict.changes))
    assert (await strict.source()).state.change is None
    assert len(await in_flight(strict)) == 1
    commit = revert(strict)
    assert (await strict.look()).commit == commit
    assert await in_flight(strict) == []


async def test_a_kill_between_the_steps_is_made_good(strict: Sync) -> None:
    before = await strict.live()
    change = await asked(strict, "ann", "bob")
    commit = revert(strict)
    with suppress(Killed):
        await strict.look(delivery=ByPolicy(cast(SourceStorage, Dying(strict.store, 1)), strict.changes))
    state = (await strict.source()).state
    assert (state.phase, state.change, await state_of(strict, change)) == ("waiting", change.id, "superseded")
    state = await strict.look()
    assert (state.phase, state.commit, state.change) == ("current", commit, None)
    assert await strict.live() == before


async def test_who_lost_the_lease_withdraws_nothing(strict: Sync) -> None:
    change = await asked(strict, "bob")
    revert(strict)
    leases = StoredLeases(strict.database)
    await leases.release(strict.lease)
    assert await leases.acquire(strict.lease.name, "another", 3600.0) is not None
    with pytest.raises(LeaseLost):
        await strict.look()
    assert await in_flight(strict) == [change.id]


async def test_a_tenant_that_takes_direct_changes_again(strict: Sync) -> None:
    change = await asked(strict, "bob")
    policy = (await strict.changes.policy(TENANT)).policy
    await strict.changes.put_policy(TENANT, ADMIN, policed(policy, direct=True), expect=None)
    revert(strict)
    assert (await strict.look()).phase == "current"
    assert await state_of(strict, change) == "superseded"


async def test_a_source_that_is_wanted_otherwise(strict: Sync) -> None:
    change = await asked(strict, "bob")
    await strict.add(path="more")
    state = await strict.look()
    assert state.change not in (None, change.id)
    assert await state_of(strict, change) == "superseded"


async def test_a_look_that_is_asked_for_keeps_the_change(strict: Sync) -> None:
    change = await asked(strict, "bob")
    await strict.confirm()
    state = await strict.look()
    assert (state.phase, state.change) == ("waiting", change.id)
    assert await in_flight(strict) == [change.id]


class TestLive:
    """Production has the change, or some of it, when the branch leaves its commit."""

    async def moving(self, sync: Sync, change: Change) -> Change:
        store = ChangeStorage(sync.database, sync.catalogue, sync.clock)
        return await store.save(change, transitions.roll_out(change, sync.clock.wall()))

    async def done(self, sync: Sync, change: Change) -> None:
        store = ChangeStorage(sync.database, sync.catalogue, sync.clock)
        await store.produce(change, transitions.ended(change, "done", "", sync.clock.wall()), held=None)

    async def is_taken_back(self, sync: Sync, before: dict[str, str]) -> None:
        """All of a commit is live and the branch says what was live before."""
        commit, left = sync.repository.git("rev-parse", "HEAD"), (await sync.source()).state.seen
        state = await sync.look()
        assert (state.phase, state.commit, state.drifted) == ("current", left, 0)
        assert (await sync.source()).due <= sync.clock.wall()
        state = await sync.look()
        assert state.phase == "waiting"
        assert (await approve(sync, state.change)).state == "done"
        state = await sync.look()
        assert (state.phase, state.commit, state.agents, state.drifted) == ("current", commit, 1, 0)
        assert await sync.live() == before

    async def test_the_newer_commit_waits_until_it_is_there(self, strict: Sync) -> None:
        before = await strict.live()
        change = await self.moving(strict, await asked(strict, "ann", "bob"))
        commit = revert(strict)
        for _ in range(2):
            state = await strict.look()
            assert (state.phase, state.change) == ("waiting", change.id)
            assert state.reason.startswith(f"{commit[:12]} waits for the change {change.id} of ")
            assert change.id in state.next_step
        assert await state_of(strict, change) == "rolling-out"
        await self.done(strict, change)
        await self.is_taken_back(strict, before)

    async def test_it_was_there_before_anybody_looked(self, strict: Sync) -> None:
        before = await strict.live()
        change = await asked(strict, "ann", "bob")
        assert (await approve(strict, change.id)).state == "done"
        revert(strict)
        await self.is_taken_back(strict, before)

    async def test_it_is_taken_back_itself(self, strict: Sync) -> None:
        before = await strict.live()
        change = await self.moving(strict, await asked(strict, "ann", "bob"))
        commit = revert(strict)
        assert (await strict.look()).phase == "waiting"
        store = ChangeStorage(strict.database, strict.catalogue, strict.clock)
        await store.save(change, transitions.ended(change, "rolled-back", "worse", strict.clock.wall()))
        state = await strict.look()
        assert (state.phase, state.commit, state.change) == ("current", commit, None)
        assert await strict.live() == before

    async def test_a_branch_that_is_reset_meanwhile_waits_for_a_word(self, strict: Sync) -> None:
        before = await strict.live()
        change = await self.moving(strict, await asked(strict, "ann", "bob"))
        strict.repository.git("reset", "-q", "--hard", "HEAD~1")
        assert (await strict.look()).phase == "waiting"
        await self.done(strict, change)
        assert (await strict.look()).phase == "current"
        state = await strict.look()
        assert (state.phase, state.commit) == ("rewritten", change.commit)
        await strict.confirm(rewrite=state.seen)
        state = await strict.look()
        assert (await approve(strict, state.change)).state == "done"
        assert (await strict.look()).phase == "current"
        assert await strict.live() == before

    async def test_a_change_that_the_source_never_heard_of(self, strict: Sync) -> None:
        strict.commit(strict.repository.agents("ann", description="Another."))
        with suppress(Killed):
            await strict.look(delivery=ByPolicy(cast(SourceStorage, Dying(strict.store, 1)), strict.changes))
        (opened,) = await in_flight(strict)
        before = await strict.live()
        change = await self.moving(strict, await strict.changes.change(TENANT, opened))
        commit = revert(strict)
        assert (await strict.look()).change == opened
        await self.done(strict, change)
        assert await strict.live() != before
        state = await strict.look()
        assert (await approve(strict, state.change)).state == "done"
        state = await strict.look()
        assert (state.phase, state.commit, state.drifted) == ("current", commit, 0)
        assert await strict.live() == before

    async def test_one_that_can_no_longer_be_read_does_not_keep_the_newer_one(self, strict: Sync) -> None:
        before = await strict.live()
        change = await asked(strict, "ann", "bob")
        assert (await approve(strict, change.id)).state == "done"
        strict.repository.git("reset", "-q", "--hard", "HEAD~1")
        strict.commit({"README.md": "x"})
        strict.repository.git("reflog", "expire", "--expire=now", "--all")
        strict.repository.git("gc", "-q", "--prune=now")
        shutil.rmtree(strict.repository.folder.with_name("copies"))
        for _ in range(5):
            assert (await strict.look()).phase == "unreachable"
        state = await strict.look()
        assert state.phase == "waiting"
        change = await approve(strict, state.change)
        assert change.names == ("ann",)
        assert (await strict.live())["ann"] == before["ann"]
