"""What the deliverer relies on, whatever keeps subscriptions: the databases, and the fake that simulations run on."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.opening import open_database
from chimera.events.delivery.model import Progress, Row, Subscription
from chimera.events.model import Fact
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease
from chimera.testing.events import MemoryEvents

from .conftest import KEEP, LETTERS, subscription


class Kept(Protocol):
    """A store, and what happens behind it."""

    journal: Any
    store: Any

    async def happen(self, *subjects: str) -> None: ...

    async def subscribe(self, name: str) -> Subscription: ...

    async def pause(self, name: str) -> None: ...

    async def drop(self, name: str, seq: int) -> None: ...

    async def lease(self, token: int) -> Lease: ...


class InMemory:
    def __init__(self) -> None:
        self.store = self.journal = MemoryEvents()

    async def happen(self, *subjects: str) -> None:
        for subject in subjects:
            self.store.happen(subject)

    async def subscribe(self, name: str) -> Subscription:
        return self.store.subscribe(name, key="k1")

    async def pause(self, name: str) -> None:
        self.store.change(name, state="paused", why="asked")

    async def drop(self, name: str, seq: int) -> None:
        self.store.drop(name, seq)

    async def lease(self, token: int) -> Lease:
        self.store.token = token
        return Lease(name="delivery", owner=f"o{token}", token=token, expires=0.0)


class InDatabase:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = DeliveryStorage(database, letters=LETTERS, letter_keep=KEEP)
        self.journal = JournalStorage(database)
        self.subscriptions = SubscriptionStorage(database)
        self.held: Lease | None = None

    async def happen(self, *subjects: str) -> None:
        def job(connection: Any) -> None:
            for subject in subjects:
                data = {"name": "t", "by": "b"}
                fact = Fact(
                    id=new_id("evt"), type="tenant.resumed", tenant="default", subject=subject, at=0.0, data=data
                )
                journal(connection).fact(fact)

        await self.database.write(job)

    async def subscribe(self, name: str) -> Subscription:
        return await self.subscriptions.create(subscription(name), "now", "b", most=9)

    async def pause(self, name: str) -> None:
        def paused(one: Subscription) -> Subscription:
            return replace(one, state="paused", why="asked", paused=1.0)

        await self.subscriptions.change("default", name, paused, what="paused", by="b")

    async def drop(self, name: str, seq: int) -> None:
        await self.subscriptions.drop("default", [f"dl_{seq}"], "b")

    async def lease(self, token: int) -> Lease:
        leases = StoredLeases(self.database)
        if self.held is not None:
            await leases.release(self.held)
        self.held = await leases.acquire("delivery", f"o{token}", 100.0)
        assert self.held is not None and self.held.token == token
        return self.held


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def kept(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    if dialect == "memory":
        yield InMemory()
        return
    database = open_database(request.getfixturevalue("database_name"))
    try:
        yield InDatabase(database)
    finally:
        database.close()


def progress(of: Subscription, cursor: int, *put: Row, **fields: Any) -> Progress:
    return Progress(subscription=of.id, epoch=of.epoch, cursor=cursor, put=put, **fields)


async def one(kept: Kept, name: str) -> Subscription:
    return next(one for one in await kept.store.subscriptions("k1") if one.name == name)


async def test_the_journal_is_read_in_order_from_any_place(kept: Kept) -> None:
    assert await kept.journal.heads() == (0, 0)
    await kept.happen("a", "b", "a")
    assert (await kept.journal.heads())[0] == 3
    assert [fact.seq for fact in await kept.journal.facts(1, 1)] == [2]
    assert [fact.subject for fact in await kept.journal.facts(0, 9)] == ["a", "b", "a"]
    assert [fact.seq for fact in await kept.journal.facts_at([3, 1])] == [1, 3]
    assert [fact.seq for fact in await kept.journal.facts_of("default", before=3, limit=1)] == [2]
    assert await kept.journal.oldest() == 1


async def test_progress_moves_on_and_never_back_and_only_under_the_lease(kept: Kept) -> None:
    made = await kept.subscribe("shop")
    await kept.happen("a", "a", "a", "a")
    at = made.cursor
    lease = await kept.lease(1)
    rows = [Row(seq=at + 2, tenant="default", attempts=1, first=5.0, due=6.0), Row(seq=at + 3, tenant="default")]
    await kept.store.save([progress(made, at + 3, *rows, delivered=4.0, failed=5.0, failure="no")], lease)
    stored = await one(kept, "shop")
    assert (stored.cursor, stored.delivered, stored.failed, stored.failure) == (at + 3, 4.0, 5.0, "no")
    assert (await kept.store.kept(stored, stored.cursor)).rows == rows

    await kept.store.save([progress(made, at, drop=[at + 2])], lease)
    stored = await one(kept, "shop")
    assert stored.cursor == at + 3
    assert [row.seq for row in (await kept.store.kept(stored, stored.cursor)).rows] == [at + 3]

    await kept.lease(2)
    with pytest.raises(LeaseLost):
        await kept.store.save([progress(made, at + 4)], lease)
    assert (await one(kept, "shop")).cursor == at + 3


async def test_dead_letters_and_dropped_ones_are_over_and_no_drop_of_a_delivery_takes_them(kept: Kept) -> None:
    made = await kept.subscribe("shop")
    await kept.happen("a", "b", "c")
    at, lease = made.cursor, await kept.lease(1)
    facts = await kept.journal.facts_at([at + 2, at + 3])
    dead = [
        Row(seq=fact.seq, tenant="default", attempts=9, letter=f"dl_{fact.seq}", died=1.0, fact=fact) for fact in facts
    ]
    await kept.store.save([progress(made, at, *dead)], lease)
    await kept.store.save([progress(made, at, drop=[at + 2])], lease)
    assert (await kept.store.kept(made, at)).over == {at + 2, at + 3}
    await kept.drop("shop", at + 2)
    found = await kept.store.kept(made, at)
    assert (found.rows, found.over) == ([], {at + 2, at + 3})
    assert (await kept.store.kept(made, at + 3)).over == frozenset()


async def test_pausing_is_a_change_whoever_does_it(kept: Kept) -> None:
    made = await kept.subscribe("shop")
    other = await kept.subscribe("other")
    lease, changes = await kept.lease(1), (await kept.journal.heads())[1]
    await kept.store.save([progress(made, made.cursor, pause="gone")], lease)
    stored = await one(kept, "shop")
    assert (stored.state, stored.why, stored.version) == ("paused", "gone", made.version + 1)
    assert (await kept.journal.heads())[1] == changes + 1
    await kept.pause("other")
    stored = await one(kept, "other")
    assert (stored.state, stored.why, stored.version) == ("paused", "asked", other.version + 1)
    assert (await kept.journal.heads())[1] == changes + 2


async def test_what_is_of_another_epoch_is_nobodys(kept: Kept) -> None:
    made = await kept.subscribe("shop")
    await kept.happen("a")
    lease = await kept.lease(1)
    older = replace(made, epoch=made.epoch - 1)
    await kept.store.save([progress(older, made.cursor + 1, Row(seq=made.cursor + 1, tenant="default"))], lease)
    stored = await one(kept, "shop")
    assert stored.cursor == made.cursor
    assert (await kept.store.kept(stored, 0)).rows == []
