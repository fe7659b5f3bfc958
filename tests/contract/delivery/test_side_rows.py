"""What else reads the sides of agents in the database: gateways, the placement of cells, upkeep, direct changes."""

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.schema.catalogue import revision
from chimera.adapters.storage.schema.journal import audit_entry
from chimera.adapters.storage.schema.sides import observation
from chimera.adapters.storage.sides import observing
from chimera.adapters.storage.sides.observing import GRACE
from chimera.adapters.storage.sides.store import SideStorage, expire_sides
from chimera.adapters.storage.upkeep.catalogue import expire_agents, past
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.shapes import Key, Searched
from chimera.delivery.rollout.model import Policy, Rollout
from chimera.delivery.sides.model import Green, Seen
from chimera.gateway.sides.ports import Noticed
from chimera.kernel.leases import Lease
from chimera.platform.model import Withdrawn
from chimera.platform.upkeep.model import START, Cursor
from chimera.platform.upkeep.settings import RetentionSettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged

TENANT = "default"
DAY = 86_400.0


class Stored:
    """The catalogue and the sides on one database, by one clock."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.catalogue = Catalogue(database, max_hosts=7, clock=self.clock)
        self.sides = SideStorage(database, max_hosts=7, clock=self.clock)
        self.gateway = GatewayStorage(database)
        self.lease: Lease | None = None

    async def apply(self, name: str, words: str, **changes: Any) -> str:
        made = compiled(name, metadata={"description": words}, **changes)
        await self.catalogue.apply(TENANT, staged(made), keep_going=False, expect=None, by=None)
        return made.digest

    async def green(self, name: str, words: str, before: str, **changes: Any) -> Green:
        made = compiled(name, metadata={"description": words}, **changes)
        await self.catalogue.stage(TENANT, await self.catalogue.open_batch(TENANT), staged(made))
        one = Green(agent=name, revision=made.digest, before=before)
        assert await self.sides.set_green(TENANT, [one], rollout="ro-1", held=await self.held()) == {}
        return one

    async def finish(self, **told: Any) -> None:
        ends = {"rollout": "ro-1", "keep": 60.0, "by": "user:ann", "held": await self.held(), **told}
        assert await self.sides.finish(TENANT, **ends) == {}

    async def held(self) -> Lease:
        lease = await StoredLeases(self.database).acquire("rollouts", "me", 60.0)
        assert lease is not None
        return lease

    async def run(self, job: Any, *args: Any, **more: Any) -> Any:
        return await self.database.write(lambda connection: job(connection, *args, **more))


@pytest.fixture
def stored(database: Database) -> Stored:
    return Stored(database)


async def test_gateways_follow_each_change_of_a_side_by_the_agents_sequence(stored: Stored) -> None:
    blue = await stored.apply("anna", "First.")
    await stored.apply("bert", "First.")
    (_, last) = await stored.gateway.changed_routes(0, 10)
    one = await stored.green("anna", "Second.", blue, specification={"framework": "CrewAI"})

    (route,) = await stored.gateway.changed_routes(last.sequence, 10)
    (green,) = route.others
    assert (route.revision, route.side, route.framework) == (blue, "live", "autogen")
    assert (green.revision, green.side, green.weight, green.rollout) == (one.revision, "green", 0, "ro-1")
    assert (green.framework, green.agent) == ("crewai", "anna") and green.cell != route.cell
    assert await stored.gateway.cell(green.cell) is not None

    await stored.sides.set_weights(TENANT, {"anna": 4_000}, rollout="ro-1", held=await stored.held())
    (after,) = await stored.gateway.changed_routes(route.sequence, 10)
    assert after.others[0].weight == 4_000
    await stored.sides.set_weights(TENANT, {"anna": 4_000}, rollout="ro-1", held=await stored.held())
    assert await stored.gateway.changed_routes(after.sequence, 10) == [], "nothing changed"

    await stored.finish(green=[one])
    (done,) = await stored.gateway.changed_routes(after.sequence, 10)
    (kept,) = done.others
    assert (done.revision, done.side, done.cell, done.framework) == (one.revision, "live", green.cell, "crewai")
    assert (kept.revision, kept.side, kept.until) == (blue, "kept", stored.clock.wall() + 60.0)

    await stored.finish(blue=[one], now=True)
    (back,) = await stored.gateway.changed_routes(done.sequence, 10)
    assert (back.revision, back.others) == (blue, ())
    assert back.withdrawn == (Withdrawn(revision=str(one.revision), cancelled=True),)
    await stored.apply("anna", "Second.", specification={"framework": "CrewAI"})
    (again,) = await stored.gateway.changed_routes(back.sequence, 10)
    assert (again.revision, again.withdrawn) == (one.revision, ()), "what is live is not withdrawn"


async def test_thousands_of_sides_are_set_and_ended_at_once(stored: Stored) -> None:
    names = [f"agent-{number:04d}" for number in range(1_200)]
    first = [compiled(name) for name in names]
    second = [compiled(name, metadata={"description": "Another."}) for name in names]
    await stored.catalogue.apply(TENANT, staged(*first), keep_going=False, expect=None, by=None)
    await stored.catalogue.stage(TENANT, await stored.catalogue.open_batch(TENANT), staged(*second))
    pairs = zip(first, second, strict=True)
    greens = [Green(agent=old.value.agent.name, revision=new.digest, before=old.digest) for old, new in pairs]
    held = await stored.held()
    before = await stored.catalogue.sequence()
    assert await stored.sides.set_green(TENANT, greens, rollout="ro-1", held=held) == {}
    await stored.sides.set_weights(TENANT, dict.fromkeys(names, 100), rollout="ro-1", held=held)
    await stored.finish(green=greens)
    routes: list[Any] = []
    while page := await stored.gateway.changed_routes(routes[-1].sequence if routes else before, 500):
        routes += page
    assert [route.revision for route in sorted(routes, key=lambda route: route.agent)] == [one.digest for one in second]
    assert await stored.catalogue.sequence() == before + 3 * len(names)


async def test_cells_of_green_and_of_what_is_kept_are_kept(stored: Stored) -> None:
    blue = await stored.apply("anna", "First.", isolation="dedicated")
    (route,) = await stored.gateway.changed_routes(0, 10)
    one = await stored.green("anna", "Second.", blue, scaling={"min_instances": 2}, isolation="dedicated")
    wanted = {spec.cell: spec.min_hosts for spec in await stored.catalogue.live_cells()}
    green = (await stored.gateway.changed_routes(0, 10))[0].others[0]
    assert wanted[green.cell] == 2 and green.cell in {spec.cell for spec in await stored.catalogue.kept_cells()}
    other = await stored.apply("bert", "First.")
    two = await stored.green("bert", "Second.", other, specification={"framework": "CrewAI"})
    crew = next(one for one in await stored.gateway.changed_routes(0, 10) if one.agent == "bert").others[0]
    assert crew.cell in {spec.cell for spec in await stored.catalogue.live_cells()}
    await stored.finish(green=[one, two])
    autogen = {spec.cell for spec in await stored.catalogue.live_cells()}
    assert {route.cell, crew.cell} <= autogen and len(autogen) == 3
    stored.clock.advance(61.0)
    assert await stored.run(expire_sides, stored.clock.wall(), 10) == 2
    assert {route.cell, crew.cell} == {spec.cell for spec in await stored.catalogue.live_cells()}


async def test_upkeep_leaves_the_revisions_of_sides(stored: Stored) -> None:
    blue = await stored.apply("anna", "First.")
    one = await stored.green("anna", "Second.", blue)
    stored.clock.advance(400 * DAY)
    now = stored.clock.wall()
    await stored.catalogue.open_batch(TENANT)  # drops the batch that brought green, long over
    searched = past(keep_revisions=1.0, keep_changes=None, last=1)
    await stored.run(lambda connection: searched.remove(connection, now, [(TENANT, str(one.revision))]))
    found = await stored.database.read(lambda c: set(c.execute(select(revision.c.digest)).scalars()))
    assert found == {blue, one.revision}
    await stored.finish(blue=[one])
    assert await stored.run(expire_sides, now + 91 * DAY, 10) == 1
    await stored.run(lambda connection: searched.remove(connection, now, [(TENANT, str(one.revision))]))
    found = await stored.database.read(lambda c: set(c.execute(select(revision.c.digest)).scalars()))
    assert found == {blue}


async def test_an_agent_that_goes_takes_its_sides_along(stored: Stored) -> None:
    blue = await stored.apply("anna", "First.")
    await stored.green("anna", "Second.", blue)
    await stored.catalogue.delete_agents(TENANT, ["anna"])
    assert await stored.sides.look(TENANT, ["anna"]) == {}
    stored.clock.advance(2 * DAY)
    assert await stored.run(expire_agents, stored.clock.wall(), 10, keep=DAY) == 1
    assert await stored.catalogue.live_cells() == []


async def test_the_audit_log_tells_of_batches_and_the_history_of_agents(stored: Stored) -> None:
    blue = await stored.apply("anna", "First.")
    one = await stored.green("anna", "Second.", blue)
    await stored.sides.set_weights(TENANT, {"anna": 10}, rollout="ro-1", held=await stored.held())
    await stored.finish(green=[one], change="chg-7")
    rows = await stored.database.read(lambda c: c.execute(select(audit_entry).order_by(audit_entry.c.seq)).all())
    assert [(row.action, row.actor) for row in rows[1:]] == [
        ("side:set", "system:rollouts"),
        ("side:weigh", "system:rollouts"),
        ("agent.updated", "user:ann"),
    ]
    newest = (await stored.catalogue.history(TENANT, "anna"))[0]
    assert (newest.revision, newest.by, newest.change) == (one.revision, "user:ann", "chg-7")


class Windows:
    """Windows of tenants' rollouts, and which of them are left."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rollouts = StoredRollouts(database)
        self.sides = SideStorage(database, max_hosts=7, clock=ManualClock())

    async def see(self, *tenants: str) -> int:
        """A window of these tenants."""
        seen = Seen(agent="anna", revision="sha256:1", green=True, window=0, calls=1, failures=0)
        noticed = [Noticed(tenant=one, rollout="ro-1", seen=seen) for one in tenants or (TENANT,)]
        return await self.sides.observing.add("gw", noticed)

    async def begin(self, name: str, tenant: str = TENANT) -> Rollout:
        one = Rollout(
            id=name,
            tenant=tenant,
            title="another model",
            by="user:ann",
            policy=Policy(),
            waves=1,
            agents=0,
            created=1.0,
            updated=1.0,
            through=await self.sides.observed(),
        )
        return await self.rollouts.create(one, [])

    async def save(self, one: Rollout, **fields: Any) -> None:
        held = await StoredLeases(self.database).acquire("rollouts", "me", 60.0)
        assert held is not None
        stored = (await self.rollouts.get(one.tenant, one.id)).rollout
        await self.rollouts.save(replace(stored, **fields), [], told=(), lost=(), held=held)

    async def pass_by(self, seconds: float, limit: int = 100) -> int:
        """Remove what goes so many seconds from now; what would go is said before."""
        work = next(one for one in make_jobs(RetentionSettings()) if one.kind == "observations").work
        assert isinstance(work, Searched), "a stuck rollout's are looked through without a lock"
        found: list[Key] = []

        def find(connection: Connection) -> float:
            now = self.database.now(connection) + seconds
            after: Cursor | None = START
            while after is not None and len(found) < limit:
                keys, after = work.find(connection, now, after)
                found.extend(keys)
            return now

        now = await self.database.read(find)
        due = found[:limit]
        assert await self.database.write(lambda connection: work.remove(connection, now, due)) == len(due)
        return len(due)

    async def left(self) -> list[tuple[str, int]]:
        query = select(observation.c.tenant, observation.c.place).order_by(observation.c.place)
        return await self.database.read(lambda c: [tuple(row) for row in c.execute(query)])


