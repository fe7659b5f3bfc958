"""What each kind's job removes, and above all what it doesn't."""

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from chimera.adapters.storage.batches import BatchStatements
from chimera.adapters.storage.changes.contents import forget_revisions
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.quota import QuotaStorage
from chimera.adapters.storage.schema.catalogue import agent, batch, batch_item, bundle, cell, history, revision
from chimera.adapters.storage.schema.journal import event
from chimera.adapters.storage.schema.quota import usage
from chimera.adapters.storage.schema.state import session, space, space_entry
from chimera.adapters.storage.schema.subscriptions import subscription, task_webhook
from chimera.adapters.storage.schema.tasks import task
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.upkeep.measure import EXACT, measure
from chimera.agents.catalogue import BundleGone
from chimera.agents.compile import Bundle, CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.service import Asker, Changes, Draft
from chimera.events.delivery.model import Subscription, Target
from chimera.events.model import Fact
from chimera.gateway.ports import Usage
from chimera.gateway.quota.model import Settlement
from chimera.gateway.tasks.model import Submission
from chimera.kernel.ids import new_id
from chimera.platform.upkeep.rules import DAY
from chimera.testing.definitions import compiled, definition, staged

from .conftest import TENANT, Kept

ANNA = Asker(actor="user:anna", roles=frozenset({"operator"}))


def version(number: int, name: str = "anna") -> CompiledAgent:
    return compiled(name, metadata={"version": f"{number}.0.0"})


async def there(kept: Kept, *agents: CompiledAgent) -> list[bool]:
    return [await kept.catalogue.canonical(TENANT, agent.digest) is not None for agent in agents]


# -- revisions that are sent again meanwhile --------------------------------------------------------------------------


async def test_a_revision_that_is_sent_again_while_a_change_lets_go_of_it_stays(kept: Kept) -> None:
    again = version(1)
    batch = await kept.catalogue.open_batch(TENANT)
    await kept.catalogue.stage(TENANT, batch, staged(again))
    batches = BatchStatements(kept.database, kept.clock)
    other = await kept.catalogue.open_batch(TENANT)
    unsent = delete(batch_item).where(batch_item.c.batch == batch)
    await kept.database.write(lambda connection: connection.execute(unsent))
    sent, go_on = threading.Event(), threading.Event()

    def send(connection: Connection) -> None:
        batches.stage(connection, TENANT, other, [(item, None) for item in staged(again)])
        sent.set()
        go_on.wait(10.0)

    sending = asyncio.create_task(kept.database.write(send))
    await asyncio.to_thread(sent.wait, 10.0)
    letting_go = asyncio.create_task(
        kept.database.write(lambda connection: forget_revisions(connection, TENANT, [again.digest]))
    )
    await asyncio.wait([letting_go], timeout=0.2)  # it has begun, and on SQLite waits for its turn
    go_on.set()
    await sending
    assert (await letting_go, await there(kept, again)) == (0, [True])


# -- changes ---------------------------------------------------------------------------------------------------------


async def opened(kept: Kept, agent: CompiledAgent) -> tuple[Changes, str]:
    store = ChangeStorage(kept.database, kept.catalogue, kept.clock)
    changes = Changes(store, StoredPeople(kept.database), kept.clock, lambda: None)
    batch = await kept.catalogue.open_batch(TENANT)
    await kept.catalogue.stage(TENANT, batch, staged(agent))
    made = await changes.open(TENANT, ANNA, Draft(title="a change", batch=batch))
    return changes, made.id


async def test_an_open_change_keeps_its_revisions_and_one_that_ended_goes_with_them(kept: Kept) -> None:
    for number in range(1, 4):
        await kept.apply(version(number))
        kept.clock.advance(DAY)
    changes, first = await opened(kept, version(1))  # was live once, and is wanted again
    _, second = await opened(kept, version(9, "never-live"))
    kept.clock.advance(400 * DAY)
    assert await kept.work("revisions", revisions_days=20.0, revisions_last=1) == 1
    assert await kept.work("changes") == 0
    assert await there(kept, version(1), version(2), version(9, "never-live")) == [True, False, True]
    for change in (first, second):
        await changes.abort(TENANT, ANNA, change, "")
    kept.clock.advance(364 * DAY)
    assert await kept.work("changes") == 0
    kept.clock.advance(2 * DAY)
    assert await kept.work("changes") == 2
    assert await there(kept, version(1), version(9, "never-live")) == [True, False]
    assert await kept.work("revisions", revisions_days=20.0, revisions_last=1) == 1


