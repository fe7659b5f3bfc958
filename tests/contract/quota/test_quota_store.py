"""What quotas rely on, whatever keeps them: sums, slices that never overlap, and a count of gateways."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.quota import QuotaStorage, expire_slices
from chimera.gateway.ports import Usage
from chimera.gateway.quota.model import NANO, Amount, Ask, Budget, Settlement, Spent
from chimera.gateway.quota.ports import QuotaStore
from chimera.kernel.clock import SystemClock
from chimera.testing.quota import MemoryQuota

DAY = "2031-05-06"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stores(dialect: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[QuotaStore, QuotaStore]]:
    """The store as two gateways have it."""
    if dialect == "memory":
        memory = MemoryQuota(SystemClock())
        yield memory, memory
        return
    name = request.getfixturevalue("database_name")
    databases = [open_database(name), open_database(name)]
    yield QuotaStorage(databases[0]), QuotaStorage(databases[1])
    for database in databases:
        await asyncio.to_thread(database.close)


def usage(tokens: int, usd: float | None, *, tenant: str = "default", day: str = DAY) -> Usage:
    return Usage(
        tenant=tenant, agent="anna", model="m", day=day, calls=1, prompt_tokens=tokens, completion_tokens=1, usd=usd
    )


def ask(need: int, *, tokens: int | None = 1_000, usd: int | None = None, day: str = DAY, agent: str = "anna") -> Ask:
    return Ask(
        tenant="default",
        agent=agent,
        day=day,
        budget=Budget(tokens=tokens, nano_usd=usd),
        need=Amount(tokens=need, nano_usd=need if usd is not None else 0),
    )


def spent(used: int = 0, returned: int = 0) -> Spent:
    return Spent(tenant="default", agent="anna", day=DAY, used=Amount(tokens=used), returned=Amount(tokens=returned))


async def test_use_is_summed_by_tenant_agent_model_and_day(stores: Any) -> None:
    store, _ = stores
    rows = (usage(10, 0.5), usage(5, 0.25), usage(1, 1.0, tenant="other"), usage(9, 9.0, day="2031-05-07"))
    await store.settle("a", Settlement(usage=rows))
    await store.settle("b", Settlement(usage=(usage(1, 0.25),)))
    await store.settle("a", Settlement())

    found = {row.tenant: row for row in await store.usage_of_day(DAY)}

    assert (found["default"].calls, found["default"].prompt_tokens, found["default"].completion_tokens) == (3, 16, 3)
    assert found["default"].usd == pytest.approx(1.0)
    assert found["other"] == usage(1, 1.0, tenant="other")
    assert len(found) == 2


async def test_unknown_prices_stay_unknown_until_one_is_known(stores: Any) -> None:
    store, _ = stores
    await store.settle("a", Settlement(usage=(usage(1, None),)))
    await store.settle("a", Settlement(usage=(usage(1, None),)))
    assert [row.usd for row in await store.usage_of_day(DAY)] == [None]
    await store.settle("a", Settlement(usage=(usage(1, 0.5),)))
    assert [row.usd for row in await store.usage_of_day(DAY)] == [0.5]


async def test_slices_count_until_they_are_used_or_given_back(stores: Any) -> None:
    one, other = stores
    (first,) = await one.grant("a", [ask(700)])
    assert first == Amount(tokens=700)
    assert list(await other.grant("b", [ask(301)])) == [None]
    # 100 used (and metered), 500 given back, 100 still held.
    await one.settle("a", Settlement(usage=(usage(99, None),), spent=(spent(100, 500),)))
    assert list(await other.grant("b", [ask(801)])) == [None]
    assert list(await other.grant("b", [ask(800)])) == [Amount(tokens=800)]
    assert list(await one.grant("a", [ask(1)])) == [None]
    assert list(await one.grant("a", [ask(1, day="2031-05-07"), ask(1, agent="bert")])) == [
        Amount(tokens=50),
        Amount(tokens=50),
    ]


async def test_what_was_used_beyond_a_slice_counts(stores: Any) -> None:
    one, other = stores
    await one.grant("a", [ask(100)])
    await one.settle("a", Settlement(usage=(usage(899, None),), spent=(spent(900),)))
    assert list(await other.grant("b", [ask(101)])) == [None]
    assert list(await other.grant("b", [ask(100)])) == [Amount(tokens=100)]


async def test_money_is_counted_as_it_was_metered(stores: Any) -> None:
    one, other = stores
    await one.settle("a", Settlement(usage=(usage(1, 0.7),)))
    assert list(await other.grant("b", [ask(NANO // 2, tokens=None, usd=NANO)])) == [None]
    (granted,) = await other.grant("b", [ask(NANO * 3 // 10, tokens=None, usd=NANO)])
    assert granted is not None
    assert granted.nano_usd == NANO * 3 // 10


async def test_gateways_that_ask_at_once_never_get_more_than_there_is(stores: Any) -> None:
    grants = await asyncio.gather(
        *(store.grant(name, [ask(40)]) for store, name in zip(stores, "ab", strict=True) for _ in range(25))
    )
    assert sum(amount.tokens for (amount,) in grants if amount is not None) <= 1_000
    assert any(amount is None for (amount,) in grants)


async def test_gateways_are_counted_while_they_say_that_they_live(stores: Any) -> None:
    one, other = stores
    assert await one.beat("a", 100.0) == 1
    assert await other.beat("b", 100.0) == 2
    assert await one.beat("a", 100.0) == 2
    await other.leave("b")
    assert await one.beat("a", 100.0) == 1
    await other.beat("c", -1.0)
    assert await one.beat("a", 100.0) == 1


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_slices_of_days_gone_by_are_removed_in_batches(stores: Any, database_name: str) -> None:
    store, _ = stores
    await store.grant("a", [ask(1, agent=f"agent-{number}") for number in range(5)])
    await store.grant("a", [ask(1, day="2031-05-07")])
    database = open_database(database_name)
    gone = [await database.write(lambda connection: expire_slices(connection, "2031-05-07", 3)) for _ in range(3)]
    await asyncio.to_thread(database.close)
    assert gone == [3, 2, 0]
