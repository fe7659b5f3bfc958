"""Earlier traffic, of both databases and of the fake: what is read of whom, how much, and whether it is still there."""

import time
from typing import Any, Protocol

import msgspec
import pytest
from sqlalchemy import select

from chimera.adapters.storage.changes.policies import put_policy
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.journal import audit_entry
from chimera.adapters.storage.state.sessions import SessionStorage
from chimera.adapters.storage.state.subjects import SubjectStorage
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.copies import StoredCopies
from chimera.adapters.storage.trials.environments import StoredEnvironments
from chimera.adapters.storage.trials.traffic import STRETCH, STRETCHES, TASKS, StoredTraffic
from chimera.delivery.policy import DeliveryPolicy, ReplayPolicy
from chimera.delivery.staging.ports import Traffic, Wanted
from chimera.delivery.staging.sampling import Earlier
from chimera.delivery.trials.environment import Environment
from chimera.gateway.state.model import StoredSession
from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import Want
from chimera.gateway.tasks.model import Submission, TaskKey, TaskRequest
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import new_id
from chimera.testing.trials import FakeTraffic
from chimera_host.contract.call import Message, SessionState

TENANT = "acme"


def talk(*said: str) -> tuple[Message, ...]:
    roles: dict[str, Any] = {"u": "user", "a": "assistant"}
    return tuple(Message(role=roles[one[0]], content=one) for one in said)


class Kept(Protocol):
    """Something that holds earlier traffic, and how a test puts it there."""

    traffic: Traffic

    async def session(self, name: str, messages: tuple[Message, ...], **fields: Any) -> None: ...

    async def task(self, messages: tuple[Message, ...], **fields: Any) -> str: ...

    async def erase(self, kind: str, name: str, agent: str = "a") -> None: ...

    async def policy(self, replay: ReplayPolicy) -> None: ...

    async def audited(self) -> list[dict[str, Any]]: ...