# -- revisions, history, bundles -----------------------------------------------------------------------------------


async def test_revisions_go_by_when_they_were_last_live_and_the_newest_stay(kept: Kept) -> None:
    for number in range(1, 7):
        await kept.apply(version(number))
        kept.clock.advance(10 * DAY)
    await kept.apply(version(2))  # live again, and so among the newest
    kept.clock.advance(DAY)
    assert await kept.work("revisions", revisions_days=20.0, revisions_last=2) == 3
    all_of_them = [version(number) for number in range(1, 7)]
    assert await there(kept, *all_of_them) == [False, True, False, False, True, True]
    assert await kept.work("revisions", revisions_days=20.0, revisions_last=2) == 0
    kept.clock.advance(100 * DAY)
    assert await kept.work("revisions", revisions_days=20.0, revisions_last=2) == 1
    assert await there(kept, *all_of_them) == [False, True, False, False, False, True]
    await kept.apply(version(1))
    assert await there(kept, version(1)) == [True], "what went can be applied again"


async def test_a_deleted_agent_keeps_its_last_revision(kept: Kept) -> None:
    await kept.apply(version(1))
    kept.clock.advance(DAY)
    await kept.apply(version(2))
    await kept.catalogue.delete_agents(TENANT, ["anna"])
    kept.clock.advance(1_000 * DAY)
    assert await kept.work("revisions", revisions_days=1.0, revisions_last=1) == 1
    assert await there(kept, version(1), version(2)) == [False, True]
    await kept.apply(version(1))


async def test_deleted_agents_go_in_their_time_with_their_past_and_cells_that_nobody_is_in(kept: Kept) -> None:
    alone = compiled("alone", isolation="dedicated")
    for number in (1, 2):
        await kept.apply(version(number), version(number, "bert"), version(number, "carl"))
    await kept.apply(alone)
    await kept.catalogue.delete_agents(TENANT, ["anna", "alone"])
    kept.clock.advance(20 * DAY)
    await kept.catalogue.delete_agents(TENANT, ["bert"])
    kept.clock.advance(20 * DAY)
    cells = await kept.rows(cell)
    assert await kept.work("agents", agents_days=50.0) == 0
    assert await kept.work("agents", limit=1, agents_days=30.0) == 2
    left = select(agent.c.name, agent.c.status).order_by(agent.c.name)
    assert await kept.database.read(lambda connection: [tuple(row) for row in connection.execute(left)]) == [
        ("bert", "deleted"),
        ("carl", "live"),
    ]
    assert await kept.rows(cell) == cells - 1, "the others' cell is theirs"
    assert await there(kept, version(1), version(2), alone) == [False, False, False]
    assert await there(kept, *(version(number, name) for name in ("bert", "carl") for number in (1, 2))) == [True] * 4
    changes = select(history.c.agent).distinct().order_by(history.c.agent)
    assert await kept.database.read(lambda connection: connection.execute(changes).scalars().all()) == ["bert", "carl"]

    await kept.apply(version(2), version(2, "bert"), alone)
    kept.clock.advance(1_000 * DAY)
    assert await kept.work("agents", agents_days=30.0) == 0, "what lives again isn't deleted"
    assert [one.version for one in await kept.catalogue.history(TENANT, "anna")] == ["2.0.0"]
    assert await kept.rows(cell) == cells


async def test_a_revision_of_a_deleted_agent_that_is_on_its_way_in_stays(kept: Kept) -> None:
    await kept.apply(version(1))
    await kept.catalogue.delete_agents(TENANT, ["anna"])
    kept.clock.advance(40 * DAY)
    coming = await kept.catalogue.open_batch(TENANT)
    await kept.catalogue.stage(TENANT, coming, staged(version(1)))
    assert await kept.work("agents", agents_days=30.0) == 1
    assert await there(kept, version(1)) == [True]
    assert (await kept.catalogue.commit(TENANT, coming)).created == 1


