"""The loop over cells while one changes: blue-green against Knative's controllers, played, whoever dies on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.plan import Phase
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, RIGHTS
from chimera.testing.cells import NAMESPACE, CellsRig, cell, name_of, until
from chimera.testing.cluster import FakeCluster, refusal
from chimera.testing.knative import FakeKnative

OLD, NEW = "registry.example/host:1", "registry.example/host:2"
CELL = cell()
NAME = name_of(CELL)
FIRST, SECOND = f"{NAME}-00001", f"{NAME}-00002"


class Home:
    """A cluster with Knative, and control planes one after the other, the settings those of the newest."""

    def __init__(self, cluster: FakeCluster, knative: FakeKnative) -> None:
        self.cluster = cluster
        self.knative = knative
        self.rigs: list[CellsRig] = []
        self.settings: dict[str, Any] = {"image": OLD, "rollout_hold": 0.3, "rollout_pause": 0.05}

    @property
    def rig(self) -> CellsRig:
        return self.rigs[-1]

    async def begin(self, **settings: Any) -> None:
        """Another control plane, as after an installation or a kill."""
        await self.kill()
        self.settings |= settings
        rig = CellsRig(self.cluster, **self.settings)
        rig.catalogue.put(CELL)
        self.rigs.append(rig)
        rig.start()

    async def kill(self) -> None:
        if self.rigs:
            await self.rig.stop()

    async def steady(self, revision: str) -> None:
        """Wait until the revision alone serves and is ready."""
        await until(
            lambda: (
                self.knative.traffic(NAME) == {revision: 100}
                and self.rig.phase(CELL) is Phase.READY
                and len(self.shares()) == 1
            )
        )

    def shares(self) -> list[dict[str, Any]]:
        found = self.cluster.object("services", NAMESPACE, NAME)
        assert found is not None
        return list(found["spec"]["traffic"])

    async def written_or(self, done: Callable[[], bool], writes: int) -> None:
        """Wait for another write than these, or until it is done."""
        await until(lambda: self.cluster.writes() > writes or done())

    def cause(self) -> tuple[str, str]:
        found = self.rig.state(CELL)
        return ("", "") if found is None else (found.cause, found.next_step)


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    async with FakeCluster() as cluster, FakeKnative(cluster, NAMESPACE) as knative:
        made = Home(cluster, knative)
        await made.begin()
        yield made
        await made.kill()


async def watched(home: Home, until_then: Callable[[], Awaitable[None]]) -> list[dict[str, int]]:
    """The shares that were carried out meanwhile, each once in a row."""
    seen: list[dict[str, int]] = []

    async def look() -> None:
        while True:
            version, now = home.cluster.version, home.knative.traffic(NAME)
            if not seen or seen[-1] != now:
                seen.append(now)
            await home.cluster.news(version)

    looking = asyncio.create_task(look())
    await until_then()
    looking.cancel()
    return seen


async def test_a_new_image_takes_over_at_the_scale_of_the_old_one(home: Home) -> None:
    await home.knative.want(NAME, 5)
    await home.steady(FIRST)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 5})

    async def change() -> None:
        await home.begin(image=NEW)
        await home.steady(SECOND)

    assert await watched(home, change) == [{FIRST: 100}, {SECOND: 100}]
    new = home.knative.revisions(NAME)[1]
    assert new["metadata"]["annotations"][names.INITIAL_SCALE] == "5"
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0, SECOND: 5})
    assert new["spec"]["containers"][0]["image"] == NEW


async def test_steps_are_carried_out_one_after_the_other(home: Home) -> None:
    await home.steady(FIRST)

    async def change() -> None:
        await home.begin(image=NEW, rollout_steps=(10, 50))
        await home.steady(SECOND)

    steps = [{FIRST: 100}, {FIRST: 90, SECOND: 10}, {FIRST: 50, SECOND: 50}, {SECOND: 100}]
    assert await watched(home, change) == steps


@pytest.mark.parametrize("trouble", ["broken", "slow"])
async def test_a_new_image_that_does_not_come_leaves_the_old_one_serving(home: Home, trouble: str) -> None:
    await home.knative.want(NAME, 3)
    await home.steady(FIRST)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 3})
    if trouble == "broken":
        home.knative.broken[NEW] = ("ContainerMissing", "Unable to fetch image: manifest unknown")
        await home.begin(image=NEW)
        await until(lambda: home.rig.phase(CELL) is Phase.FAILED)
        cause, step = home.cause()
        assert "manifest unknown" in cause and SECOND in cause and "knative.image" in step
        await until(lambda: home.shares() == [{"revisionName": FIRST, "percent": 100}])
    else:
        home.knative.slow.add(NEW)
        await home.begin(image=NEW)
        await until(lambda: "of 3 pods" in home.cause()[0])
        assert home.rig.phase(CELL) is Phase.DEPLOYING
    assert home.knative.traffic(NAME) == {FIRST: 100} and home.knative.pods(NAME)[FIRST] == 3
    (state,) = home.rig.reconciler.states
    told = {one.revision: (one.percent, one.ready) for one in state.revisions}
    assert told == {FIRST: (100, True), SECOND: (0, False)}
    # It is mended by another image, or by the old one.
    await home.begin(image="registry.example/host:3")
    await home.steady(f"{NAME}-00003")


async def test_one_that_fails_on_its_way_loses_its_calls(home: Home) -> None:
    await home.steady(FIRST)
    await home.begin(image=NEW, rollout_steps=(50,), rollout_pause=60.0)
    await until(lambda: home.knative.traffic(NAME) == {FIRST: 50, SECOND: 50})
    home.knative.broken[NEW] = ("ExitCode3", "Container failed with: exit code 3")
    await home.knative.step()
    await until(lambda: home.knative.traffic(NAME) == {FIRST: 100})
    await until(lambda: home.rig.phase(CELL) is Phase.FAILED)
    service = home.cluster.object("services", NAMESPACE, NAME)
    assert service is not None and service["metadata"]["annotations"][names.FAILED].startswith(f"{SECOND} ExitCode3")


async def test_a_first_revision_that_knative_gave_up_is_made_anew_until_one_comes(home: Home) -> None:
    other = cell("crewai")
    home.knative.late.add(NEW)
    await home.begin(image=NEW, start_retry=0.3)
    home.rig.catalogue.put(other)
    name = name_of(other)
    await until(lambda: home.rig.phase(other) is Phase.FAILED)
    state = home.rig.state(other)
    assert state is not None and "never achieved" in state.cause and "try 1 was given up" in state.tries
    await until(lambda: len(home.knative.revisions(name)) == 3)
    attempts = [one["metadata"]["annotations"].get(names.ATTEMPT) for one in home.knative.revisions(name)]
    assert attempts == [None, "2", "3"]
    writes = home.cluster.writes()
    assert writes <= 2 + 3, "a write for each try (and the cell that isn't wanted any more)"
    home.knative.late.clear()
    await until(lambda: home.rig.phase(other) is Phase.READY)
    assert home.knative.traffic(name) == {f"{name}-00004": 100}
    writes = home.cluster.writes()
    await home.begin(start_retry=0.3)
    home.rig.catalogue.put(other)
    await until(lambda: home.rig.phase(other) is Phase.READY)
    home.rig.reconciler.poke()
    await asyncio.sleep(0.2)
    assert home.cluster.writes() == writes, "what came up by a later try is as wanted"


async def test_a_control_plane_that_is_killed_after_every_write_changes_nothing_of_how_it_ends(home: Home) -> None:
    await home.knative.want(NAME, 4)
    await home.steady(FIRST)
    taken: list[str] = []

    def one_write_each(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.method != "PATCH" or len(taken) <= kills:
            taken.extend([request.path] if request.method == "PATCH" else [])
            return None
        return refusal(429, "TooManyRequests", "later")(request)

    def more_than(before: int) -> bool:
        return len(taken) > before

    kills = 0
    home.cluster.faults.append(one_write_each)
    await home.begin(image=NEW, rollout_steps=(30,))
    shares: list[dict[str, int]] = []
    while home.knative.traffic(NAME) != {SECOND: 100} or len(home.shares()) > 1:
        await until(partial(more_than, kills))
        await home.kill()  # where the write was made, before anything that follows from it
        kills += 1
        await home.begin()
        shares.append(home.knative.traffic(NAME))
    home.cluster.faults.clear()
    assert kills >= 5, "applied, held, a part, all, let go"
    for share in shares:
        assert sum(share.values()) == 100
    assert [share.get(SECOND, 0) for share in shares] == sorted(share.get(SECOND, 0) for share in shares)
    await home.steady(SECOND)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0, SECOND: 4})
    writes = home.cluster.writes()
    await home.begin()
    await home.steady(SECOND)
    assert home.cluster.writes() == writes


@pytest.mark.parametrize("dies_at", range(4))
async def test_a_control_plane_that_is_killed_while_one_fails_leaves_the_old_one_serving(
    home: Home, dies_at: int
) -> None:
    await home.steady(FIRST)
    home.knative.broken[NEW] = ("ContainerMissing", "Unable to fetch image: manifest unknown")
    writes = home.cluster.writes()
    await home.begin(image=NEW)
    for _ in range(dies_at):
        if home.rig.phase(CELL) is Phase.FAILED:
            break
        await home.written_or(lambda: home.rig.phase(CELL) is Phase.FAILED, writes)
        writes = home.cluster.writes()
        await home.begin()
    await until(lambda: home.rig.phase(CELL) is Phase.FAILED)
    assert home.knative.traffic(NAME) == {FIRST: 100}


async def test_no_more_cells_change_over_at_once_than_may(home: Home) -> None:
    cells = [cell(tenant=f"tenant-{number}") for number in range(3)]
    home.rig.catalogue.put(CELL, *cells)
    await until(lambda: all(home.rig.phase(one) is Phase.READY for one in (CELL, *cells)))
    home.knative.slow.add(NEW)
    await home.kill()
    home.settings |= {"image": NEW, "rollouts": 1}
    home.rigs.append(CellsRig(home.cluster, **home.settings))
    home.rig.catalogue.put(CELL, *cells)
    home.rig.start()
    await until(lambda: len(home.cluster.objects("revisions")) == 5)
    await asyncio.sleep(0.2)
    assert len(home.cluster.objects("revisions")) == 5
    waiting = [state for state in home.rig.reconciler.states if "waits for its turn" in state.cause]
    assert len(waiting) == 3
    home.knative.slow.clear()
    await home.knative.step()
    await until(lambda: len(home.cluster.objects("revisions")) == 8)
    await until(lambda: all(home.rig.phase(one) is Phase.READY for one in (CELL, *cells)))


async def test_a_warm_pool_is_kept_without_another_revision_and_its_missing_pods_are_told(home: Home) -> None:
    await home.steady(FIRST)
    await home.begin(warm_pool=6)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 6})
    await home.steady(FIRST)
    await until(lambda: home.cause() == ("", ""))
    await home.begin(warm_pool=9, most_kept=8)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 8})
    await until(lambda: home.cause()[0].startswith("8 of 9 pods are kept warm"))
    revision = home.knative.revisions(NAME)[0]
    revision["status"]["actualReplicas"] = 5
    home.knative.frozen = True
    await home.cluster.put("revisions", revision)
    await until(lambda: home.cause()[0] == "5 of 8 warm pods are there")
    home.knative.frozen = False
    await home.knative.step()
    # It is had by what comes after it, too: as many pods before any call, and then its pool.
    await home.begin(image=NEW)
    await home.steady(SECOND)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0, SECOND: 8})
    await home.begin(warm_pool=0)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0, SECOND: 0})
    assert len(home.knative.revisions(NAME)) == 2


async def test_a_cell_that_no_agent_belongs_to_keeps_no_pool(home: Home) -> None:
    await home.begin(warm_pool=6)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 6})
    home.rig.catalogue.put()
    await until(lambda: home.rig.phase(CELL) is Phase.UNUSED)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0})
    writes = home.cluster.writes()
    home.rig.reconciler.poke()
    await asyncio.sleep(0.2)
    assert home.cluster.writes() == writes and name_of(CELL) in home.rig.services()
    home.rig.catalogue.put(CELL)
    await until(lambda: home.knative.pods(NAME) == {FIRST: 6})


async def test_before_knative_heeds_it_a_pool_is_of_the_template(home: Home) -> None:
    await home.steady(FIRST)
    await home.begin(warm_pool=6, warm_in_template=True)
    await home.steady(SECOND)
    assert home.knative.revisions(NAME)[1]["metadata"]["annotations"][names.MIN_SCALE] == "6"
    await until(lambda: home.knative.pods(NAME) == {FIRST: 0, SECOND: 6})


VERBS = {"GET": {"list"}, "WATCH": {"watch"}, "PATCH": {"create", "patch"}, "DELETE": {"delete"}}


async def test_the_control_planes_rights_are_exactly_what_it_does(home: Home) -> None:
    unused = cell("crewai")
    await home.knative.want(NAME, 2)
    await home.begin(unused_grace=0.0)
    home.rig.catalogue.put(CELL, unused)
    await until(lambda: len(home.rig.services()) == 2)
    home.rig.catalogue.put(CELL)
    await until(lambda: len(home.rig.services()) == 1)
    await home.steady(FIRST)
    await home.begin(image=NEW)
    await home.steady(SECOND)
    kinds = {"services", "revisions"}  # what else it does is of its other parts
    rights = {right.resource: set(right.verbs) for right in RIGHTS[CONTROL_PLANE] if right.resource in kinds}
    used: dict[str, set[str]] = {}
    for method, plural in home.cluster.calls:
        used.setdefault(plural, set()).update(VERBS[method])
    used["revisions"].discard("create")  # an apply with the uid of one that is gone makes none
    assert used == rights
