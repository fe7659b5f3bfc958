"""The queue on both databases: accepted once, claimed once, fenced, tended, kept and erased."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.adapters.storage.schema.tasks import task as table
from chimera.adapters.storage.schema.tasks import task_worker
from chimera.adapters.storage.tasks.store import TaskStorage, expire_tasks
from chimera.events.delivery.model import Target
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import Turns, Want, choose
from chimera.gateway.tasks.errors import TaskFinished, TaskTaken, WorkerLost
from chimera.gateway.tasks.model import Claimed, Progress, Submission, TaskFilter, TaskKey
from chimera.gateway.tasks.ports import Held
from chimera_host.contract.problem import Problem

from .conftest import KEEP, LEASE, submission

FAILED = Problem(type="t", title="It failed", status=502, detail="no", code="host-failed")


async def put(store: TaskStorage, *tasks: Submission) -> list[TaskKey]:
    accepted = await store.submit(tasks)
    return [TaskKey(tenant=one.task.tenant, task=one.task.task) for one in accepted]


async def take(store: TaskStorage, worker: str = "w1", count: int = 10, life: float = LEASE) -> list[Claimed]:
    await store.arrive(worker, LEASE)
    look = await store.look(worker, Turns())
    wants, _ = choose(look.survey, free=count, room=lambda tenant, agent: count, turns=Turns())
    return list(await store.claim(worker, wants, life))


def key_of(claimed: Claimed) -> TaskKey:
    return TaskKey(tenant=claimed.task.tenant, task=claimed.task.task)


def held(claimed: Claimed) -> dict[str, Any]:
    return {"worker": claimed.task.worker, "token": claimed.task.token}


async def facts(database: Database) -> list[tuple[str, str]]:
    query = select(event.c.type, event.c.subject).order_by(event.c.seq)
    return await database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


async def test_a_submission_is_there_and_told(store: TaskStorage, database: Database) -> None:
    (key,) = await put(store, submission())
    found = await store.get(key)
    assert found is not None and found.task.state == "queued" and found.result is None
    assert [change.why for change in found.task.history] == ["submitted"]
    assert await facts(database) == [("task.submitted", f"agents/anna/tasks/{key.task}")]


async def test_the_same_key_twice_is_one_task(store: TaskStorage) -> None:
    (first,) = await store.submit([submission(key="k")])
    (second,) = await store.submit([submission(key="k")])
    (other,) = await store.submit([submission(key="k", text="something else")])
    assert (first.existed, second.existed, second.mismatch) == (False, True, False)
    assert second.task == first.task
    assert other.existed and other.mismatch


async def test_the_same_key_twice_in_one_batch_is_one_task(store: TaskStorage) -> None:
    first, second, third = await store.submit([submission(key="k"), submission(key="k"), submission()])
    assert second.task.task == first.task.task != third.task.task


async def test_of_two_gateways_that_submit_one_key_one_makes_the_task(store: TaskStorage, database_name: str) -> None:
    other_database = open_database(database_name)
    other = TaskStorage(other_database, keep=KEEP, lease=LEASE)
    try:
        answers = await asyncio.gather(
            *(one.submit([submission(key="k")]) for one in (store, other) for _ in range(10))
        )
        assert len({answer[0].task.task for answer in answers}) == 1
        assert sum(not answer[0].existed for answer in answers) == 1
    finally:
        await asyncio.to_thread(other_database.close)


async def test_tasks_are_claimed_in_their_order_and_once(store: TaskStorage) -> None:
    keys = sorted(await put(store, *(submission() for _ in range(5))), key=lambda key: key.task)
    first = await take(store, "w1", 2)
    second = await take(store, "w2", 10)
    assert [key_of(one) for one in first] == keys[:2]
    assert [key_of(one) for one in second] == keys[2:]
    assert first[0].request.messages[0].content == "do it"
    assert {one.task.attempts for one in first + second} == {1}


async def test_two_gateways_never_claim_the_same(store: TaskStorage, database_name: str) -> None:
    other_database = open_database(database_name)
    other = TaskStorage(other_database, keep=KEEP, lease=LEASE)
    try:
        agents = [f"a{number}" for number in range(7)]
        keys = await put(store, *(submission(agent) for agent in agents for _ in range(30)))
        claimed: list[Claimed] = []

        async def work(one: TaskStorage, worker: str) -> None:
            while got := await take(one, worker, 8):
                claimed.extend(got)

        await asyncio.gather(work(store, "w1"), work(other, "w2"), work(store, "w3"))
        assert len(claimed) == len(keys) == len({one.task.task for one in claimed})
    finally:
        await asyncio.to_thread(other_database.close)


async def test_priority_decides_within_a_tenant(store: TaskStorage) -> None:
    await put(store, submission("anna", priority=-100), submission("anna", priority=100), submission("bert"))
    assert [one.task.priority for one in await take(store, count=1)] == [100]
    assert [one.task.agent for one in await take(store, count=1)] == ["bert"]
    assert [one.task.priority for one in await take(store, count=1)] == [-100]


async def test_a_claim_of_what_is_late_expires_it(store: TaskStorage) -> None:
    (key,) = await put(store, submission(deadline=time.time() - 1))
    assert await take(store) == []
    found = await store.get(key)
    assert found is not None and found.task.state == "expired" and found.task.expires is not None
    assert found.task.problem is not None and found.task.problem.code == "task-expired"


async def test_a_result_is_kept_with_its_task(store: TaskStorage, database: Database) -> None:
    await put(store, submission())
    (claimed,) = await take(store)
    made = await store.settle(key_of(claimed), rules.Succeed(**held(claimed)), b'{"output":"x"}')
    assert made.state == "succeeded" and made.worker == ""
    found = await store.get(key_of(claimed))
    assert found is not None and found.result == b'{"output":"x"}'
    assert [kind for kind, _ in await facts(database)] == ["task.submitted", "task.started", "task.succeeded"]


async def test_an_old_token_never_wins(store: TaskStorage) -> None:
    await put(store, submission())
    (old,) = await take(store, "w1", life=-1)
    assert await store.tend(losses=9, limit=10) == 1
    (new,) = await take(store, "w1b")
    for event_ in (
        rules.Succeed(**held(old)),
        rules.GiveBack(**held(old)),
        rules.Fail(**held(old), problem=FAILED, kind="final"),
        rules.Succeed(worker="w1b", token=old.task.token),
    ):
        with pytest.raises(TaskTaken):
            await store.settle(key_of(old), event_, b"{}")
    assert (await store.settle(key_of(new), rules.Succeed(**held(new)), b"{}")).losses == 1


async def test_a_lost_worker_learns_it(store: TaskStorage) -> None:
    await put(store, submission())
    await take(store, "w1", life=-1)
    await store.beat("w1", -1)  # late, but nobody has taken anything from it
    assert (await store.look("w2", Turns())).overdue
    await store.tend(losses=9, limit=10)
    assert not (await store.look("w2", Turns())).overdue
    with pytest.raises(WorkerLost):
        await store.beat("w1", LEASE)
    with pytest.raises(WorkerLost):
        await store.claim("w1", [Want(tenant="default", lane="100/anna", count=1)], LEASE)


async def test_a_lost_worker_with_many_tasks_loses_all(store: TaskStorage) -> None:
    await put(store, *(submission() for _ in range(5)))
    assert len(await take(store, "w1", life=-1)) == 5
    changed = [await store.tend(losses=9, limit=2) for _ in range(4)]
    assert changed == [2, 2, 1, 0]
    assert len(await take(store, "w2")) == 5


async def test_a_lease_from_before_the_clock_went_back_counts_as_over(store: TaskStorage, database: Database) -> None:
    await put(store, submission())
    await take(store, "w1")
    far = update(task_worker).values(expires=time.time() + 10 * LEASE)
    await database.write(lambda connection: connection.execute(far).rowcount)
    assert await store.tend(losses=9, limit=10) == 1


async def test_a_task_that_loses_its_worker_too_often_fails(store: TaskStorage) -> None:
    (key,) = await put(store, submission())
    for number in range(2):
        await take(store, f"w{number}", life=-1)
        await store.tend(losses=2, limit=10)
    found = await store.get(key)
    assert found is not None and found.task.state == "failed"
    assert found.task.problem is not None and found.task.problem.code == "task-lost"


async def test_waiting_tasks_are_queued_when_due(store: TaskStorage, database: Database) -> None:
    (key,) = await put(store, submission(not_before=time.time() + 900))
    assert not (await store.look("w1", Turns())).overdue
    assert await take(store) == []
    await database.write(lambda connection: connection.execute(update(table).values(due=1.0)).rowcount)
    assert (await store.look("w1", Turns())).overdue
    assert await store.tend(losses=9, limit=10) == 1
    assert [key_of(one) for one in await take(store)] == [key]


async def test_a_failed_attempt_waits_and_is_taken_again(store: TaskStorage, database: Database) -> None:
    await put(store, submission())
    (first,) = await take(store)
    made = await store.settle(key_of(first), rules.Fail(**held(first), problem=FAILED, kind="retry", after=0.0))
    assert (made.state, made.failures) == ("waiting", 1)
    await store.tend(losses=9, limit=10)
    (second,) = await take(store)
    assert second.task.token > first.task.token and second.task.attempts == 2
    assert ("task.retried", f"agents/anna/tasks/{first.task.task}") in await facts(database)


async def test_cancelling(store: TaskStorage, database: Database) -> None:
    queued, running = await put(store, submission("bert"), submission())
    (claimed,) = [one for one in await take(store, "w1") if key_of(one) == running] or [None]
    assert claimed is not None
    (other,) = await put(store, submission("carl"))
    made = await store.cancel(other, "key:two")
    assert made is not None and made.state == "cancelled"
    assert (await store.cancel(running, "key:two")).cancelling  # type: ignore[union-attr]
    (seen,) = [one for one in (await store.look("w1", Turns())).held if one.key == running]
    assert seen == Held(key=running, token=1, cancelling=True)
    assert (await store.settle(running, rules.Stopped(**held(claimed)))).state == "cancelled"
    with pytest.raises(TaskFinished):
        await store.cancel(running, "key:two")
    assert await store.cancel(TaskKey(tenant="default", task="none"), "key:two") is None
    query = select(audit_entry.c.action, audit_entry.c.actor)
    entries = await database.read(lambda connection: connection.execute(query).all())
    assert [tuple(row) for row in entries] == [("task:cancel", "key:two")] * 2
    assert queued


async def test_progress_is_the_holders_alone(store: TaskStorage) -> None:
    await put(store, submission())
    (claimed,) = await take(store, "w1")
    key = key_of(claimed)
    await store.progress("w1", {key: (claimed.task.token, Progress(attempt=1, at=5.0, text="so far"))})
    await store.progress("w1", {key: (claimed.task.token - 1, Progress(attempt=1, at=6.0, text="late"))})
    found = await store.get(key)
    assert found is not None and found.progress == Progress(attempt=1, at=5.0, text="so far")
    assert await store.versions([key, TaskKey(tenant="default", task="none")]) == {key: (2, 5.0)}


async def test_pages(store: TaskStorage) -> None:
    await put(store, *(submission("anna") for _ in range(5)), submission("bert", subject="ann"))
    every = await store.page(TaskFilter(tenant="default", limit=4))
    rest = await store.page(TaskFilter(tenant="default", limit=4, before=every[-1].task))
    names = [one.task for one in (*every, *rest)]
    assert len(names) == 6 and names == sorted(names, reverse=True)
    assert len(await store.page(TaskFilter(tenant="default", agent="anna"))) == 5
    assert len(await store.page(TaskFilter(tenant="default", subject="ann"))) == 1
    assert len(await store.page(TaskFilter(tenant="default", state="running"))) == 0
    assert len(await store.page(TaskFilter(tenant="other"))) == 0
    assert await store.backlog("default", 4) == 4


async def test_a_persons_tasks_are_found_exported_and_erased(store: TaskStorage) -> None:
    (key,) = await put(store, submission(subject="ann"))
    await put(store, submission(subject="ben"))
    assert await store.count("default", "ann") == 1
    (record,) = await store.records("default", "ann", "", 10)
    assert record["id"] == key.task and record["request"]["messages"][0]["content"] == "do it"
    assert msgspec.json.encode(record) and "principal" not in record["request"]
    assert await store.records("default", "ann", record["id"], 10) == []
    assert await store.erase("default", "ann", 10) == 1
    assert await store.get(key) is None
    assert await store.count("default", "ben") == 1


async def test_what_is_erased_while_it_runs_is_its_workers_no_more(store: TaskStorage) -> None:
    await put(store, submission(subject="ann"))
    (claimed,) = await take(store)
    await store.erase("default", "ann", 10)
    with pytest.raises(TaskTaken):
        await store.settle(key_of(claimed), rules.Succeed(**held(claimed)), b"{}")


async def test_finished_tasks_are_removed_after_their_time(store: TaskStorage, database: Database) -> None:
    await put(store, *(submission(key=str(number)) for number in range(3)))
    for claimed in await take(store):
        await store.settle(key_of(claimed), rules.Succeed(**held(claimed)), b"{}")
    await put(store, submission())
    early, late = time.time(), time.time() + KEEP + 10
    assert await database.write(lambda connection: expire_tasks(connection, early, 10)) == 0
    assert await database.write(lambda connection: expire_tasks(connection, late, 2)) == 2
    assert await database.write(lambda connection: expire_tasks(connection, late, 2)) == 1
    assert len(await store.page(TaskFilter(tenant="default"))) == 1
    assert not (await store.submit([submission(key="1")]))[0].existed


async def test_a_look_costs_a_seek_for_each_lane_and_sees_all_tenants_in_turn(store: TaskStorage) -> None:
    tenants = [f"t{number:02}" for number in range(40)]
    await put(store, *(submission(agent, tenant=tenant) for tenant in tenants for agent in ("anna", "bert")))
    first = (await store.look("w", Turns())).survey
    assert list(first.lanes) == tenants[:32]
    assert all(list(lanes) == ["100/anna", "100/bert"] for lanes in first.lanes.values())
    second = (await store.look("w", Turns(tenant="t35", lanes={"t36": "100/anna"}))).survey
    assert list(second.lanes) == [*tenants[36:], *tenants[:28]]
    assert sorted(set(second.lanes["t36"])) == ["100/anna", "100/bert"]


async def test_a_webhook_is_kept_with_its_task_and_told_by_a_subscription_of_the_platforms(
    store: TaskStorage, database: Database
) -> None:
    target = Target(url="https://hook.example/t?token=x", key="k1", states=("succeeded",))
    deliveries = DeliveryStorage(database, letters=9, letter_keep=9.0)
    subscriptions = SubscriptionStorage(database)
    first, again, plain = await store.submit(
        [submission(key="k", webhook=target, subject="p"), submission(key="k", webhook=target), submission()]
    )
    assert again.existed
    await store.submit([submission(webhook=target, tenant="other")])
    tasks = [("default", one.task.task) for one in (first, plain)]
    assert await deliveries.targets([*tasks, ("other", first.task.task)]) == {tasks[0]: target}
    made = await deliveries.subscriptions("k1")
    assert sorted((one.tenant, one.kind, one.cursor) for one in made) == [
        ("default", "tasks", 0),
        ("other", "tasks", 2),
    ]
    assert [one.name for one in await subscriptions.page("default", "", 9)] == ["tasks:k1"], "it is there to be seen"
    assert (await JournalStorage(database).heads())[1] == 2
    await store.submit([submission(webhook=target)])
    assert len(await deliveries.subscriptions("k1")) == 2
    await subscriptions.delete("default", "tasks:k1", "b")
    await store.submit([submission(webhook=target)])
    assert len(await deliveries.subscriptions("k1")) == 2, "the next webhook makes it again"

    assert await store.erase("default", "p", 9) == 1
    assert await deliveries.targets(tasks) == {}
