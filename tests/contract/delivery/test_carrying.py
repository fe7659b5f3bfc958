"""What is known of agents that come from resources and are on their way, or were refused; on both databases."""

from typing import Any

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.carrying import StoredCarriers
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.agents.catalogue import OwnedByResource
from chimera.delivery.carrying import Carried
from chimera.delivery.model import Change
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.rollout.model import Member, Policy, Rollout
from chimera.delivery.rollout.sequential import Objective
from chimera.delivery.rollout.service import LEASE
from chimera.delivery.service import Asker, Changes, Draft
from chimera.delivery.settings import DeliverySettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged

TENANT = "default"
OPERATOR = "system:operator"
BEN = Asker(actor="user:https://idp.example|ben", roles=frozenset({"approver"}))
MINE = {"one": "team/one", "two": "team/two"}


class Rig:
    def __init__(self, database: Database) -> None:
        clock = ManualClock()
        self.catalogue = Catalogue(database, max_hosts=4, clock=clock)
        self.store = ChangeStorage(database, self.catalogue, clock)
        self.changes = Changes(self.store, StoredPeople(database), clock, lambda: None)
        self.pipeline = Pipeline(self.store, Parts(), clock, DeliverySettings())
        self.rollouts = StoredRollouts(database)
        self.leases = StoredLeases(database)
        self.carriers = StoredCarriers(database, OPERATOR)

    async def open(self, *names: str, words: str = "a", by: str = OPERATOR, **draft: Any) -> Change:
        batch = None
        if names:
            batch = await self.catalogue.open_batch(TENANT)
            made = [compiled(name, metadata={"description": words}) for name in names]
            await self.catalogue.stage(TENANT, batch, staged(*made))
        asker = Asker(actor=by, roles=frozenset())
        return await self.changes.open(TENANT, asker, Draft(**{"title": "t", "batch": batch, "owners": MINE, **draft}))

    async def approved(self, change: Change) -> Change:
        await self.pipeline.settle()
        await self.changes.decide(TENANT, BEN, change.id, "approved", content=change.content, comment="")
        await self.pipeline.settle()
        return await self.changes.change(TENANT, change.id)

    async def owners(self) -> dict[str, str | None]:
        return {row["name"]: row["owner"] for row in await self.catalogue.agents(TENANT, {}, "", 100)}


@pytest.fixture
def rig(database: Database) -> Rig:
    return Rig(database)


def told(found: list[Carried]) -> list[tuple[str, str, str, bool]]:
    return sorted((one.agent, one.id, one.state, one.is_refused) for one in found)


async def test_a_change_brings_agents_as_their_resources_own_and_takes_them_out_again(rig: Rig) -> None:
    change = await rig.open("one", "two")
    assert [(one.agent, one.owner) for one in change.items] == [("one", "team/one"), ("two", "team/two")]
    one, _ = await rig.carriers.under_way()
    assert (one.owner, one.before, one.way, one.is_under_way, one.is_moving) == (
        "team/one",
        None,
        "change",
        True,
        False,
    )
    assert (await rig.approved(change)).state == "done"
    assert await rig.owners() == MINE
    assert await rig.carriers.under_way() == []
    gone = await rig.open(remove=("one",))
    assert gone.items[0].owner == "team/one" and gone.items[0].revision is None
    assert (await rig.approved(gone)).state == "done"
    assert await rig.owners() == {"two": "team/two"}


async def test_nobody_elses_change_touches_an_agent_of_a_resource_nor_the_resources_one_of_the_api(rig: Rig) -> None:
    await rig.approved(await rig.open("one"))
    with pytest.raises(OwnedByResource, match="team/one"):
        await rig.open("one", words="b", by="user:me", owners={})
    with pytest.raises(OwnedByResource, match="team/one"):
        await rig.open("one", words="b", owners={"one": "elsewhere/one"})
    await rig.catalogue.apply(TENANT, staged(compiled("two")), keep_going=False, expect=None, by="user:me")
    with pytest.raises(OwnedByResource, match="through the API"):
        await rig.open("two", words="b")


async def test_what_was_refused_is_known_by_agent_the_newest_first(rig: Rig) -> None:
    first = await rig.open("one", "two")
    await rig.pipeline.settle()
    await rig.changes.decide(TENANT, BEN, first.id, "rejected", content=first.content, comment="no")
    second = await rig.open("one", words="b")
    assert told(await rig.carriers.under_way()) == [("one", second.id, "open", False)]
    found = await rig.carriers.ended(TENANT, ["one", "nobody"])
    assert told(found) == [("one", first.id, "rejected", True)] and "no" in found[0].reason
    third = await rig.open("one", words="c", supersede=True)
    assert [(one.id, one.state, one.is_refused) for one in await rig.carriers.ended(TENANT, ["one"])] == [
        (second.id, "superseded", False),
        (first.id, "rejected", True),
    ]
    assert [one.id for one in await rig.carriers.under_way()] == [third.id]
    await rig.open("two", words="z", by="user:me", owners={})
    assert [one.id for one in await rig.carriers.under_way()] == [third.id], "other people's changes are no matter"


async def test_a_rollout_of_a_resource_is_known_with_its_members(rig: Rig) -> None:
    policy = Policy()
    one = Rollout(
        id="rollout_1",
        tenant=TENANT,
        title="t",
        by=OPERATOR,
        policy=policy,
        waves=1,
        agents=2,
        created=5.0,
        updated=5.0,
        resource="team/all",
        attempt=3,
        content="sha256:c",
    )
    members = [
        Member(
            agent=name, revision=f"sha256:{name}", before=None, group="g", wave=0, objective=Objective(), owner=owner
        )
        for name, owner in MINE.items()
    ]
    await rig.rollouts.create(one, members)
    assert (await rig.rollouts.create(replace(one, id="rollout_2"), members)).id == "rollout_1"
    found = await rig.carriers.under_way()
    assert [(c.agent, c.owner, c.resource, c.attempt, c.is_moving) for c in found] == [
        ("one", "team/one", "team/all", 3, True),
        ("two", "team/two", "team/all", 3, True),
    ]
    held = await rig.leases.acquire(LEASE, "me", 60.0)
    assert held is not None
    over = [replace(members[0], phase="done"), replace(members[1], phase="rolled-back")]
    await rig.rollouts.save(replace(one, state="done", ended=9.0), over, told=("done",), lost=(), held=held)
    assert await rig.carriers.under_way() == []
    assert told(await rig.carriers.ended(TENANT, ["one", "two"])) == [
        ("one", "rollout_1", "done", False),
        ("two", "rollout_1", "done", True),
    ]
    assert [s.rollout.id for s in await rig.rollouts.of_resources([(TENANT, "team/all"), (TENANT, "x/y")])] == [
        "rollout_1"
    ]
