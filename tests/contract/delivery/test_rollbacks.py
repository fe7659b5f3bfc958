"""A change that is taken back while it is rolled out, before, and after it: on both databases, as people ask for it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import insert, select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.schema.delivery import change as change_request
from chimera.adapters.storage.schema.delivery import change_item
from chimera.adapters.storage.schema.sides import WITHDRAWN, side
from chimera.adapters.storage.schema.state import session
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.storage.sides.taken_back import Done
from chimera.adapters.storage.upkeep.catalogue import expire_agents
from chimera.delivery.rollout.model import ENDED, Item, Policy, Rollout
from chimera.delivery.rollout.service import LEASE, RolloutService
from chimera.gateway.sides.ports import Loads
from chimera.kernel.leases import Lease
from chimera.platform.model import Withdrawn
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged
from chimera.testing.rollout_world import Killed

TENANT = "default"
AT_ONCE = Policy(step_seconds=0, bake_seconds=0, waves=(), steps=(50.0, 100.0))
NAMES = ("anna", "bert")


class Production:
    """Agents, changes of them, and a leader that rolls these out."""

    def __init__(self, database: Database) -> None:
        self.clock = clock = ManualClock()
        self.database = database
        self.catalogue = Catalogue(database, max_hosts=7, clock=clock)
        self.sides = SideStorage(database, max_hosts=7, clock=clock)
        self.store = StoredRollouts(database)
        self.service = RolloutService(self.store, self.sides, self.store, AT_ONCE)
        self.leases = StoredLeases(database)

    async def apply(self, *names: str, words: str = "First.") -> dict[str, str]:
        made = {name: compiled(name, metadata={"description": words}) for name in names}
        await self.catalogue.apply(TENANT, staged(*made.values()), keep_going=False, expect=None, by=None)
        return {name: one.digest for name, one in made.items()}

    async def live(self, *names: str) -> dict[str, str | None]:
        found = await self.sides.look(TENANT, names)
        return {name: found[name].blue if name in found else None for name in names}

    async def change(self, name: str, words: dict[str, str | None]) -> list[Item]:
        """A change request of these agents, by what they are to be (None: out of service)."""
        before = await self.live(*words)
        made = {agent: compiled(agent, metadata={"description": said}) for agent, said in words.items() if said}
        await self.catalogue.stage(TENANT, await self.catalogue.open_batch(TENANT), staged(*made.values()))
        items = [
            Item(agent=agent, revision=made[agent].digest if agent in made else None, before=before[agent])
            for agent in words
        ]
        head: dict[str, Any] = {"tenant": TENANT, "id": name, "state": "rolling-out", "risk": "low", "title": name}
        head |= {"author": "ann", "author_person": "ann", "content": name, "agents": len(items), "staged": 0}
        head |= {"created": 1.0, "updated": 1.0, "version": 1, "record": b""}
        rows = [
            {"tenant": TENANT, "change": name, "agent": one.agent, "revision": one.revision, "before": one.before}
            for one in items
        ]

        def write(connection: Any) -> None:
            connection.execute(insert(change_request).values(head))
            connection.execute(insert(change_item), [{**row, "source": ""} for row in rows])

        await self.database.write(write)
        return items

    async def begin(self, name: str, items: Sequence[Item], **policy: Any) -> str:
        told: dict[str, Any] = {"title": name, "by": "user:ann", "change": name, "content": name}
        policies = {one: getattr(AT_ONCE, one) for one in AT_ONCE.__struct_fields__} | policy
        return (await self.service.start(TENANT, items, policy=Policy(**policies), **told)).rollout.id

    async def held(self) -> Lease:
        held = await self.leases.acquire(LEASE, "test", 600.0)
        assert held is not None
        return held

    async def load(self, *names: str) -> None:
        """A gateway loads what it is told to."""
        loads = [
            Loads(tenant=TENANT, agent=one.agent, revision=one.green, wanted=1, holding=1)
            for one in (await self.sides.look(TENANT, names)).values()
            if one.green is not None
        ]
        await self.sides.loaded(loads, held=await self.held())

    async def led(self, rollout: str, *names: str, passes: int = 20) -> Rollout:
        """A leader's passes until it is over."""
        for _ in range(passes):
            await self.load(*names)
            await self.service.round(await self.held())
            if (found := (await self.service.get(TENANT, rollout)).rollout).state in ENDED:
                break
        return found

    async def talk(self, agent: str, revision: str | None) -> None:
        """Somebody has a conversation with the agent."""
        row = {"tenant": TENANT, "agent": agent, "session": "s", "version": 1, "state": b"{}", "updated": 1.0}
        await self.database.write(
            lambda connection: connection.execute(insert(session).values(**row, revision=revision))
        )

    async def talks(self) -> Sequence[str]:
        """The agents that keep conversations."""
        query = select(session.c.agent).order_by(session.c.agent)
        return await self.database.read(lambda connection: connection.execute(query).scalars().all())

    async def withdrawn(self) -> list[tuple[Any, ...]]:
        query = select(side.c.agent, side.c.revision, side.c.cancelled).where(side.c.role == WITHDRAWN)
        return await self.database.read(lambda connection: [tuple(row) for row in connection.execute(query)])

    async def back(self, change: str) -> Done:
        return await self.catalogue.rollbacks.change(TENANT, change, by="user:bob", now=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def production(database: Database) -> Production:
    return Production(database)


async def test_a_change_that_is_loading_and_taken_back_doesnt_come_again(production: Production) -> None:
    first = await production.apply(*NAMES)
    rollout = await production.begin("c1", await production.change("c1", dict.fromkeys(NAMES, "Second.")), canary=1)
    await production.service.round(await production.held())
    done = await production.back("c1")
    assert [one.agent for one in done.agents] == ["anna"] and [one.agent for one in done.stood] == ["bert"]
    asked = (await production.service.get(TENANT, rollout)).rollout
    assert (asked.wanted, asked.asked_by, asked.asked) == ("abort", "user:bob", "its change was taken back")
    assert (await production.led(rollout, *NAMES)).state == "aborted"
    assert await production.live(*NAMES) == first


@pytest.mark.parametrize("wanted", ["run", "pause"])
async def test_a_change_that_was_not_begun_or_only_removes_goes_no_further(production: Production, wanted: Any) -> None:
    first = await production.apply(*NAMES, "carl")
    items = await production.change("c1", {"anna": "Second.", "bert": None})
    rollout = await production.begin("c1", items)
    if wanted == "pause":
        await production.service.ask(TENANT, rollout, "pause", by="user:ann")
    again = await production.begin("c2", await production.change("c2", {"carl": "Second."}))
    done = await production.back("c1")
    assert [one.agent for one in done.stood] == list(NAMES) and not done.agents
    found = await production.led(rollout, *NAMES, "carl")
    assert (found.state, found.reason) == ("aborted", "aborted by user:bob: its change was taken back")
    assert await production.live(*NAMES) == {name: first[name] for name in NAMES}
    assert (await production.led(again, "carl")).state == "done", "another change's goes on"


@pytest.mark.parametrize("tolerate", [0, 2])
async def test_a_change_that_is_taken_back_while_it_is_being_made_live_is_not_done(
    production: Production, tolerate: int
) -> None:
    first = await production.apply(*NAMES)
    items = await production.change("c1", dict.fromkeys(NAMES, "Second."))
    rollout = await production.begin("c1", items, tolerate=tolerate)
    while (await production.service.get(TENANT, rollout)).rollout.state != "promoting":
        await production.service.round(await production.held())
        await production.load(*NAMES)
        members = await production.store.members(TENANT, rollout)
        if all(one.phase == "baking" for one in members):
            await decided(production)
    assert [one.agent for one in (await production.back("c1")).agents] == list(NAMES)
    assert (await production.led(rollout, *NAMES)).state == "rolled-back"
    assert await production.live(*NAMES) == first


async def test_a_removal_that_is_being_made_is_not_said_to_be_taken_back(production: Production) -> None:
    await production.apply(*NAMES)
    rollout = await production.begin("c1", await production.change("c1", dict.fromkeys(NAMES)))
    while (await production.service.get(TENANT, rollout)).rollout.state != "promoting":
        await decided(production)
    done = await production.back("c1")
    assert set(done.refused) == set(NAMES) and not done.stood
    assert (await production.led(rollout)).state == "done"
    assert [one.agent for one in (await production.back("c1")).agents] == list(NAMES)


async def test_a_change_that_is_back_already_takes_no_later_one_back(production: Production) -> None:
    first = await production.apply(*NAMES)
    rollout = await production.begin("c1", await production.change("c1", dict.fromkeys(NAMES, "Second.")))
    await production.service.round(await production.held())
    await production.back("c1")
    await production.led(rollout, *NAMES)
    items = await production.change("c2", {"anna": "Third."})
    later = await production.begin("c2", items)
    await production.service.round(await production.held())
    done = await production.back("c1")
    assert [one.agent for one in done.stood] == list(NAMES) and not (done.agents or done.refused)
    assert [one.revision for one in done.stood] == [one.before for one in done.stood] == list(first.values())
    assert (await production.sides.look(TENANT, ["anna"]))["anna"].green == items[0].revision
    assert (await production.led(later, "anna")).state == "done"
    assert await production.live(*NAMES) == {**first, "anna": items[0].revision}


async def test_a_change_on_which_a_later_one_is_being_made_stays_and_says_so(production: Production) -> None:
    first = await production.apply(*NAMES)
    rollout = await production.begin("c1", await production.change("c1", dict.fromkeys(NAMES, "Second.")))
    assert (await production.led(rollout, *NAMES)).state == "done"
    later = await production.begin("c2", await production.change("c2", {"anna": "Third."}))
    await production.service.round(await production.held())
    done = await production.back("c1")
    assert [one.agent for one in done.agents] == ["bert"] and set(done.refused) == {"anna"}
    assert later in done.refused["anna"].detail
    assert (await production.led(later, "anna")).state == "done"
    assert (await production.live("bert"))["bert"] == first["bert"]


@pytest.mark.parametrize("now", [False, True])
async def test_what_is_taken_back_beside_the_live_revision_is_withdrawn_too(production: Production, now: bool) -> None:
    first = (await production.apply("anna"))["anna"]
    second = (await production.apply("anna", words="Second."))["anna"]
    items = await production.change("c1", {"anna": "Third."})
    await production.begin("c1", items)
    await production.service.round(await production.held())
    assert (await production.sides.look(TENANT, ["anna"]))["anna"].green == items[0].revision
    last = await production.catalogue.sequence()
    back = production.catalogue.rollbacks
    await back.agents(TENANT, ["anna"], to=first, by="user:bob", now=now)
    (route,) = await GatewayStorage(production.database).changed_routes(last, 10)
    assert (route.revision, route.others) == (first, ())
    expected = {Withdrawn(revision=one, cancelled=now) for one in (second, str(items[0].revision))}
    assert set(route.withdrawn) == expected


async def test_a_green_side_that_is_gone_back_to_is_not_withdrawn(production: Production) -> None:
    first = (await production.apply("anna"))["anna"]
    second = (await production.apply("anna", words="Second."))["anna"]
    await production.begin("c1", await production.change("c1", {"anna": "First."}))
    await production.service.round(await production.held())
    last = await production.catalogue.sequence()
    await production.catalogue.rollbacks.agents(TENANT, ["anna"], to=first, by="user:bob", now=True)
    (route,) = await GatewayStorage(production.database).changed_routes(last, 10)
    assert (route.revision, route.others) == (first, ())
    assert route.withdrawn == (Withdrawn(revision=second, cancelled=True),)


async def test_an_agent_that_was_new_with_the_change_keeps_its_conversations(production: Production) -> None:
    items = await production.change("c1", {"anna": "First."})
    rollout = await production.begin("c1", items)
    assert (await production.led(rollout, "anna")).state == "done"
    await production.talk("anna", items[0].revision)
    done = await production.catalogue.rollbacks.change(TENANT, "c1", by="user:bob", now=True)
    assert [(one.agent, one.revision) for one in done.agents] == [("anna", None)]
    assert (await production.live("anna"), await production.talks()) == ({"anna": None}, ["anna"])
    (back,) = await production.withdrawn()
    assert back == ("anna", items[0].revision, 1)

    await production.apply("anna", words="Second.")
    assert await production.talks() == ["anna"], "they go on by what is made of it next"
    await production.catalogue.delete_agents(TENANT, ["anna"])
    assert (await production.talks(), await production.withdrawn()) == ([], []), "who deletes an agent erases them"


async def test_what_is_left_of_an_agents_conversations_goes_with_its_past(production: Production) -> None:
    for name in NAMES:
        items = await production.change(name, {name: "First."})
        assert (await production.led(await production.begin(name, items), name)).state == "done"
        await production.talk(name, items[0].revision)
        await production.back(name)
    again = await production.begin("c3", await production.change("c3", {"bert": "Second."}))
    await production.service.round(await production.held())
    later = production.clock.wall() + 40 * 86_400.0
    keep = 30 * 86_400.0
    assert await production.database.write(lambda connection: expire_agents(connection, later, 10, keep=keep)) == 2
    assert await production.talks() == ["bert"], "it is on its way in again"
    assert (await production.led(again, "bert")).state == "done"


async def decided(production: Production) -> None:
    """A pass of a leader that is killed before it acts."""

    async def die(*_: Any) -> None:
        raise Killed

    held = await production.held()
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(production.service, "_act", die)
        await production.service.round(held)
