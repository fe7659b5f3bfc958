"""Looks that end early, sources beside each other, and commits that wait for a change request: all or nothing."""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.sources import SourceStorage
from chimera.bootstrap.sync_parts import ByPolicy
from chimera.delivery.git.errors import Unreachable
from chimera.delivery.git.sources import Source
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.settings import DeliverySettings
from chimera.kernel.leases import Lease
from chimera.testing.definitions import compiled, staged

from .conftest import ADMIN, NAME, TENANT, WHO, Sync, approve


class TestUnderWay:
    """Whatever ends a look, nothing is half applied."""

    @pytest.mark.parametrize("step", ["tip", "fetch", "compare", "read"])
    async def test_a_look_that_fails_is_made_again(self, sync: Sync, step: str) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        before = await sync.live()
        commit = sync.commit(sync.repository.agents("ann", "bob", description="Another."))
        sync.repositories.fail[step] = Unreachable("away", next_step="wait")
        state = await sync.look()
        assert (state.phase, state.failures) == ("unreachable", 1)
        assert await sync.live() == before
        state = await sync.look()
        assert (state.phase, state.commit) == ("current", commit)

    @pytest.mark.parametrize("after", range(1, 6))
    async def test_a_kill_at_any_write_leaves_all_or_nothing(self, sync: Sync, after: int) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        before = await sync.live()
        commit = sync.commit(sync.repository.agents("ann", "bob", description="Another."))
        dying = Dying(sync.store, after)
        with suppress(Killed):
            await sync.look(store=dying, delivery=dying)
        live, state = await sync.live(), (await sync.source()).state
        assert (live == before) == (state.commit != commit)
        assert set(live) in ({"ann"}, {"ann", "bob"})
        assert (await sync.look()).commit == commit
        assert set(await sync.live()) == {"ann", "bob"}

    async def test_a_source_that_is_changed_meanwhile_is_not_delivered(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        stale = await sync.source()
        await sync.add(path="elsewhere")
        await sync.follower().follow(stale, sync.lease)
        assert not await sync.live()
        await sync.store.remove(TENANT, NAME, WHO)
        await sync.follower().follow(stale, sync.lease)
        assert not await sync.live()

    async def test_what_is_due_is_looked_at_and_one_that_is_slow_keeps_nobody(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann") | {"more/bob.yaml": sync.repository.agents("bob")["agents/bob.yaml"]})
        await sync.add("slow")
        await sync.add("quick", path="more")
        follower = sync.follower()
        follow, begun, done = follower.follow, asyncio.Event(), asyncio.Event()

        async def following(source: Source, held: Lease) -> None:
            if source.name == "slow":
                begun.set()
                await asyncio.Event().wait()
            await follow(source, held)
            done.set()

        follower.follow = following  # type: ignore[method-assign]
        sync.clock.advance((await sync.source("quick")).due - sync.clock.wall() + 1)
        running = asyncio.create_task(follower.run(sync.lease))
        try:
            async with asyncio.timeout(30):
                await begun.wait()
                await done.wait()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert set(await sync.live()) == {"bob"}
        assert (await sync.source("slow")).state.phase == "new"

    async def test_a_fault_of_our_own_is_one_sources_alone(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        sync.repositories.fail["fetch"] = ZeroDivisionError()
        state = await sync.look()
        assert (state.phase, state.failures) == ("refused", 1)
        assert "ZeroDivisionError" in state.reason
        assert (await sync.look()).phase == "current"


class TestChanges:
    """Where the tenant wants change requests, a commit opens one, and is not live before it is."""

    async def test_a_commit_waits_for_its_change(self, strict: Sync) -> None:
        before = await strict.live()
        commit = strict.commit(strict.repository.agents("ann", "bob", description="Another."), "Do better")
        state = await strict.look()
        assert state.phase == "waiting"
        assert state.change is not None
        change = await strict.changes.change(TENANT, state.change)
        assert (change.title, change.origin, change.commit, change.author) == (
            "Do better",
            "git",
            commit,
            f"git:{NAME}",
        )
        assert "git:ann@example.com" in change.contributors
        assert set(change.names) == {"ann", "bob"}
        assert await strict.live() == before
        assert (await strict.look()).change == state.change
        # What the pipeline does when all is well.
        items = [staged_of for staged_of in await strict.changes._store.revisions(TENANT, change.items)]
        await strict.catalogue.apply(
            TENANT,
            staged(*(one.compiled for one in items if one.compiled is not None)),
            keep_going=False,
            expect=None,
            by="system:delivery",
        )
        await strict.changes.abort(TENANT, ADMIN, change.id, reason="live by hand")
        state = await strict.look()
        assert state.phase == "refused"
        assert "did not become live" in state.reason
        await strict.confirm()
        state = await strict.look()
        assert (state.phase, state.commit) == ("current", commit)

    async def test_a_look_that_ends_when_its_change_is_open_opens_no_other(self, strict: Sync) -> None:
        strict.commit(strict.repository.agents("ann", "bob", description="Another."))
        with suppress(Killed):
            await strict.look(delivery=ByPolicy(cast(SourceStorage, Dying(strict.store, 1)), strict.changes))
        assert (await strict.source()).state.phase == "current"
        (opened,) = await strict.changes.page(TENANT, state=None, agent="bob", after=None, limit=10)
        state = await strict.look()
        assert (state.phase, state.change) == ("waiting", opened.id)
        (found,) = await strict.changes.page(TENANT, state=None, agent="bob", after=None, limit=10)
        assert found.id == opened.id

    async def test_who_lost_the_lease_opens_no_change(self, strict: Sync) -> None:
        strict.commit(strict.repository.agents("ann", "bob", description="Another."))
        leases = StoredLeases(strict.database)
        await leases.release(strict.lease)
        assert await leases.acquire(strict.lease.name, "another", 3600.0) is not None
        with pytest.raises(LeaseLost):
            await strict.look()
        assert await strict.changes.page(TENANT, state=None, agent="bob", after=None, limit=10) == []

    async def test_each_drift_from_the_same_commit_has_a_change_of_its_own(self, strict: Sync) -> None:
        await strict.add(drift="mend")
        before, seen = await strict.live(), set()
        pipeline = Pipeline(
            ChangeStorage(strict.database, strict.catalogue, strict.clock), Parts(), strict.clock, DeliverySettings()
        )
        for turn in range(3):
            strict.clock.advance(60)
            other = staged(compiled("ann", metadata={"description": f"Drift {turn}."}))
            await strict.catalogue.apply(TENANT, other, keep_going=False, expect=None, by="key:eve")
            state = await strict.look()
            assert state.change is not None and state.change not in seen
            seen.add(state.change)
            change = await strict.changes.change(TENANT, state.change)
            await pipeline.settle()
            await strict.changes.decide(TENANT, ADMIN, change.id, "approved", content=change.content, comment="")
            await pipeline.settle()
            assert (await strict.look()).phase == "current"
            assert await strict.live() == before

    async def test_what_a_change_brings_back_is_pinned_again(self, strict: Sync) -> None:
        await strict.add(drift="mend")
        (commit, before) = (await strict.source()).state.commit, await strict.live()
        await strict.catalogue.apply(TENANT, staged(compiled("ann")), keep_going=False, expect=None, by="key:eve")
        state = await strict.look()
        assert (state.phase, state.commit) == ("waiting", commit)
        assert state.change is not None
        change = await strict.changes.change(TENANT, state.change)
        store = ChangeStorage(strict.database, strict.catalogue, strict.clock)
        pipeline = Pipeline(store, Parts(), strict.clock, DeliverySettings())
        await pipeline.settle()
        assert await strict.live() != before
        await strict.changes.decide(TENANT, ADMIN, change.id, "approved", content=change.content, comment="")
        await pipeline.settle()
        state = await strict.look()
        assert (state.phase, state.drifted, state.change) == ("current", 0, None)
        assert await strict.live() == before
        (last, *_) = await strict.catalogue.history(TENANT, "ann")
        assert last.pin is not None and last.pin.commit == commit
        assert (await strict.look()).phase == "current"

    async def test_another_wish_reads_all_of_it(self, strict: Sync) -> None:
        bob = strict.repository.agents("bob")["agents/bob.yaml"]
        strict.commit({"more/bob.yaml": bob, "more/cid.yaml": strict.repository.agents("cid")["agents/cid.yaml"]})
        assert (await strict.look()).phase == "current"
        await strict.add(path="more")
        state = await strict.look()
        assert state.phase == "waiting"
        assert (await approve(strict, state.change)).state == "done"
        assert set(await strict.live()) == {"bob", "cid"}
        state = await strict.look()
        assert (state.phase, state.agents, state.drifted, state.change) == ("current", 2, 0, None)
        assert (await strict.look()).drifted == 0
        strict.commit({"more/cid.yaml": None})
        state = await strict.look()
        assert state.change is not None
        change = await strict.changes.change(TENANT, state.change)
        assert [(item.agent, item.revision) for item in change.items] == [("cid", None)]


class Killed(BaseException):
    """The process ended."""


class Dying:
    """A store and a delivery whose process is killed after so many writes."""

    def __init__(self, real: Any, after: int) -> None:
        self._real, self._left = real, after

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._real, name)
        if name not in ("open_batch", "stage", "put_code", "deliver", "put_state", "record"):
            return step

        async def run(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise Killed
            done = await step(*arguments, **more)
            if self._left == 1:
                self._left = 0
                raise Killed
            return done

        return run