class InDatabase:
    """Sessions and tasks as gateways keep them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.traffic: Traffic = StoredTraffic(database, SystemClock())
        self.sessions = SessionStorage(database)
        self.tasks = TaskStorage(database, keep=100_000.0, lease=15.0)

    async def session(self, name: str, messages: tuple[Message, ...], **fields: Any) -> None:
        fields = {"tenant": TENANT, "agent": "a", "version": 1, "updated": time.time(), **fields}
        await self.sessions.save_session(StoredSession(session=name, state=SessionState(messages=messages), **fields))

    async def task(self, messages: tuple[Message, ...], *, ended: bool = True, **fields: Any) -> str:
        agent = fields.pop("agent", "a")
        made = Submission(
            tenant=TENANT,
            task=new_id("task"),
            agent=agent,
            request=msgspec.json.encode(TaskRequest(messages=messages, principal=b"{}")),
            digest=b"d",
            deadline=time.time() + 1_000,
            **fields,
        )
        await self.tasks.submit([made])
        if ended:
            await self.tasks.arrive("w", 15.0)
            want = Want(tenant=TENANT, lane=f"100/{agent}", count=1)
            [claimed] = await self.tasks.claim("w", [want], 15.0)
            done = rules.Succeed(worker="w", token=claimed.task.token)
            await self.tasks.settle(TaskKey(tenant=TENANT, task=claimed.task.task), done, b"{}")
        return made.task

    async def erase(self, kind: str, name: str, agent: str = "a") -> None:
        if kind == "session":
            await self.sessions.delete_session(TENANT, agent, name)
        else:
            assert await self.tasks.erase(TENANT, "ann", 10)

    async def policy(self, replay: ReplayPolicy) -> None:
        policy = DeliveryPolicy(replay=replay)
        await self.database.write(
            lambda connection: put_policy(connection, TENANT, policy, expect=None, by="user:u", now=1.0)
        )

    async def audited(self) -> list[dict[str, Any]]:
        rows = await self.database.read(lambda connection: connection.execute(select(audit_entry)).all())
        entries = [msgspec.json.decode(row.entry) for row in rows if row.action == "change:replay"]
        return [{"action": one["action"], "resource": one["resource"], **one["detail"]} for one in entries]


class Faked:
    """The fake, told of the same."""

    def __init__(self) -> None:
        self.fake = FakeTraffic()
        self.traffic: Traffic = self.fake

    async def session(self, name: str, messages: tuple[Message, ...], **fields: Any) -> None:
        tenant, agent = fields.get("tenant", TENANT), fields.get("agent", "a")
        some = self.fake.kept.get((tenant, agent), [])
        self.fake.kept[tenant, agent] = [one for one in some if one.name != name]
        if (expires := fields.get("expires")) is not None:
            self.fake.ends[name] = expires
        for place in range(0, len(messages) - 1, 2):
            said, subject = messages[: place + 1], fields.get("subject")
            self.fake.add(
                tenant, Earlier(agent=agent, kind="session", name=name, messages=said, place=place, subject=subject)
            )

    async def task(self, messages: tuple[Message, ...], *, ended: bool = True, **fields: Any) -> str:
        name = new_id("task")
        if ended and fields.get("session") is None:
            agent, subject = fields.get("agent", "a"), fields.get("subject")
            self.fake.add(TENANT, Earlier(agent=agent, kind="task", name=name, messages=messages, subject=subject))
        return name

    async def erase(self, kind: str, name: str, agent: str = "a") -> None:
        self.fake.kept[TENANT, agent] = [one for one in self.fake.kept[TENANT, agent] if one.name != name]

    async def policy(self, replay: ReplayPolicy) -> None:
        self.fake.policy = replay

    async def audited(self) -> list[dict[str, Any]]:
        return [
            {"action": "change:replay", "resource": f"changes/{change}", **counts}
            for _, change, counts in self.fake.told_of
        ]


@pytest.fixture(params=["stored", "fake"])
def kept(request: pytest.FixtureRequest, database: Database) -> Kept:
    return Faked() if request.param == "fake" else InDatabase(database)


def wanted(**fields: Any) -> Wanted:
    return Wanted(**{"want": 20, "kept_until": time.time(), "people": False, "most_bytes": 100, "seed": "s"} | fields)


async def read(kept: Kept, agent: str = "a", **fields: Any) -> list[Earlier]:
    return list((await kept.traffic.earlier(TENANT, [agent], wanted(**fields)))[agent])


async def test_turns_of_sessions_and_what_tasks_asked_are_read(kept: Kept) -> None:
    await kept.session("s1", talk("u1", "a1", "u2", "a2"))
    name = await kept.task(talk("u3"))
    await kept.session("s1", talk("u other"), agent="b")
    await kept.session("s9", talk("u9", "a9"), tenant="other")
    found = {(one.kind, one.name, one.place): one.messages for one in await read(kept)}
    assert found == {
        ("session", "s1", 0): talk("u1"),
        ("session", "s1", 2): talk("u1", "a1", "u2"),
        ("task", name, 0): talk("u3"),
    }
    assert await read(kept, "nobody") == []


async def test_tasks_that_have_not_ended_or_go_on_with_a_session_are_left_out(kept: Kept) -> None:
    await kept.task(talk("u1"), session="s1")
    await kept.task(talk("u2"), ended=False)
    assert await read(kept) == []


async def test_what_is_of_a_person_is_read_where_it_may_be_and_says_whose_it_is(kept: Kept) -> None:
    await kept.session("s1", talk("u1", "a1"), subject="ann")
    await kept.task(talk("u2"), subject="ann")
    await kept.session("s2", talk("u3", "a3"))
    assert [one.subject for one in await read(kept)] == [None]
    assert sorted(str(one.subject) for one in await read(kept, people=True)) == ["None", "ann", "ann"]


async def test_nothing_is_read_that_may_end_too_soon_or_is_too_long(kept: Kept) -> None:
    now = time.time()
    await kept.session("soon", talk("u1", "a1"), expires=now + 50)
    await kept.session("late", talk("u2", "a2"), expires=now + 500)
    await kept.session("long", talk("u" * 200, "a3"))
    await kept.session("ever", talk("u4", "a4"))
    found = await read(kept, kept_until=now + 100)
    assert sorted(one.name for one in found) == ["ever", "late"]


async def test_the_same_seed_reads_the_same_and_no_more_than_is_wanted(kept: Kept) -> None:
    for number in range(40):
        await kept.session(f"customer-{number:03d}", talk(f"u{number}", "a"))
    one, again, other = [await read(kept, want=5, seed=seed) for seed in ("x", "x", "y")]
    assert len(one) == 5 and one == again and one != other


async def test_what_was_erased_or_replaced_is_not_there_any_more(kept: Kept) -> None:
    await kept.session("s1", talk("u1", "a1", "u2", "a2"))
    name = await kept.task(talk("u3"), subject="ann")
    found = {(one.kind, one.place): one for one in await read(kept, people=True)}
    assert all([await kept.traffic.is_kept(TENANT, one) for one in found.values()])
    assert not await kept.traffic.is_kept("other", found["task", 0])
    await kept.erase("task", name)
    assert not await kept.traffic.is_kept(TENANT, found["task", 0])
    await kept.erase("session", "s1")
    await kept.session("s1", talk("u1", "a1", "u something else", "a2"))
    assert await kept.traffic.is_kept(TENANT, found["session", 0])
    assert not await kept.traffic.is_kept(TENANT, found["session", 2])


async def test_the_tenants_policy_says_what_may_be_replayed(kept: Kept) -> None:
    assert await kept.traffic.allowed(TENANT) == ReplayPolicy()
    await kept.policy(ReplayPolicy(data_classes=("personal",), people=True))
    assert await kept.traffic.allowed(TENANT) == ReplayPolicy(data_classes=("personal",), people=True)


async def test_reading_is_on_record(kept: Kept) -> None:
    await kept.traffic.told(TENANT, "chg_1", {"agents": 2, "inputs": 30, "of_people": 1})
    assert await kept.audited() == [
        {"action": "change:replay", "resource": "changes/chg_1", "agents": 2, "inputs": 30, "of_people": 1}
    ]


async def test_what_is_looked_at_of_an_agent_is_bounded_and_spread(database: Database) -> None:
    kept = InDatabase(database)
    for number in range(300):
        await kept.session(f"customer-{number:03d}", talk(f"u{number}", "a"))
    found = [int(one.name[-3:]) for one in await read(kept, want=1_000)]
    assert STRETCH < len(found) <= STRETCHES * STRETCH and min(found) < 100 and max(found) > 200, sorted(found)
    assert TASKS == 200


async def test_copies_in_environments_are_counted_exported_and_erased_with_their_person(database: Database) -> None:
    kept = InDatabase(database)
    environments = StoredEnvironments(database)
    copies = StoredCopies(database, kept.tasks, SubjectStorage(database))
    for name, tenant in (("env--1", TENANT), ("env--2", TENANT), ("env--3", "other")):
        made = Environment(name=name, tenant=tenant, purpose="staging-replay", key=name, created=1.0, expires=9e9)
        await environments.open(made, most=5)

    def copy(tenant: str, subject: str | None) -> Submission:
        request = msgspec.json.encode(TaskRequest(messages=talk("u secret"), principal=b"{}"))
        rest: dict[str, Any] = {"agent": "a", "request": request, "digest": b"d", "deadline": time.time() + 1_000}
        return Submission(tenant=tenant, task=new_id("task"), subject=subject, **rest)

    mine = [copy("env--1", "ann"), copy("env--2", "ann"), copy("env--2", "ann")]
    others = [copy("env--2", None), copy("env--2", "bob"), copy("env--3", "ann"), copy(TENANT, "ann")]
    await kept.tasks.submit([*mine, *others])
    assert await copies.count(TENANT, "ann") == 3 and await copies.count(TENANT, "nobody") == 0
    pages: list[str] = []
    while page := await copies.records(TENANT, "ann", pages[-1] if pages else "", 2):
        pages += [str(record["id"]) for record in page]
    assert pages == sorted(one.task for one in mine)
    erased = 0
    while count := await copies.erase(TENANT, "ann", 1):
        erased += count
    assert erased == 3 and await copies.count(TENANT, "ann") == 0
    left = [await kept.tasks.get(TaskKey(tenant=one.tenant, task=one.task)) for one in others]
    assert all(one is not None for one in left)
