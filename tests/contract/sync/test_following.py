"""Following a branch: what a commit says is live, what it breaks is not, and the state says which and why."""

import asyncio
import shutil
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.delivery.git.errors import MalformedObject, Unreachable
from chimera.delivery.git.sources import Source
from chimera.delivery.policy import DeliveryPolicy
from chimera.delivery.service import Asker
from chimera.kernel.leases import Lease
from chimera.testing.definitions import compiled, staged

from .conftest import NAME, TENANT, WHO, Sync

ADMIN = Asker(actor="user:https://idp.example|ada", roles=frozenset({"admin"}))


async def test_what_is_committed_is_live(sync: Sync) -> None:
    first = sync.commit(sync.repository.agents("ann", "bob"), "Begin")
    await sync.add()
    state = await sync.look()
    assert (state.phase, state.commit, state.agents, state.subject) == ("current", first, 2, "Begin")
    assert set(await sync.live()) == {"ann", "bob"}
    second = sync.commit(sync.repository.agents("bob", description="Answers better.") | {"agents/ann.yaml": None})
    state = await sync.look()
    assert (state.commit, state.agents, state.removals) == (second, 1, 1)
    assert set(await sync.live()) == {"bob"}
    assert sync.delivered == 2
    assert (await sync.facts()).count("source.changed") == 2


async def test_a_commit_reads_what_it_changes_alone(sync: Sync) -> None:
    names = [f"agent-{number:02d}" for number in range(40)]
    sync.commit(sync.repository.agents(*names))
    await sync.add()
    await sync.look()
    assert len(sync.repositories.read_files) == 40
    sync.repositories.read_files.clear()
    sync.commit(
        sync.repository.agents("agent-07", description="Another.") | {"README.md": "x", "agents/notes.txt": "y"}
    )
    state = await sync.look()
    assert sync.repositories.read_files == ["agents/agent-07.yaml"]
    assert (state.phase, state.agents) == ("current", 40)


async def test_each_revision_is_pinned_to_its_commit(sync: Sync) -> None:
    first = sync.commit(sync.repository.agents("ann", "bob"))
    await sync.add()
    await sync.look()
    second = sync.commit(sync.repository.agents("bob", description="Answers better."))
    await sync.look()
    pins = {name: [entry.pin for entry in await sync.catalogue.history(TENANT, name)] for name in ("ann", "bob")}
    assert [pin.commit for pin in pins["ann"] if pin] == [first]
    assert [pin.commit for pin in pins["bob"] if pin] == [second, first]
    assert pins["ann"][0] is not None and pins["ann"][0].repository == sync.repository.url
    row = await sync.catalogue.agent(TENANT, "bob")
    assert row is not None
    pin = await sync.catalogue.pin(TENANT, "bob", row["sequence"])
    assert pin is not None and (pin.commit, pin.source) == (second, NAME)
    await sync.catalogue.apply(TENANT, staged(compiled("bob")), keep_going=False, expect=None, by=WHO)
    assert (await sync.catalogue.history(TENANT, "bob"))[0].pin is None


async def test_an_agent_that_moves_to_another_file_stays(sync: Sync) -> None:
    sync.commit(sync.repository.agents("ann"))
    await sync.add()
    await sync.look()
    text = sync.repository.agents("ann")["agents/ann.yaml"]
    sync.commit({"agents/ann.yaml": None, "agents/team/ann.yaml": text})
    state = await sync.look()
    assert (state.phase, state.agents, state.removals) == ("current", 1, 0)
    assert len(await sync.catalogue.history(TENANT, "ann")) == 1


async def test_code_of_an_agent_is_part_of_it(sync: Sync) -> None:
    definition = (sync.repository.agents("tool")["agents/tool.yaml"] or "") + (
        "specification: {source: code}\ntools: [{name: run, type: function, function: 'tool:run'}]\n"
    )
    sync.commit({"agents/tool.yaml": definition, "agents/code/tool.py": "def run() -> str:\n    return 'a'\n"})
    await sync.add()
    assert (await sync.look()).phase == "current"
    before = await sync.live()
    sync.commit({"agents/code/tool.py": "def run() -> str:\n    return 'b'\n"})
    assert (await sync.look()).phase == "current"
    assert (await sync.live())["tool"] != before["tool"]
    sync.commit({"agents/code/tool.py": None})
    state = await sync.look()
    assert state.phase == "broken"
    assert "no source folder" in state.faults[0]


