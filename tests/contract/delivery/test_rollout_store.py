"""Where rollouts are kept: what a leader writes, what people want, and who of them is refused; in memory and stored."""

import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.agents.catalogue import ChangedMeanwhile
from chimera.delivery.rollout.errors import RolloutConflict, RolloutState, UnknownRollout
from chimera.delivery.rollout.model import Member, Policy, Rollout
from chimera.delivery.rollout.sequential import Counts, Evidence, Objective
from chimera.delivery.rollout.service import LEASE
from chimera.kernel.leases import Lease, Leases
from chimera.testing.clock import ManualClock
from chimera.testing.leases import MemoryLeases
from chimera.testing.rollouts import MemoryRolloutStore

TENANT = "default"


class Kept:
    def __init__(self, store: Any, leases: Leases) -> None:
        self.store = store
        self.leases = leases

    async def held(self, owner: str = "me") -> Lease:
        got = await self.leases.acquire(LEASE, owner, 1_000.0)
        assert got is not None
        return got


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if request.param == "memory":
        clock = ManualClock()
        leases = MemoryLeases(clock)
        yield Kept(MemoryRolloutStore(clock, leases), leases)
        return
    database: Database = request.getfixturevalue(f"{request.param}_database")
    yield Kept(StoredRollouts(database), StoredLeases(database))


@pytest.fixture
def sqlite_database(migrated_file: Any, tmp_path: Any) -> Iterator[Database]:
    file = tmp_path / "chimera.db"
    shutil.copy(migrated_file, file)
    database = open_database(file)
    yield database
    database.close()


@pytest.fixture
def postgresql_database(postgresql_server: Any) -> Iterator[Database]:
    url = postgresql_server.new_database()
    database = open_database(url)
    yield database
    database.close()
    postgresql_server.drop_database(url)


def rollout(name: str = "ro-1", **fields: Any) -> Rollout:
    told = {
        "id": name,
        "tenant": TENANT,
        "title": "another model",
        "by": "user:ann",
        "policy": Policy(canary=2, steps=(5.0, 100.0)),
        "waves": 2,
        "agents": 3,
        "created": 10.0,
        "updated": 10.0,
        "change": f"chg-{name}",
        "content": "sha256:c",
        "through": 4,
        **fields,
    }
    return Rollout(**told)


def members(*agents: str) -> list[Member]:
    return [
        Member(
            agent=agent,
            revision=f"sha256:{agent}-2",
            before=f"sha256:{agent}-1",
            group="same",
            wave=int(agent != "anna"),
            objective=Objective(0.001, 0.05, 2.5),
            cases="passed",
            since=10.0,
        )
        for agent in agents
    ]


async def test_what_is_created_is_there_as_it_was(kept: Kept) -> None:
    made, its = rollout(), members("anna", "bert", "carl")
    assert await kept.store.create(made, its) == made
    found = await kept.store.get(TENANT, "ro-1")
    assert (found.rollout, found.phases, found.strengths) == (made, {"pending": 3}, {})
    assert await kept.store.members(TENANT, "ro-1") == its
    assert await kept.store.members(TENANT, "ro-1", 0, 1) == its[1:2]
    assert [one.id for one in await kept.store.active()] == ["ro-1"]
    with pytest.raises(UnknownRollout):
        await kept.store.get("other", "ro-1")


async def test_a_change_has_one_rollout_of_a_content(kept: Kept) -> None:
    first = await kept.store.create(rollout(), members("anna"))
    again = await kept.store.create(rollout("ro-2", change="chg-ro-1"), members("anna"))
    assert again == first
    found = await kept.store.of_change(TENANT, "chg-ro-1", "sha256:c")
    assert found is not None and found.rollout.id == "ro-1"
    assert await kept.store.of_change(TENANT, "chg-ro-1", "sha256:other") is None


async def test_a_resource_has_one_rollout_of_an_attempt_and_content(kept: Kept) -> None:
    resource = {"change": None, "resource": "team/all", "attempt": 0}
    first = await kept.store.create(rollout(**resource), members("anna"))
    assert await kept.store.create(rollout("ro-2", **resource), members("anna")) == first
    with pytest.raises(RolloutConflict):
        await kept.store.create(rollout("ro-2", **{**resource, "attempt": 1}), members("anna"))
    await kept.store.create(rollout("ro-3", **{**resource, "resource": "team/other"}), members("bert"))
    await kept.store.create(rollout("ro-4", **resource, content="sha256:d"), members("carl"))
    found = await kept.store.of_resources([(TENANT, "team/all"), (TENANT, "team/other"), ("other", "team/all")])
    assert sorted(one.rollout.id for one in found) == ["ro-3", "ro-4"], "the newest of each"
    assert await kept.store.of_resources([]) == []
    assert await kept.store.counts() == {"running": 3}
    over = [replace(one, phase="done") for one in members("anna")]
    ended = rollout(**resource, state="done", ended=20.0)
    await kept.store.save(ended, over, told=("done",), lost=(), held=await kept.held())
    anew = await kept.store.create(rollout("ro-5", **resource), members("anna"))
    assert anew.id == "ro-5", "what was live once may be wanted again"


