"""A rollout on a database, whose leader is killed before and after each of its writes: the next one comes to its end.

Sides, rollouts, leases and the catalogue are the real ones. A kill after an effect is one after its commit. That
nothing is left of a transaction without one, the tests of storage see to by `kill -9`.
"""

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import func, select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.schema.catalogue import history
from chimera.adapters.storage.schema.journal import event
from chimera.adapters.storage.sides.store import SideStorage
from chimera.delivery.rollout.model import ENDED, Item, Policy, Summary
from chimera.delivery.rollout.service import LEASE, RolloutService
from chimera.delivery.sides.model import Seen
from chimera.delivery.sides.rules import BUCKETS
from chimera.gateway.sides.ports import Loads, Noticed
from chimera.kernel.leases import Lease
from chimera.testing.definitions import compiled, staged
from chimera.testing.rollout_world import Deadly, Killed, Killer

TENANT = "default"
AGENTS = ("anna", "carl")
AT_ONCE = Policy(canary=1, waves=(), steps=(20.0, 60.0), step_seconds=0, bake_seconds=0, longest_bake=0, least_calls=5)


class Stored:
    """Agents on a database, rolled out again and again."""

    def __init__(self, database: Database, bad: bool) -> None:
        self.catalogue = Catalogue(database, max_hosts=7)
        self.sides: Any = SideStorage(database, max_hosts=7)
        self.store: Any = StoredRollouts(database)
        self.leases = StoredLeases(database)
        self.database = database
        self.bad = bad
        self.killer = Killer()
        self.turn = 0
        self.leaders = 0

    async def prepare(self) -> list[Item]:
        """Other agents each time, so that no run finds what one before has left."""
        self.turn += 1
        names = [f"{name}-{self.turn}" for name in AGENTS]
        old = [compiled(name) for name in names]
        new = [compiled(name, model={"temperature": 0.5}) for name in names]
        await self.catalogue.apply(TENANT, staged(*old), keep_going=False, expect=None, by=None)
        batch = await self.catalogue.open_batch(TENANT)
        await self.catalogue.stage(TENANT, batch, staged(*new))
        pairs = zip(names, old, new, strict=True)
        return [Item(agent=name, revision=later.digest, before=first.digest) for name, first, later in pairs]

    async def lead(self) -> tuple[RolloutService, Lease]:
        self.leaders += 1
        before = await self.leases.acquire(LEASE, f"cp-{self.leaders - 1}", 1_000.0)
        if before is not None:
            await self.leases.release(before)
        held = await self.leases.acquire(LEASE, f"cp-{self.leaders}", 1_000.0)
        assert held is not None
        store: Any = Deadly(self.store, self.killer)
        sides: Any = Deadly(self.sides, self.killer)
        return RolloutService(store, sides, self.store, AT_ONCE), held

    async def run(self, at: int) -> tuple[Summary, list[Item]]:
        """A rollout to its end, with the leader killed at an effect."""
        items = await self.prepare()
        told = {"title": "", "by": "user:ann", "change": f"chg-{self.turn}", "content": "c"}
        service, held = await self.lead()
        rollout = (await service.start(TENANT, items, **told)).rollout.id
        self.killer = Killer(at=at)
        service, held = await self.lead()
        for _ in range(40):
            found: Summary = await self.store.get(TENANT, rollout)
            if found.rollout.state in ENDED:
                return found, items
            await self.serve(items, rollout, held)
            try:
                await service.round(held)
            except Killed:
                service, held = await self.lead()
        raise AssertionError(found)

    async def serve(self, items: list[Item], rollout: str, held: Lease) -> None:
        """A gateway loads green sides, and tells of calls on them."""
        standing = await self.sides.look(TENANT, [one.agent for one in items])
        green = {one.agent: standing[one.agent] for one in items if standing[one.agent].green is not None}
        loads = [
            Loads(tenant=TENANT, agent=agent, revision=how.green, wanted=1, holding=1, problem=None)
            for agent, how in green.items()
            if not how.loaded
        ]
        if loads:
            await self.sides.loaded(loads, held=held)
        fails = {agent: self.bad and agent.startswith("carl") for agent in green}
        noticed = [
            Noticed(tenant=TENANT, rollout=rollout, seen=seen(agent, how.green, fails[agent]))
            for agent, how in green.items()
            if how.weight
        ]
        if noticed:
            await self.sides.observing.add("gw-1", noticed)


def seen(agent: str, revision: str | None, fails: bool) -> Seen:
    assert revision is not None
    buckets = (30, *(0,) * (BUCKETS - 1))
    return Seen(
        agent=agent, revision=revision, green=True, window=0, calls=30, failures=30 if fails else 0, buckets=buckets
    )


@pytest.mark.parametrize("bad", [False, True], ids=["kept", "taken back"])
async def test_a_leader_killed_at_any_write_leaves_nothing_that_the_next_does_not_bring_to_an_end(
    database: Database, bad: bool
) -> None:
    world = Stored(database, bad)
    undisturbed, _ = await world.run(-1)
    assert undisturbed.rollout.state == ("rolled-back" if bad else "done")
    effects = list(world.killer.names)
    assert {name.split()[1] for name in effects} == {"save", "set_green", "set_weights", "finish"}
    # Each round trip to a server costs, so there it is every third of them, from another one in each of the two tests.
    killed = range(len(effects)) if database.dialect == "sqlite" else range(int(bad), len(effects), 3)
    for at in killed:
        name = effects[at]
        found, items = await world.run(at)
        assert world.killer.count > at, "it was killed"
        assert found.rollout.state == undisturbed.rollout.state, name
        standing = await world.sides.look(TENANT, [one.agent for one in items])
        for one in items:
            how = standing[one.agent]
            assert (how.blue, how.green) == (one.before if bad else one.revision, None), name
    # Whatever was done twice was made live once, and told once.
    count = select(func.count()).select_from(history).where(history.c.change.is_not(None))
    made = await database.read(lambda connection: connection.execute(count).scalar())
    runs = len(killed) + 1
    assert made == (0 if bad else runs * len(AGENTS))
    end = "rollout.rolled-back" if bad else "rollout.done"
    ended = select(func.count()).select_from(event).where(event.c.type == end)
    assert await database.read(lambda connection: connection.execute(ended).scalar()) == runs


async def test_people_and_the_leader_write_at_once_and_neither_overwrites_the_other(database: Database) -> None:
    world = Stored(database, False)
    items = await world.prepare()
    service, held = await world.lead()
    rollout = (await service.start(TENANT, items, title="", by="user:ann")).rollout
    passed = replace(rollout, through=77)
    await world.store.ask(TENANT, rollout.id, "pause", by="user:bob", reason="lunch")
    await world.store.save(passed, (), told=(), lost=(), held=held)
    found = (await world.store.get(TENANT, rollout.id)).rollout
    assert (found.wanted, found.asked, found.through, found.version) == ("pause", "lunch", 77, 3)