class TestBroken:
    """A commit that breaks some of its definitions."""

    async def test_nothing_of_it_is_applied(self, sync: Sync) -> None:
        good = sync.commit(sync.repository.agents("ann", "bob", "cid", "dan"))
        await sync.add()
        await sync.look()
        before = await sync.live()
        bad = sync.commit(
            {"agents/ann.yaml": "schema_version: x\n", "agents/bob.yaml": "schema_version: [", "agents/dan.yaml": None}
            | sync.repository.agents("cid", "eve", description="Answers better.")
        )
        state = await sync.look()
        assert (state.phase, state.commit, state.seen) == ("broken", good, bad)
        assert {fault.partition(":")[0] for fault in state.faults} == {"agents/ann.yaml", "agents/bob.yaml"}
        assert state.next_step
        assert await sync.live() == before
        sync.repositories.read_files.clear()
        assert (await sync.look()).phase == "broken"
        assert not sync.repositories.read_files
        sync.commit(sync.repository.agents("ann", "bob", description="Mended."))
        assert (await sync.look()).phase == "current"
        assert set(await sync.live()) == {"ann", "bob", "cid", "eve"}

    async def test_the_last_good_commit_is_gone_back_to(self, sync: Sync) -> None:
        good = sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        sync.commit({"agents/ann.yaml": "schema_version: x\n"})
        assert (await sync.look()).phase == "broken"
        sync.repository.git("revert", "--no-edit", "HEAD")
        state = await sync.look()
        assert (state.phase, state.faults) == ("current", ())
        assert state.commit != good

    async def test_an_agent_is_defined_once(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        sync.commit({"agents/other.yaml": sync.repository.agents("ann")["agents/ann.yaml"]})
        state = await sync.look()
        assert state.phase == "refused"
        assert "the agent ann is also defined in agents/ann.yaml" in state.reason

    async def test_an_agent_has_one_source(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann") | {"more/ann.yaml": sync.repository.agents("ann")["agents/ann.yaml"]})
        await sync.add()
        await sync.look()
        await sync.add("other", path="more")
        state = await sync.look("other")
        assert state.phase == "refused"
        assert f"belongs to the source {NAME}" in state.reason
        await sync.store.remove(TENANT, NAME, WHO)
        assert (await sync.look("other")).phase == "current"
        assert set(await sync.live()) == {"ann"}


class TestPruning:
    """Removals have a limit."""

    @pytest.fixture
    async def many(self, sync: Sync) -> Sync:
        sync.commit(sync.repository.agents(*(f"agent-{number:02d}" for number in range(20))))
        await sync.add()
        await sync.look()
        return sync

    def remove(self, sync: Sync, count: int) -> str:
        return sync.commit({f"agents/agent-{number:02d}.yaml": None for number in range(count)})

    async def test_too_many_wait_for_a_word(self, many: Sync) -> None:
        before = await many.live()
        commit = self.remove(many, 8)
        state = await many.look()
        assert (state.phase, state.removals) == ("held", 8)
        assert f"--allow-prune {commit}" in state.next_step
        assert await many.live() == before
        many.repositories.fail["fetch"] = AssertionError("it is not read again")
        assert (await many.look()).phase == "held"
        many.repositories.fail.clear()
        await many.confirm(prune="0" * 40)
        assert (await many.look()).phase == "held"
        await many.confirm(prune=commit)
        state = await many.look()
        assert (state.phase, state.removals, state.agents) == ("current", 8, 12)
        assert len(await many.live()) == 12

    async def test_a_word_counts_for_its_commit_alone(self, many: Sync) -> None:
        await many.confirm(prune=self.remove(many, 8))
        many.commit({"agents/agent-19.yaml": None})
        assert (await many.look()).phase == "held"

    async def test_a_folder_that_is_gone_takes_nothing_unasked(self, many: Sync) -> None:
        many.repository.git("mv", "agents", "elsewhere")
        many.commit({})
        assert (await many.look()).phase == "held"
        assert len(await many.live()) == 20

    async def test_few_are_taken_for_meant(self, many: Sync) -> None:
        self.remove(many, 4)
        assert (await many.look()).phase == "current"
        assert len(await many.live()) == 16

    async def test_without_pruning_they_stay(self, many: Sync) -> None:
        await many.add(prune=False)
        self.remove(many, 8)
        state = await many.look()
        assert (state.phase, state.agents, state.removals) == ("current", 12, 0)
        assert len(await many.live()) == 20


class TestDrift:
    """Agents that somebody changed beside the repository."""

    async def changed(self, sync: Sync, **spec: Any) -> dict[str, str]:
        sync.commit(sync.repository.agents("ann", "bob", "cid"))
        await sync.add(**spec)
        await sync.look()
        assert (await sync.look()).drifted == 0
        before = await sync.live()
        await sync.catalogue.apply(TENANT, staged(compiled("ann")), keep_going=False, expect=None, by="key:eve")
        await sync.catalogue.delete_agents(TENANT, ["bob"], by="key:eve")
        return before

    async def test_it_is_reported_with_who_did_it(self, sync: Sync) -> None:
        before = await self.changed(sync)
        state = await sync.look()
        assert (state.phase, state.drifted) == ("current", 2)
        assert {(one.agent, one.by) for one in state.drift} == {("ann", "key:eve"), ("bob", "key:eve")}
        assert [one.live for one in state.drift if one.agent == "bob"] == [None]
        assert "2 agents are not as" in state.reason
        assert await sync.live() != before

    async def test_it_is_mended_where_that_is_wanted(self, sync: Sync) -> None:
        before = await self.changed(sync, drift="mend")
        sync.repositories.read_files.clear()
        state = await sync.look()
        assert (state.phase, state.drifted, state.agents) == ("current", 0, 3)
        assert await sync.live() == before
        assert sorted(sync.repositories.read_files) == ["agents/ann.yaml", "agents/bob.yaml"]
        assert (await sync.look()).drifted == 0


class TestRepository:
    """What becomes of the repository itself."""

    async def test_a_rewritten_branch_waits_for_a_word(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        base = sync.commit(sync.repository.agents("bob"))
        await sync.add()
        await sync.look()
        before = await sync.live()
        sync.repository.git("reset", "-q", "--hard", "HEAD~1")
        other = sync.commit(sync.repository.agents("ann", description="Another past."))
        state = await sync.look()
        assert (state.phase, state.commit, state.seen) == ("rewritten", base, other)
        assert f"--allow-rewrite {other}" in state.next_step
        assert await sync.live() == before
        await sync.confirm(rewrite=other)
        state = await sync.look()
        assert (state.phase, state.commit) == ("current", other)
        assert set(await sync.live()) == {"ann"}

    async def test_a_merge_goes_forward(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        sync.repository.git("switch", "-q", "-c", "topic", "HEAD")
        sync.commit(sync.repository.agents("bob"))
        sync.repository.git("switch", "-q", "main")
        sync.commit(sync.repository.agents("cid"))
        sync.repository.git("merge", "-q", "--no-edit", "topic")
        assert (await sync.look()).phase == "current"
        assert set(await sync.live()) == {"ann", "bob", "cid"}

    async def test_one_that_vanished_is_looked_for_less_and_less(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add(interval=10.0)
        await sync.look()
        hidden = sync.repository.folder.with_name("hidden")
        sync.repository.folder.rename(hidden)
        waits = []
        for _ in range(4):
            state = await sync.look()
            assert state.phase == "unreachable"
            waits.append((await sync.source()).due - sync.clock.wall())
        assert waits == [20.0, 40.0, 80.0, 160.0]
        assert set(await sync.live()) == {"ann"}
        hidden.rename(sync.repository.folder)
        state = await sync.look()
        assert (state.phase, state.failures, state.reason) == ("current", 0, "")

    async def test_a_branch_that_is_gone_takes_nothing_away(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        sync.repository.git("branch", "-m", "other")
        state = await sync.look()
        assert state.phase == "unreachable"
        assert "no branch 'main'" in state.reason
        assert set(await sync.live()) == {"ann"}

    async def test_a_copy_that_is_lost_is_made_anew(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        shutil.rmtree(sync.repository.folder.with_name("copies"))
        sync.commit(sync.repository.agents("bob"))
        sync.repositories.read_files.clear()
        assert (await sync.look()).phase == "current"
        assert sync.repositories.read_files == ["agents/bob.yaml"]

    async def test_a_damaged_copy_is_made_anew_once(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        sync.repositories.fail["read"] = MalformedObject("damaged", next_step="x")
        assert (await sync.look()).phase == "unreadable"
        assert (await sync.look()).phase == "current"

    async def test_objects_that_are_damaged_there_are_not_read_again(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        sync.commit(sync.repository.agents("bob"))
        blob = sync.repository.git("rev-parse", "HEAD:agents/bob.yaml")
        file = sync.repository.folder / ".git/objects" / blob[:2] / blob[2:]
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:20])
        phases = {(await sync.look()).phase for _ in range(3)}
        assert phases <= {"unreadable", "unreachable"}
        assert set(await sync.live()) == {"ann"}

    @pytest.mark.parametrize("kind", ["link", "submodule", "folder"])
    async def test_what_leads_elsewhere_is_not_followed(self, sync: Sync, kind: str) -> None:
        good = sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        if kind == "link":
            (sync.repository.folder / "agents/out.yaml").symlink_to("../../secret.yaml")
            sync.commit({})
        elif kind == "submodule":
            sync.repository.git("update-index", "--add", "--cacheinfo", f"160000,{good},agents/sub.yaml")
            sync.repository.git("commit", "-q", "-m", "Odd")
        else:
            sync.repository.git("mv", "agents", "real")
            (sync.repository.folder / "agents").symlink_to("real")
            sync.commit({})
        state = await sync.look()
        assert (state.phase, state.commit) == ("unreadable", good)
        assert "link" in state.reason or "submodule" in state.reason
        assert set(await sync.live()) == {"ann"}

    async def test_another_wish_reads_all_of_it(self, sync: Sync) -> None:
        sync.commit(sync.repository.agents("ann") | {"more/bob.yaml": sync.repository.agents("bob")["agents/bob.yaml"]})
        await sync.add()
        await sync.look()
        await sync.add(path="more")
        assert (await sync.look()).phase == "current"
        assert set(await sync.live()) == {"bob"}
        await sync.add(path="")
        assert (await sync.look()).agents == 2


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

    @pytest.fixture
    async def strict(self, sync: Sync) -> Sync:
        sync.commit(sync.repository.agents("ann"))
        await sync.add()
        await sync.look()
        policy = (await sync.changes.policy(TENANT)).policy
        await sync.changes.put_policy(TENANT, ADMIN, replaced(policy), expect=None)
        return sync

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


def replaced(policy: DeliveryPolicy) -> DeliveryPolicy:
    return replace(policy, direct=False)
