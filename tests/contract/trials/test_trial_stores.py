"""Runs of tests and environments on both databases: kept once, counted right, gone when they are to go."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.schema.catalogue import agent, cell, revision
from chimera.adapters.storage.schema.journal import audit_entry
from chimera.adapters.storage.schema.tables import metadata
from chimera.adapters.storage.schema.trials import trial_result
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.environments import KEPT, StoredEnvironments
from chimera.adapters.storage.trials.runs import StoredRuns, expire_trials
from chimera.agents.compile import Bundle, compile_definition
from chimera.agents.merge import merge
from chimera.agents.validate import check_data
from chimera.delivery.trials.environment import Environment, compiled_for, name_of, reached
from chimera.delivery.trials.environments import LEFT_BEHIND, Environments
from chimera.delivery.trials.errors import EnvironmentTooLarge, TooManyEnvironments
from chimera.delivery.trials.model import Candidate, CaseResult, Run
from chimera.delivery.trials.settings import TrialSettings
from chimera.gateway.tasks.model import Submission
from chimera.kernel.ids import is_environment, is_name, new_id
from chimera.platform.cells import cell_id, runtime_class
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import FULL, compiled, staged

ONE = [Candidate(agent="a", revision="sha256:1")]


def run(tenant: str = "acme", **fields: Any) -> Run:
    now = time.time()
    return Run(
        **{"run": new_id("tests"), "tenant": tenant, "state": "waiting", "by": "key:k", "created": now, "updated": now}
        | {"agents": 1}
        | fields
    )


def result(agent: str = "a", case: str = "c", outcome: Any = "passed") -> CaseResult:
    return CaseResult(agent=agent, case=case, revision="sha256:1", outcome=outcome, detail="d")


@pytest.fixture
def runs(database: Database) -> StoredRuns:
    return StoredRuns(database, keep=60.0)


async def test_a_run_is_begun_once_and_found_by_its_key(runs: StoredRuns, database: Database) -> None:
    first, again, other = run(), run(), run("other")
    assert await runs.create(first, ONE, "k") == first
    assert (await runs.create(again, [], "k")).run == first.run
    assert await runs.create(other, ONE, "k") == other
    assert await runs.get("acme", first.run) == first and await runs.get("other", first.run) is None
    assert list(await runs.candidates("acme", first.run)) == ONE
    assert {one.run for one in await runs.unfinished()} == {first.run, other.run}
    rows = await database.read(lambda connection: connection.execute(select(audit_entry)).all())
    assert [row.action for row in rows] == ["test:run", "test:run"]


async def test_results_are_kept_and_counted_once(runs: StoredRuns) -> None:
    made = await runs.create(run(), ONE, "k")
    assert await runs.begin("acme", made.run, total=4, untested=2) == set()
    assert await runs.add("acme", made.run, [result(), result("b"), result("b", "d", "failed")])
    assert await runs.add("acme", made.run, [result(), result("a", "e", "skipped")])
    found = await runs.get("acme", made.run)
    assert found is not None and (found.state, found.untested) == ("running", 2)
    assert msgspec.structs.astuple(found.counts) == (4, 2, 1, 1) and found.counts.finished == 4
    assert await runs.begin("acme", made.run, total=4, untested=2) == {("a", "c"), ("a", "e"), ("b", "c"), ("b", "d")}
    page = await runs.results("acme", made.run, outcomes=(), after=("a", "c"), limit=2)
    assert [(one.agent, one.case) for one in page] == [("a", "e"), ("b", "c")]
    wrong = await runs.results("acme", made.run, outcomes=("failed", "skipped"), after=("", ""), limit=9)
    assert [one.outcome for one in wrong] == ["skipped", "failed"]


async def test_a_run_that_is_over_stays_as_it_is_and_takes_no_more_results(runs: StoredRuns) -> None:
    made = await runs.create(run(), ONE, "k")
    ended = await runs.finish("acme", made.run, "cancelled", by="key:k")
    assert ended is not None and ended.state == "cancelled"
    again = await runs.finish("acme", made.run, "done", by="system:trials")
    assert again is not None and again.state == "cancelled"
    assert not await runs.add("acme", made.run, [result()])
    assert await runs.finish("acme", "nothing", "done", by="x") is None
    assert await runs.unfinished() == []


async def test_runs_are_listed_newest_first_and_go_with_their_results(runs: StoredRuns, database: Database) -> None:
    made = [await runs.create(run(run=f"tests_{n}"), ONE, f"k{n}") for n in range(3)]
    assert [one.run for one in await runs.page("acme", None, 2)] == ["tests_2", "tests_1"]
    assert [one.run for one in await runs.page("acme", "tests_1", 2)] == ["tests_0"]
    await runs.add("acme", made[0].run, [result()])
    await runs.finish("acme", made[0].run, "done", by="x")
    now = time.time()
    assert await database.write(lambda connection: expire_trials(connection, now, 9)) == 0
    assert await database.write(lambda connection: expire_trials(connection, now + 61.0, 9)) == 1
    assert await database.read(lambda connection: connection.execute(select(trial_result)).all()) == []
    assert {one.run for one in await runs.page("acme", None, 9)} == {"tests_1", "tests_2"}


# -- environments -----------------------------------------------------------------------------------------------------


def test_what_an_environment_holds_is_production_but_for_what_would_reach_out_of_it() -> None:
    data = merge(FULL, {"metadata": {"name": "a"}})
    value = compile_definition(check_data(data), tenant="default", bundle=Bundle(digest=f"sha256:{'0' * 64}")).value
    name = name_of("default", "tests", "k")
    assert is_environment(name) and is_name(name) and name == name_of("default", "tests", "k")
    assert name != name_of("default", "tests", "l")
    there = compiled_for(value, name, "scripted").value
    assert there.agent.tenant == name and there.agent.scripted and not there.subscriptions and not there.tests
    assert (there.min_instances, there.calls_per_minute, there.isolation) == (0, None, "dedicated")
    assert cell_id(runtime_class(there)) != cell_id(runtime_class(value))
    assert compiled_for(value, name, "real").value.agent == msgspec.structs.replace(value.agent, tenant=name)
    assert reached(value) == {"searcher"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalogue(database: Database, clock: ManualClock) -> Catalogue:
    return Catalogue(database, max_hosts=2, clock=clock)


def environments(database: Database, catalogue: Catalogue, clock: ManualClock, **settings: Any) -> Environments:
    return Environments(catalogue, StoredEnvironments(database), clock, TrialSettings(**settings))


async def live(catalogue: Catalogue, tenant: str) -> list[str]:
    return [row["name"] for row in await catalogue.agents(tenant, {}, "", 1_000)]


async def test_an_environment_is_made_and_taken_away_by_the_catalogue(
    database: Database, catalogue: Catalogue, clock: ManualClock
) -> None:
    made = environments(database, catalogue, clock, judge_model="default")
    values = [compiled("a").value, compiled("rubric-judge").value]
    name, judge = await made.make("default", "tests", "k", values, tools="scripted", judge=True)
    assert judge == "rubric-judge-2" and await live(catalogue, name) == ["a", "rubric-judge", "rubric-judge-2"]
    assert await live(catalogue, "default") == []
    again, _ = await made.make("default", "tests", "k", values[:1], tools="scripted")
    assert again == name
    await made.remove("default", "tests", "k")
    await made.remove("default", "tests", "k")
    await made.remove("default", "tests", "never made")
    assert await live(catalogue, name) == []


async def test_a_tenant_has_so_many_at_once_and_each_holds_so_much(
    database: Database, catalogue: Catalogue, clock: ManualClock
) -> None:
    made = environments(database, catalogue, clock, environments=2, agents=1)
    value = compiled("a").value
    await made.make("default", "tests", "1", [value], tools="real")
    await made.make("default", "tests", "2", [value], tools="real")
    with pytest.raises(TooManyEnvironments, match="2 environments"):
        await made.make("default", "tests", "3", [value], tools="real")
    await made.make("default", "tests", "2", [value], tools="real")
    await made.make("other", "tests", "1", [value], tools="real")
    await made.remove("default", "tests", "1")
    await made.make("default", "tests", "3", [value], tools="real")
    with pytest.raises(EnvironmentTooLarge):
        await made.make("other", "tests", "2", [value, value], tools="real")


async def test_one_that_nobody_takes_away_goes_and_leaves_nothing_behind_but_its_record(
    database: Database, catalogue: Catalogue, clock: ManualClock
) -> None:
    made = environments(database, catalogue, clock, life=100.0)
    await catalogue.apply("default", staged(compiled("stays")), keep_going=False, expect=None, by="x")
    name, _ = await made.make("default", "tests", "k", [compiled(f"a{n}").value for n in range(3)], tools="real")
    task = Submission(
        tenant=name, task=new_id("task"), agent="a0", request=b"{}", digest=b"d", deadline=time.time() + 9
    )
    await TaskStorage(database, keep=9.0, lease=9.0).submit([task])
    await made.sweep()
    assert len(await live(catalogue, name)) == 3
    clock.advance(101.0)
    await made.sweep()
    assert await live(catalogue, name) == []
    await made.sweep()

    def left(connection: Any) -> dict[str, int]:
        counts = {}
        for table in metadata.sorted_tables:
            if "tenant" in table.c:
                counts[table.name] = len(connection.execute(select(table).where(table.c.tenant == name)).all())
        cells = connection.execute(select(cell.c.id).where(cell.c.id.startswith(name))).all()
        return {**{key: value for key, value in counts.items() if value}, "cell": len(cells)}

    before = await database.read(left)
    assert before["agent"] == 3 and before["cell"] and before["task"] == 1
    clock.advance(LEFT_BEHIND + 1)
    for _ in range(3):
        await made.sweep()
    after = await database.read(left)
    assert after.pop("cell") == 0 and set(after) <= KEPT and "event" in after
    assert await StoredEnvironments(database).all() == []
    assert await live(catalogue, "default") == ["stays"]
    assert len(await database.read(lambda connection: connection.execute(select(revision)).all())) == 1
    assert len(await database.read(lambda connection: connection.execute(select(agent)).all())) == 1


async def test_one_that_is_opened_again_before_it_is_emptied_keeps_all_that_it_has(
    database: Database, catalogue: Catalogue, clock: ManualClock
) -> None:
    made, store = environments(database, catalogue, clock), StoredEnvironments(database)
    name, _ = await made.make("default", "staging", "k", [compiled("a").value], tools="real")
    await made.remove("default", "staging", "k")
    clock.advance(LEFT_BEHIND + 1)
    await made.make("default", "staging", "k", [compiled("a").value], tools="real")
    assert await store.purge(name, 99) == 0
    assert await live(catalogue, name) == ["a"] and [one.closed for one in await store.all()] == [None]


async def test_who_lost_the_lease_neither_makes_one_nor_takes_it_away(
    database: Database, catalogue: Catalogue, clock: ManualClock
) -> None:
    made, leases = environments(database, catalogue, clock), StoredLeases(database)
    old = await leases.acquire("pipeline", "old", 60.0)
    assert old is not None
    name, _ = await made.make("default", "staging", "k", [compiled("a").value], tools="real", held=old)
    await leases.release(old)
    new = await leases.acquire("pipeline", "new", 60.0)
    store = StoredEnvironments(database)
    [there] = await store.all()
    late = await catalogue.open_batch(name)
    await catalogue.stage(name, late, staged(compiled("b", tenant=name)))
    for refused in (
        made.make("default", "staging", "other", [compiled("a").value], tools="real", held=old),
        catalogue.commit(name, late, held=old),
        made.remove("default", "staging", "k", held=old),
        store.close(name, clock.wall(), held=old),
    ):
        with pytest.raises(LeaseLost):
            await refused
    assert await store.all() == [there] and await live(catalogue, name) == ["a"]
    await made.remove("default", "staging", "k", held=new)
    assert await live(catalogue, name) == []


async def test_two_that_are_opened_at_once_are_counted_one_after_the_other(database: Database) -> None:
    store = StoredEnvironments(database)
    wanted = [
        Environment(name=f"env--{n}", tenant="acme", purpose="tests", key=str(n), created=1.0, expires=2.0)
        for n in range(4)
    ]
    made = await asyncio.gather(*(store.open(one, most=2) for one in wanted), return_exceptions=True)
    assert sum(isinstance(one, TooManyEnvironments) for one in made) == 2
