"""Runs of tests: worked on by one process, gone on with by another, ended by whoever asks, and found by a change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.schema.tasks import task
from chimera.adapters.storage.trials.environments import StoredEnvironments
from chimera.adapters.storage.trials.runs import StoredRuns
from chimera.bootstrap.trial_parts import make_trials
from chimera.delivery.trials.asking import Ask, TrialRequest
from chimera.delivery.trials.check import OwnTests
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.errors import NothingToTest, UnknownTestRun
from chimera.delivery.trials.model import Candidate, Run
from chimera.delivery.trials.service import Trials
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease
from chimera.testing.definitions import compiled, staged
from chimera.testing.trials import FakeCalls, echo, problem
from chimera_host.testing.doubles import until

from .staging_world import case, change

LEASE = Lease(name="tests", owner="me", token=1, expires=0.0)
"""The one that every `world` holds."""


class World:
    """The parts on one database, with calls that a test answers."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.clock = SystemClock()
        self.database = database
        self.settings = TrialSettings(**settings)
        self.catalogue = Catalogue(database, max_hosts=2)
        self.runs = StoredRuns(database, keep=60.0)
        self.calls = FakeCalls()
        self.trials = self.process(self.calls)

    def process(self, calls: FakeCalls) -> Trials:
        """Another control plane."""
        environments = Environments(self.catalogue, StoredEnvironments(self.database), self.clock, self.settings)
        return Trials(self.catalogue, self.runs, environments, calls, self.clock, self.settings)

    async def put(self, *agents: Any) -> list[Candidate]:
        """Make agents live."""
        await self.catalogue.apply("default", staged(*agents), keep_going=False, expect=None, by="x")
        return [Candidate(agent=one.value.agent.name, revision=one.digest) for one in agents]

    async def over(self, run: Run) -> Run:
        found = run

        async def ended() -> bool:
            nonlocal found
            found = await self.trials.get(run.tenant, run.run)
            return found.state not in ("waiting", "running")

        await until(ended)
        return found

    async def open_environments(self) -> list[str]:
        found = await StoredEnvironments(self.database).all()
        return [one.purpose for one in found if one.closed is None]


@contextlib.asynccontextmanager
async def working(trials: Trials, lease: Lease = LEASE) -> AsyncIterator[None]:
    task = asyncio.create_task(trials.work(lease))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(database: Database) -> World:
    assert await StoredLeases(database).acquire(LEASE.name, LEASE.owner, 3_600.0)
    return World(database)


async def test_a_run_tests_all_its_agents_in_environments_that_are_gone_afterwards(world: World) -> None:
    neighbour: dict[str, Any] = {"tools": [{"type": "agent", "name": "ask", "agent": "helper"}]}
    agents = [
        compiled("a", tests=[case(), case("u", expect={"contains": ["no"]})]),
        compiled("b", tests=[case(integration=True)], **neighbour),
        compiled("c"),
        compiled("helper"),
    ]
    candidates = await world.put(*agents)
    seen: dict[str, list[str]] = {}

    async def answer(ask: Ask) -> str:
        seen[ask.environment] = [row["name"] for row in await world.catalogue.agents(ask.environment, {}, "", 9)]
        return echo(ask)

    world.calls.answer = answer
    async with working(world.trials):
        run = await world.trials.start("default", candidates[:3], by="key:k")
        done = await world.over(run)
    assert (done.state, done.agents, done.untested) == ("done", 3, 1)
    assert (done.counts.total, done.counts.passed, done.counts.failed) == (3, 2, 1)
    assert sorted(seen.values()) == [["a"], ["b", "helper"]], "and who is reached where the tools are real"
    assert await world.open_environments() == []
    for name in seen:
        assert await world.catalogue.agents(name, {}, "", 9) == []