@pytest.fixture
def windows(database: Database) -> Windows:
    return Windows(database)


async def test_windows_go_once_every_open_rollout_of_their_tenant_has_read_them(windows: Windows) -> None:
    first, second = await windows.begin("ro-1"), await windows.begin("ro-2")
    await windows.begin("ro-3", "other")
    places = [await windows.see() for _ in range(3)]
    others = await windows.see("other")
    alone = await windows.see("no-rollout")
    every = [*((TENANT, place) for place in places), ("other", others)]
    await windows.save(first, through=places[2])
    await windows.save(second, through=places[1])

    assert await windows.pass_by(0.0) == 0, "people may want to look at them a little longer"
    assert await windows.pass_by(GRACE + 1.0) == 3
    assert await windows.left() == every[2:], f"the window {alone} is read by nobody, and each tenant's are its own"
    await windows.save(second, state="done", ended=5.0)
    assert await windows.pass_by(GRACE + 1.0) == 1, "who has ended reads no more"
    assert await windows.left() == [("other", others)]
    assert await windows.pass_by(2 * DAY - 60.0) == 0
    assert await windows.pass_by(2 * DAY + 60.0) == 1, "two days are the bound, whoever hasn't read them"


async def test_a_pass_removes_no_more_windows_than_it_may_and_a_rollout_that_begins_misses_none(
    windows: Windows,
) -> None:
    for _ in range(5):
        await windows.see()
    assert await windows.pass_by(GRACE + 1.0, limit=2) == 2
    assert [place for _, place in await windows.left()] == [3, 4, 5], "the oldest go first"
    begun = await windows.begin("ro-1")
    place = await windows.see()
    assert await windows.pass_by(GRACE + 1.0) == 3
    found = await windows.sides.observations(TENANT, "ro-1", begun.through)
    assert [one.window for one in found.seen] == [place]
    assert len((await windows.sides.observations("other", "ro-1", 0)).seen) == 0, "another tenant's are its own"


async def test_windows_are_found_page_by_page_each_once(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "_FOUND", 2)
    await windows.see("a")
    await windows.see("a", "b", "c")  # of one window: one place, and one time
    await windows.see("b")
    assert await windows.pass_by(GRACE + 1.0) == 5
    assert await windows.left() == []


async def test_what_is_kept_for_ever_is_kept_though_it_was_read(windows: Windows) -> None:
    await windows.see()
    (job,) = [one for one in make_jobs(RetentionSettings(observations_days=0.0)) if one.kind == "observations"]
    assert job.keep is None