async def test_agents_that_are_removed_and_applied_at_once_are_there(kept: Kept) -> None:
    names = [f"agent-{count:02d}" for count in range(30)]
    await kept.apply(*(version(1, name) for name in names))
    await kept.catalogue.delete_agents(TENANT, names)
    kept.clock.advance(40 * DAY)
    store = kept.store(agents_days=30.0)
    lease = await StoredLeases(kept.database).acquire("upkeep", "me", 3_600.0)
    assert lease is not None

    async def apply(some: list[str]) -> None:
        await kept.apply(*(version(1, name) for name in some))

    await asyncio.gather(
        *(store.step("agents", 7, (), lease) for _ in range(4)), *(apply(names[at : at + 5]) for at in range(0, 15, 5))
    )
    while (await store.step("agents", 7, (), lease)).removed:
        pass
    there_now = select(agent.c.name).order_by(agent.c.name)
    assert await kept.database.read(lambda connection: connection.execute(there_now).scalars().all()) == names[:15]
    assert await there(kept, *(version(1, name) for name in names)) == [True] * 15 + [False] * 15


async def test_a_revision_that_is_sent_again_stays(kept: Kept) -> None:
    for number in (1, 2, 3):
        await kept.apply(version(number))
    kept.clock.advance(100 * DAY)
    coming = await kept.catalogue.open_batch(TENANT)
    await kept.catalogue.stage(TENANT, coming, staged(version(1)))
    assert await kept.work("revisions", revisions_days=1.0, revisions_last=1) == 1
    assert await there(kept, version(1), version(2), version(3)) == [True, False, True]
    assert (await kept.catalogue.commit(TENANT, coming)).updated == 1


async def test_what_was_found_and_is_sent_meanwhile_is_not_removed(kept: Kept) -> None:
    for number in (1, 2, 3):
        await kept.apply(version(number))
    kept.clock.advance(100 * DAY)
    job = next(one for one in kept.store(revisions_last=1)._jobs.values() if one.kind == "revisions")
    found, _ = await kept.database.read(lambda connection: job.work.find(connection, kept.clock.wall(), ()))
    assert sorted(found) == sorted([(TENANT, version(1).digest), (TENANT, version(2).digest)])
    await kept.apply(version(2))
    now = kept.clock.wall()
    assert await kept.database.write(lambda connection: job.work.remove(connection, now, found)) == 1
    assert await there(kept, version(1), version(2), version(3)) == [False, True, True]


async def test_many_agents_are_looked_at_page_by_page(kept: Kept) -> None:
    for number in (1, 2):
        await kept.apply(*(version(number, f"agent-{count:03d}") for count in range(450)))
    kept.clock.advance(100 * DAY)
    assert await kept.work("revisions", limit=100, revisions_last=1) == 450
    assert await kept.rows(revision) == 450


async def test_history_outlives_its_revisions_and_then_goes_but_for_the_newest(kept: Kept) -> None:
    for number in range(1, 6):
        await kept.apply(version(number))
        kept.clock.advance(10 * DAY)
    kept.clock.advance(1_000 * DAY)
    assert await kept.work("history", history_days=1.0, revisions_last=2) == 0, "all revisions are there"
    assert await kept.work("revisions", revisions_days=1.0, revisions_last=2) == 3
    assert await kept.work("history", history_days=2_000.0, revisions_last=2) == 0, "too young"
    assert await kept.work("history", history_days=1.0, revisions_last=2) == 3
    left = await kept.catalogue.history(TENANT, "anna")
    assert [one.version for one in left] == ["5.0.0", "4.0.0"]
    kept.clock.advance(DAY)
    await kept.catalogue.open_batch(TENANT)  # which drops revisions that were never live
    assert await there(kept, version(4), version(5)) == [True, True]