async def test_whom_agents_reach_is_read_in_a_few_looks_however_many_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calling(name: str, *others: str) -> Any:
        return compiled(name, tools=[{"type": "agent", "name": f"ask-{one}", "agent": one} for one in others])

    helpers = [f"helper-{number:02d}" for number in range(40)]
    agents = [calling("a", *helpers, "nobody"), *(calling(name, "last", "a") for name in helpers), calling("last")]
    await world.put(*agents)
    looks: list[int] = []
    named = world.catalogue.agents_named

    async def counted(tenant: str, names: list[str]) -> Any:
        looks.append(len(names))
        return await named(tenant, names)

    monkeypatch.setattr(world.catalogue, "agents_named", counted)
    environments = Environments(world.catalogue, StoredEnvironments(world.database), world.clock, world.settings)
    found = await environments.neighbours("default", [agents[0].value])
    assert [one.agent.name for one in found] == [*helpers, "last"]
    assert looks == [41, 1]


async def test_another_process_goes_on_where_one_died(world: World) -> None:
    candidates = await world.put(*(compiled(f"a{n}", tests=[case()]) for n in range(6)))
    first_two, never = asyncio.Semaphore(2), asyncio.Event()

    async def answer(ask: Ask) -> str:
        if first_two.locked():
            await never.wait()
        await first_two.acquire()
        return echo(ask)

    world.calls.answer = answer
    async with working(world.trials):
        run = await world.trials.start("default", candidates, by="key:k")

        async def two() -> bool:
            return (await world.trials.get("default", run.run)).counts.finished == 2

        await until(two)
    assert (await world.trials.get("default", run.run)).state == "running"
    assert await world.open_environments() == ["tests"], "whoever goes on finds it"
    other = FakeCalls()
    async with working(world.process(other)):
        done = await world.over(run)
    assert (done.state, done.counts.passed) == ("done", 6)
    assert len(other.asked) == 4, "what has a result isn't run again"
    keys = {one.key for one in world.calls.asked}
    assert {one.key for one in other.asked} <= keys, "and what was under way is the same call"
    assert await world.open_environments() == []


async def test_a_run_that_is_cancelled_ends_its_calls_and_takes_its_environment_away(world: World) -> None:
    candidates = await world.put(compiled("a", tests=[case()]))

    async def answer(ask: Ask) -> str:
        await asyncio.Event().wait()
        return ""

    world.calls.answer = answer
    async with working(world.trials):
        run = await world.trials.start("default", candidates, by="key:k")
        await until(lambda: world.calls.asked)
        assert (await world.trials.cancel("default", run.run, by="key:k")).state == "cancelled"
        await until(lambda: world.calls.cancelled)

        async def gone() -> bool:
            return await world.open_environments() == []

        await until(gone)


async def test_who_lost_the_lease_says_nothing_of_a_run_and_takes_nothing_away(world: World) -> None:
    candidates = await world.put(compiled("a", tests=[case()]))
    answers, leases = asyncio.Event(), StoredLeases(world.database)

    async def answer(ask: Ask) -> str:
        await answers.wait()
        return "what nobody expects"

    world.calls.answer = answer
    async with working(world.trials):
        run = await world.trials.start("default", candidates, by="key:k")
        await until(lambda: world.calls.asked)
        await leases.release(LEASE)
        new = await leases.acquire(LEASE.name, "another", 3_600.0)
        assert new is not None
        late = world.trials._running[run.run]
        answers.set()
        await asyncio.wait({late})
        with pytest.raises(LeaseLost):
            await late
        assert (await world.trials.get("default", run.run)).counts.finished == 0
        assert await world.open_environments() == ["tests"], "the other one may test in it"
    async with working(world.process(FakeCalls()), new):
        done = await world.over(run)
    assert (done.state, done.counts.passed, done.counts.failed) == ("done", 1, 0)
    assert await world.open_environments() == []