async def test_an_agent_is_in_one_rollout_until_that_is_over(kept: Kept) -> None:
    await kept.store.create(rollout(), members("anna", "bert"))
    with pytest.raises(RolloutConflict, match="bert"):
        await kept.store.create(rollout("ro-2"), members("bert", "carl"))
    await kept.store.create(rollout("ro-3", tenant="other"), members("bert"))
    over = [replace(one, phase="rolled-back") for one in members("anna", "bert")]
    ended = rollout(state="aborted", ended=20.0)
    await kept.store.save(ended, over, told=("aborted",), lost=(), held=await kept.held())
    await kept.store.create(rollout("ro-2"), members("bert", "carl"))
    assert {one.id for one in await kept.store.active()} == {"ro-2", "ro-3"}


async def test_a_pass_is_kept_whole_and_what_people_want_stays(kept: Kept) -> None:
    await kept.store.create(rollout(), members("anna", "bert"))
    await kept.store.ask(TENANT, "ro-1", "pause", by="user:bob", reason="lunch")
    evidence = Evidence(green=Counts(7, 1, 2, 3), failing=(1.5, -0.25, 0.0, 3.0, -7.0), pace=4)
    moved = replace(
        members("anna")[0],
        phase="waiting",
        step=1,
        since=30.0,
        doubted=True,
        strength="proven",
        reason="well",
        evidence=evidence,
    )
    passed = rollout(state="paused", wave=1, through=9, reason="paused by user:bob: lunch")
    await kept.store.save(passed, [moved], told=("paused",), lost=(), held=await kept.held())
    found = await kept.store.get(TENANT, "ro-1")
    assert (found.rollout.wanted, found.rollout.asked_by, found.rollout.asked) == ("pause", "user:bob", "lunch")
    assert (found.rollout.state, found.rollout.wave, found.rollout.through) == ("paused", 1, 9)
    assert (found.phases, found.strengths, found.moved) == ({"waiting": 1, "pending": 1}, {"proven": 1}, 1)
    assert await kept.store.members(TENANT, "ro-1") == [moved, *members("bert")]


@pytest.mark.parametrize("wanted", ["abort", "pause"])
async def test_what_people_have_stopped_is_not_made_live_by_a_pass_that_began_before(kept: Kept, wanted: Any) -> None:
    """They were told that it stops; the pass had read that it goes on."""
    await kept.store.create(rollout(), members("anna"))
    await kept.store.ask(TENANT, "ro-1", wanted, by="user:bob", reason="")
    moved = [replace(members("anna")[0], phase="promoting")]
    with pytest.raises(ChangedMeanwhile):
        await kept.store.save(rollout(state="promoting"), moved, told=("promoting",), lost=(), held=await kept.held())
    assert (await kept.store.get(TENANT, "ro-1")).rollout.state == "running"
    assert await kept.store.members(TENANT, "ro-1") == members("anna")


async def test_a_late_leader_writes_nothing(kept: Kept) -> None:
    await kept.store.create(rollout(), members("anna"))
    late = await kept.held()
    await kept.leases.release(late)
    await kept.held("other")
    moved = [replace(members("anna")[0], phase="loading")]
    with pytest.raises(LeaseLost):
        await kept.store.save(rollout(wave=1), moved, told=("wave",), lost=(), held=late)
    assert (await kept.store.get(TENANT, "ro-1")).rollout == rollout()
    assert await kept.store.members(TENANT, "ro-1") == members("anna")
    with pytest.raises(LeaseLost):
        await kept.store.ask(TENANT, "ro-1", "abort", by="system:operator", reason="", held=late)
    assert (await kept.store.get(TENANT, "ro-1")).rollout == rollout()


@pytest.mark.parametrize("state", ["promoting", "rolling-back", "done", "rolled-back", "aborted"])
async def test_nobody_asks_for_anything_where_it_is_too_late(kept: Kept, state: Any) -> None:
    await kept.store.create(rollout(state=state), members("anna"))
    for wanted in ("run", "pause", "abort"):
        with pytest.raises(RolloutState):
            await kept.store.ask(TENANT, "ro-1", wanted, by="user:bob", reason="")


async def test_who_aborts_is_not_overruled(kept: Kept) -> None:
    await kept.store.create(rollout(), members("anna"))
    await kept.store.ask(TENANT, "ro-1", "abort", by="user:bob", reason="")
    with pytest.raises(RolloutState):
        await kept.store.ask(TENANT, "ro-1", "run", by="user:cem", reason="")
    with pytest.raises(UnknownRollout):
        await kept.store.ask(TENANT, "ro-2", "abort", by="user:cem", reason="")


async def test_a_list_is_paged_the_newest_first(kept: Kept) -> None:
    for number in range(5):
        await kept.store.create(rollout(f"ro-{number}"), members(f"a{number}"))
    first = await kept.store.page(TENANT, "", 3)
    assert [one.rollout.id for one in first] == ["ro-4", "ro-3", "ro-2"]
    assert [one.rollout.id for one in await kept.store.page(TENANT, "ro-2", 3)] == ["ro-1", "ro-0"]