def with_code(name: str, digest: str) -> CompiledAgent:
    changes = {"specification": {"framework": "function", "source": "./code", "entrypoint": "main:run"}}
    checked = check_data(definition(name, **changes))
    return compile_definition(checked, tenant=TENANT, bundle=Bundle(digest=digest, files=frozenset({"main.py"})))


def digest_of(letter: str) -> str:
    return f"sha256:{letter * 64}"


async def test_bundles_go_that_no_revision_names(kept: Kept) -> None:
    for letter in "abcd":
        await kept.catalogue.put_bundle(TENANT, digest_of(letter), b"files", None)
    await kept.catalogue.put_bundle("other", digest_of("a"), b"files", None)
    await kept.apply(with_code("anna", digest_of("a")))
    kept.clock.advance(5 * DAY)
    await kept.apply(with_code("anna", digest_of("b")))
    await kept.catalogue.put_bundle(TENANT, digest_of("c"), b"files", None)  # sent again: a batch is on its way
    kept.clock.advance(3 * DAY)
    assert await kept.work("bundles", bundles_days=7.0) == 2, "d, which nobody named, and the other tenant's"
    left = select(bundle.c.digest).order_by(bundle.c.digest)
    assert await kept.database.read(lambda connection: connection.execute(left).scalars().all()) == [
        digest_of(letter) for letter in "abc"
    ]
    kept.clock.advance(100 * DAY)
    assert await kept.work("revisions", revisions_days=1.0, revisions_last=1) == 1
    assert await kept.work("bundles", bundles_days=7.0) == 2
    assert await kept.catalogue.bundle(TENANT, digest_of("b")) == b"files"


async def test_a_bundle_that_went_is_asked_for_again(kept: Kept) -> None:
    with pytest.raises(BundleGone):
        await kept.apply(with_code("anna", digest_of("a")))
    assert await kept.rows(revision) == 0
    await kept.catalogue.put_bundle(TENANT, digest_of("a"), b"files", None)
    await kept.apply(with_code("anna", digest_of("a")))


async def test_abandoned_batches_go_without_anybody_applying(kept: Kept) -> None:
    coming = await kept.catalogue.open_batch(TENANT)
    await kept.catalogue.stage(TENANT, coming, staged(version(1)))
    kept.clock.advance(3_000)
    assert await kept.work("batches") == 0
    kept.clock.advance(1_000)
    assert await kept.work("batches") == 1
    assert [await kept.rows(table) for table in (batch, revision, history)] == [0, 0, 0]


# -- use -----------------------------------------------------------------------------------------------------------


def used(day: str, *, agent: str = "anna", calls: int = 1, usd: float | None = None) -> Usage:
    return Usage(
        tenant="t",
        agent=agent,
        model="m",
        day=day,
        calls=calls,
        prompt_tokens=10 * calls,
        completion_tokens=calls,
        usd=usd,
    )


async def sums(kept: Kept) -> dict[tuple[str, str], tuple[int, int, int, float | None]]:
    rows = await kept.database.read(lambda connection: connection.execute(select(usage)).all())
    return {(row.agent, row.day): (row.calls, row.prompt_tokens, row.completion_tokens, row.usd) for row in rows}


async def test_old_days_become_months_and_no_sum_is_lost(kept: Kept) -> None:
    quota = QuotaStorage(kept.database)  # it is 2030-03-17
    rows = [used("2029-11-30", usd=0.5), *(used(f"2029-12-{day:02d}", calls=day, usd=0.25) for day in range(1, 32))]
    rows += [used("2029-12-05", agent="bert"), used("2029-12-06", agent="bert", usd=1.0), used("2030-03-16", calls=7)]
    await quota.settle("gw", Settlement(usage=tuple(rows)))
    assert await kept.work("usage", limit=5, usage_days=60.0) == 34
    assert await sums(kept) == {
        ("anna", "2029-11"): (1, 10, 1, 0.5),
        ("anna", "2029-12"): (496, 4960, 496, 7.75),
        ("bert", "2029-12"): (2, 20, 2, 1.0),
        ("anna", "2030-03-16"): (7, 70, 7, None),
    }
    assert [one.calls for one in await quota.usage_of_day("2030-03-16")] == [7]
    await quota.settle("gw", Settlement(usage=(used("2029-12-31", calls=4),)))  # a gateway that was away
    assert await kept.work("usage", usage_days=60.0) == 1
    assert (await sums(kept))["anna", "2029-12"] == (500, 5000, 500, 7.75)
    assert await kept.work("usage-months", usage_months=3) == 1
    assert sorted(await sums(kept)) == [("anna", "2029-12"), ("anna", "2030-03-16"), ("bert", "2029-12")]