async def test_a_run_waits_for_room_and_says_what_it_could_not_find(world: World, database: Database) -> None:
    world = World(database, environments=1)
    candidates = await world.put(compiled("a", tests=[case()]))
    taken = Environments(world.catalogue, StoredEnvironments(database), world.clock, world.settings)
    await taken.make("default", "staging", "somebody", [], tools="real")
    run = await world.trials.start("default", candidates, by="key:k")
    await world.trials.look()
    await until(lambda: world.trials._resting)
    assert (await world.trials.get("default", run.run)).state in ("waiting", "running")
    gone = await world.trials.start("default", [Candidate(agent="a", revision="sha256:0")], by="key:k")
    async with working(world.process(world.calls)):
        ended = await world.over(gone)
        assert ended.state == "failed" and "not here any more" in (ended.problem or "")
    with pytest.raises(NothingToTest):
        await world.trials.start("default", [], by="key:k")
    with pytest.raises(UnknownTestRun):
        await world.trials.cancel("default", "tests_x", by="key:k")


@pytest.mark.parametrize("looked", [False, True], ids=["at once", "after a look"])
async def test_calls_of_tests_are_tasks_by_the_settings_of_tasks(database: Database, looked: bool) -> None:
    catalogue = Catalogue(database, max_hosts=2)
    made = make_trials(database, catalogue, lambda: None, {"poll": 0.01}, {"result_ttl": 77.0})
    ask = Ask(environment="env--x", agent="a", key="k", messages=(), seconds=9.0, request=TrialRequest(model="real"))
    call = asyncio.create_task(made.calls.call(ask))

    async def row() -> Any:
        return await database.read(lambda connection: connection.execute(select(task)).one_or_none())

    async def queued() -> bool:
        return await row() is not None and bool(made.calls._waiting)

    await until(queued)
    call.cancel()
    if looked:  # at the moment between the call's end and its own hearing of it
        made.calls._forget()
    await asyncio.gather(call, return_exceptions=True)
    found = await row()
    assert (found.state, found.expires - found.finished) == ("cancelled", pytest.approx(77.0))
    await made.calls.aclose()


async def test_a_change_is_held_against_its_agents_own_tests(world: World) -> None:
    agents = [compiled("a", tests=[case()]), compiled("b", tests=[case(expect={"contains": ["no"]})]), compiled("c")]
    await world.put(*agents)
    check = OwnTests(world.trials, world.runs, world.clock, poll=0.02)
    async with working(world.trials):
        verdicts = await check.run(*change(*((None, one) for one in agents)))
        assert [(one.agent, one.outcome) for one in verdicts] == [(None, "failed"), ("b", "failed")]
        assert "1 of 2 tests passed" in verdicts[0].detail and "1 of 3 agents declare none" in verdicts[0].detail
        asked = len(world.calls.asked)
        assert [one.evidence for one in await check.run(*change(*((None, one) for one in agents)))] == [
            one.evidence for one in verdicts
        ]
        assert len(world.calls.asked) == asked, "asked again, it finds the same run"
        [well] = await check.run(*change((None, agents[0])))
        assert well.outcome == "passed" and well.stage == "build" and well.check == check.name


async def test_a_change_that_is_sent_again_as_it_was_is_tested_again(world: World) -> None:
    made, revisions = change((None, compiled("a", tests=[case()])))
    await world.put(compiled("a", tests=[case()]))
    check = OwnTests(world.trials, world.runs, world.clock, poll=0.02)
    world.calls.answer = lambda ask: problem("agent-failed")
    async with working(world.trials):
        assert (await check.run(made, revisions))[0].outcome == "failed"
        world.calls.answer = echo
        assert (await check.run(made, revisions))[0].outcome == "failed", "the same build finds the same run"
        amended = msgspec.structs.replace(made, since=made.since + 60.0)
        [found] = await check.run(amended, revisions)
    assert found.outcome == "passed"


async def test_a_rubric_without_a_judge_fails_the_check_as_skipped(world: World) -> None:
    agents = [compiled("a", tests=[case(expect={"rubric": "r"})])]
    await world.put(*agents)
    async with working(world.trials):
        verdicts = await OwnTests(world.trials, world.runs, world.clock, poll=0.02).run(
            *change(*((None, one) for one in agents))
        )
    assert [one.outcome for one in verdicts] == ["skipped", "skipped"]
    assert "trials.judge_model" in verdicts[1].detail
