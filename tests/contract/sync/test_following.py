"""Following a branch: what a commit says is live, what it breaks is not, and the state says which and why."""

import shutil
from typing import Any

import pytest

from chimera.delivery.git.errors import MalformedObject
from chimera.testing.definitions import compiled, staged

from .conftest import NAME, TENANT, WHO, Sync


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