async def test_two_who_add_up_at_once_count_each_day_once(kept: Kept) -> None:
    quota = QuotaStorage(kept.database)
    await quota.settle("gw", Settlement(usage=tuple(used(f"2029-12-{day:02d}", calls=day) for day in range(1, 32))))
    stores = [kept.store(usage_days=60.0) for _ in range(2)]
    job = stores[0]._jobs["usage"].work

    async def add_up() -> int:
        removed = 0
        while found := await kept.database.write(lambda connection: job.expire(connection, kept.clock.wall(), 3)):
            removed += found
        return removed

    assert sum(await asyncio.gather(add_up(), add_up())) == 31
    assert await sums(kept) == {("anna", "2029-12"): (496, 4960, 496, None)}


# -- facts ---------------------------------------------------------------------------------------------------------


async def told(kept: Kept, count: int) -> None:
    def job(connection: Connection) -> None:
        for _ in range(count):
            data = {"digest": "sha256:" + "a" * 64, "size": 1}
            journal(connection).fact(
                Fact(
                    id=new_id("evt"),
                    type="bundle.stored",
                    tenant="t",
                    subject="bundles/x",
                    at=kept.clock.wall(),
                    data=data,
                )
            )

    await kept.database.write(job)


async def test_facts_go_in_their_order_and_never_beyond_what_is_needed(kept: Kept) -> None:
    await told(kept, 4)
    its = {"tenant": "t", "id": new_id("sub"), "name": "shop", "url": "https://shop.example", "key": "k"}
    made = Subscription(**its, created_by="b", created=0.0, updated=0.0, cursor=0)
    await SubscriptionStorage(kept.database).create(made, "now", "b", most=9)
    await told(kept, 6)
    kept.clock.advance(40 * DAY)
    await told(kept, 5)
    assert await kept.work("events", events_days=30.0) == 4
    paused = update(subscription).values(state="paused", paused=kept.clock.wall())
    await kept.database.write(lambda connection: connection.execute(paused).rowcount)
    assert await kept.work("events", events_days=30.0) == 0
    kept.clock.advance(8 * DAY)
    assert await kept.work("events", events_days=30.0) == 7, "with the fact that the subscription was made"
    assert await kept.work("events", events_days=30.0) == 0
    query = select(event.c.seq).order_by(event.c.seq)
    assert await kept.database.read(lambda connection: connection.execute(query).scalars().all()) == list(range(12, 17))
    kept.clock.advance(40 * DAY)
    assert await kept.work("events", events_days=30.0) == 5
    await told(kept, 1)
    assert await kept.database.read(lambda connection: connection.execute(query).scalars().all()) == [17]


