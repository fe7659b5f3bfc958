"""Subscriptions on both databases, and facts to deliver."""

from collections.abc import Awaitable, Callable

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import StoredLeases
from chimera.events.delivery.model import Subscription
from chimera.events.model import Fact
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease

LETTERS, KEEP = 3, 1_000.0
Happen = Callable[..., Awaitable[None]]


def subscription(name: str = "shop", **fields: object) -> Subscription:
    made = {"tenant": "default", "url": "https://shop.example/in?token=t", "key": "k1", "created": 1.0, "updated": 1.0}
    made |= {"id": new_id("sub"), "name": name, "cursor": 0, "created_by": "key:one", **fields}
    return Subscription(**made)  # type: ignore[arg-type]


@pytest.fixture
def happen(database: Database) -> Happen:
    """`happen(n, subject, tenant)`: n facts about a subject, each in a transaction of its own."""

    async def record(count: int = 1, subject: str = "tenant", tenant: str = "default") -> None:
        for _ in range(count):
            data = {"name": tenant, "by": "system:test"}
            fact = Fact(id=new_id("evt"), type="tenant.resumed", tenant=tenant, subject=subject, at=5.0, data=data)
            await database.write(lambda connection, fact=fact: journal(connection).fact(fact))  # type: ignore[misc]

    return record


@pytest.fixture
def journal_store(database: Database) -> JournalStorage:
    return JournalStorage(database)


@pytest.fixture
def subscriptions(database: Database) -> SubscriptionStorage:
    return SubscriptionStorage(database)


@pytest.fixture
def deliveries(database: Database) -> DeliveryStorage:
    return DeliveryStorage(database, letters=LETTERS, letter_keep=KEEP)


@pytest.fixture
async def lease(database: Database) -> Lease:
    got = await StoredLeases(database).acquire("delivery", "me", 100.0)
    assert got is not None
    return got
