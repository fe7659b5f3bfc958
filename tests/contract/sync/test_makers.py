"""Who made the commits of a change request can't approve it, however their commits came onto the branch."""

import pytest

from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.delivery.errors import ApprovalRefused
from chimera.delivery.git.sources import SourceState
from chimera.delivery.model import Change
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.service import Asker
from chimera.delivery.settings import DeliverySettings
from chimera.testing.repositories import InlineRepositories

from .conftest import TENANT, Sync, policed

GIT = ("-c", "user.email=bob@example.com", "-c", "user.name=Bob")


def person(name: str) -> Asker:
    return Asker(actor=f"user:https://idp.example|{name}@example.com", roles=frozenset({"approver", "admin"}))


def topic(sync: Sync, branch: str, maker: str, *agents: str, base: str = "HEAD") -> None:
    """A branch with a commit for each agent, all by `maker`."""
    sync.repository.git("switch", "-q", "-c", branch, base)
    for agent in agents:
        sync.repository.write(sync.repository.agents(agent, description=f"By {maker}."))
        sync.repository.git("add", "-A")
        who = ("-c", f"user.email={maker}@example.com", "-c", f"user.name={maker}")
        sync.repository.git(*who, "commit", "-q", "-m", f"{agent} by {maker}")
    sync.repository.git("switch", "-q", "main")


async def opened(sync: Sync, state: SourceState) -> Change:
    assert state.change is not None, state
    pipeline = Pipeline(
        ChangeStorage(sync.database, sync.catalogue, sync.clock), Parts(), sync.clock, DeliverySettings()
    )
    await pipeline.settle()
    return await sync.changes.change(TENANT, state.change)


async def test_who_made_a_merged_branch_cant_approve_it(strict: Sync) -> None:
    topic(strict, "topic", "alice", "bea", "cid")
    strict.repository.git(*GIT, "merge", "-q", "--no-ff", "--no-edit", "topic")
    change = await opened(strict, await strict.look())
    assert set(change.contributors) == {"git:alice@example.com", "git:bob@example.com"}
    for maker in ("alice", "bob"):
        with pytest.raises(ApprovalRefused, match="made this change"):
            await strict.changes.decide(
                TENANT, person(maker), change.id, "approved", content=change.content, comment=""
            )
    await strict.changes.decide(TENANT, person("eve"), change.id, "approved", content=change.content, comment="")


async def test_all_lines_of_a_merge_of_many_count(strict: Sync) -> None:
    topic(strict, "one", "alice", "bea", "cid")
    topic(strict, "two", "carol", "dan")
    topic(strict, "three", "dora", "eli", "fay", "gus")
    strict.repository.git(*GIT, "merge", "-q", "--no-ff", "--no-edit", "one", "two", "three")
    change = await opened(strict, await strict.look())
    assert {one.removeprefix("git:").partition("@")[0] for one in change.contributors} == {
        "alice",
        "bob",
        "carol",
        "dora",
    }


async def test_an_old_line_counts_for_what_is_new_of_it(strict: Sync) -> None:
    topic(strict, "topic", "alice", "bea")
    for _ in range(5):
        strict.commit({})
    await strict.look()
    strict.repository.git(*GIT, "merge", "-q", "--no-ff", "--no-edit", "topic")
    change = await opened(strict, await strict.look())
    assert set(change.contributors) == {"git:alice@example.com", "git:bob@example.com"}


async def test_at_the_first_look_all_who_made_the_branch_count(strict: Sync) -> None:
    topic(strict, "topic", "alice", "bea")
    strict.repository.git(*GIT, "merge", "-q", "--no-ff", "--no-edit", "topic")
    strict.commit({"more/new.yaml": strict.repository.agents("new")["agents/new.yaml"]})
    await strict.add("other", path="more")
    change = await opened(strict, await strict.look("other"))
    assert set(change.contributors) == {f"git:{name}@example.com" for name in ("alice", "ann", "bob")}


async def test_a_history_that_isnt_read_whole_is_not_delivered_by_a_change(strict: Sync) -> None:
    strict.repositories = InlineRepositories(strict.repository.folder.with_name("few"), most_commits=3)
    topic(strict, "topic", "alice", "bea", "cid", "dan", "eli")
    strict.repository.git(*GIT, "merge", "-q", "--no-ff", "--no-edit", "topic")
    state = await strict.look()
    assert state.phase == "refused"
    assert "more than 3 commits are new" in state.reason
    assert "sync.history_commits" in state.next_step
    assert await strict.changes.page(TENANT, state=None, agent="bea", after=None, limit=10) == []
    policy = (await strict.changes.policy(TENANT)).policy
    await strict.changes.put_policy(TENANT, person("eve"), policed(policy, direct=True), expect=None)
    assert (await strict.look()).phase == "current"


async def test_who_made_the_commit_cant_approve_that_it_is_brought_back(strict: Sync) -> None:
    await strict.add(drift="mend")
    await strict.catalogue.delete_agents(TENANT, ["ann"], by="key:eve")
    change = await opened(strict, await strict.look())
    assert change.contributors == ("git:ann@example.com",)