async def test_a_webhook_goes_with_its_task_once_all_is_told_or_never_will_be(kept: Kept) -> None:
    store = TaskStorage(kept.database, keep=DAY, lease=60.0)
    hook = Target(url="https://hook.example/t", key="k1", states=("succeeded",))
    now = kept.clock.wall()
    names = [new_id("task") for _ in range(3)]
    for tenant, name in zip(("t", "t", "other"), names, strict=True):
        wanted = {"tenant": tenant, "task": name, "agent": "anna", "actor": "a", "deadline": now + DAY, "priority": 100}
        rest = {"max_attempts": 1, "request": b"{}", "digest": b"d", "webhook": hook}
        await store.submit([Submission(**wanted, **rest)])

    def end(*some: str) -> Any:
        over = task.c.task.in_(some)
        change = update(task).where(over).values(finished=now, expires=now, lane=None, state="succeeded")
        return lambda connection: connection.execute(change).rowcount

    def to(tenant: str, **values: Any) -> Any:
        its = (subscription.c.tenant == tenant) & (subscription.c.kind == "tasks")
        return lambda connection: connection.execute(update(subscription).where(its).values(**values)).rowcount

    async def left() -> set[str]:
        query = select(task_webhook.c.task)
        return set(await kept.database.read(lambda connection: connection.execute(query).scalars().all()))

    await kept.database.write(end(names[0], names[2]))
    kept.clock.advance(2 * DAY)
    assert await kept.work("webhooks") == 0, "their tasks are there"
    assert await kept.work("tasks") == 2
    assert await kept.work("webhooks") == 0, "both ends are still to be told"

    last = (await JournalStorage(kept.database).heads())[0]
    assert await kept.database.write(to("t", cursor=last - 1)) == 1
    assert await kept.work("webhooks") == 0, "the last of it may be the end"
    await kept.database.write(to("t", cursor=last))
    assert await kept.work("webhooks") == 1
    assert await left() == {names[1], names[2]}, "one's task is there, the other's tenant has not told of it"

    await kept.database.write(to("other", state="paused", paused=kept.clock.wall()))
    kept.clock.advance(6 * DAY)
    assert await kept.work("webhooks") == 0, "it may be resumed"
    kept.clock.advance(2 * DAY)
    assert await kept.work("webhooks") == 1
    await kept.database.write(end(names[1]))
    assert await kept.work("tasks") == 1
    await SubscriptionStorage(kept.database).delete("t", "tasks:k1", "b")
    assert await kept.work("webhooks") == 1, "there is nobody to tell it"
    assert await left() == set()


# -- state ---------------------------------------------------------------------------------------------------------


async def test_a_space_keeps_count_of_what_is_left_in_it(kept: Kept) -> None:
    now = kept.clock.wall()

    def job(connection: Connection) -> None:
        row = {"owner": "o", "declared": b"{}", "version": 1, "created": 0.0, "updated": 0.0}
        for name, ends in (("gone", now - 9 * DAY), ("stays", None)):
            its = {"tenant": "t", "space": name, **row, "entries": 4, "bytes": 400, "expires": ends}
            connection.execute(insert(space).values(its))
            entry = {"tenant": "t", "space": name, "version": 1, "value": b"1", "bytes": 100, "by": "b", "updated": 0.0}
            for number in range(4):
                ended = now - 9 * DAY if number < 3 else None
                connection.execute(insert(space_entry).values(**entry, key=f"k{number}", expires=ended))

    await kept.database.write(job)
    store = kept.store()
    lease_work = [await kept.database.write(lambda c: store._jobs["spaces"].work.expire(c, now, 2)) for _ in range(4)]
    assert lease_work == [3, 1, 0, 0], "a space and two keys, the third key"
    left = await kept.database.read(lambda c: c.execute(select(space.c.space, space.c.entries, space.c.bytes)).all())
    assert [tuple(row) for row in left] == [("stays", 1, 100)]
    assert await kept.rows(space_entry) == 1


# -- measures ------------------------------------------------------------------------------------------------------


async def test_many_rows_are_measured_about_without_being_counted(kept: Kept) -> None:
    def fill(connection: Connection) -> None:
        row = {"tenant": "t", "agent": "a", "version": 1, "state": b"x" * 500, "updated": 0.0}
        rows: list[dict[str, Any]] = [{**row, "session": f"s{number:05d}"} for number in range(4 * EXACT)]
        connection.execute(insert(session), rows)
        # A tenth of the numbers is free again.
        connection.execute(session.delete().where(session.c.session.like("%3")))
        connection.execute(update(session).values(version=2))

    await kept.database.write(fill)
    if kept.database.dialect == "postgresql":
        await kept.database.write(lambda connection: connection.exec_driver_sql("ANALYZE session"))
    rows, size = await kept.database.read(lambda connection: measure(connection, (session,)))
    true = 4 * EXACT * 9 // 10
    assert 0.9 * true <= rows <= 1.1 * true
    assert 500 * true <= size <= 3_000 * true
