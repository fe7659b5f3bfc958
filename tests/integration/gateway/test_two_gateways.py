"""Two gateways on one PostgreSQL database: how far they go over a budget and over calls a minute between them."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.quota import QuotaStorage
from chimera.bootstrap.gateway_config import ModelConfig
from chimera.gateway.metering import day_of
from chimera_host.contract.call import InvokeRequest

from .conftest import World

CHAT = "/internal/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "x"}]}
PRICED = ModelConfig(
    provider="scripted", usd_per_million_prompt_tokens=1_000_000.0, usd_per_million_completion_tokens=0.0
)
BUDGET, SLICE, HELD = 700.0, 35.0, 13.0
"""Dollars of a day; what a gateway is granted of that at the most at once; and what a call holds while it runs."""
LIMIT = 12
SETTINGS = {"beat": 3_600.0, "expiry": 7_200.0, "burst": 60.0}
"""Gateways count each other when a test says so, and a minute's calls may come at once."""


@pytest.fixture(params=["postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def two(database_name: str, tmp_path: Path) -> AsyncIterator[list[World]]:
    """Two gateways, each with a connection of its own; the first was alone until the second came."""
    worlds: list[World] = []
    try:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            database = open_database(database_name)
            world = World(tmp_path / name, database, models={"default": PRICED}, settings={"quota": dict(SETTINGS)})
            world.quota = QuotaStorage(database)  # type: ignore[assignment]
            await world.__aenter__()
            worlds.append(world)
            await world.gateway.quota.beat()
        yield worlds
    finally:
        for world in reversed(worlds):
            await world.__aexit__()
            await asyncio.to_thread(world.database.close)


async def spend_all(world: World) -> int:
    """Make model calls in a call of the agent until one is refused; how many there were."""
    made = 0

    async def answer(request: InvokeRequest) -> str:
        nonlocal made
        while True:
            status, body = await world.internal(CHAT, BODY | {"max_tokens": 1}, call=request.call)
            if status == 429:
                assert body["code"] == "budget-exceeded"
                return "no more"
            assert status == 200, body
            made += 1

    await world.host(answer=answer)
    status, body = await world.invoke()
    assert status == 200, body
    return made


@pytest.mark.parametrize("counted", [7, 20], ids=["as was held", "more than was held"])
async def test_money_is_overspent_by_less_than_a_slice_a_gateway(two: list[World], counted: int) -> None:
    for world in two:
        await world.agent(max_usd_per_day=BUDGET)
        world.model.usage = {"prompt_tokens": counted, "completion_tokens": 5, "total_tokens": counted + 5}
    made = await asyncio.gather(*(spend_all(world) for world in two))
    for world in two:
        await world.gateway.quota.settle()
    rows = await two[0].quota.usage_of_day(day_of(time.time()))
    spent = sum(row.usd or 0.0 for row in rows)
    assert all(made) and spent == pytest.approx(sum(made) * counted), "both spent, and all of it is written down"
    over = max(0.0, counted - HELD)
    assert spent <= BUDGET + len(two) * over <= BUDGET + len(two) * SLICE
    assert spent > BUDGET - len(two) * SLICE - HELD, "and the rest isn't lost to slices"


async def taken(world: World, agent: str) -> int:
    """How many calls a gateway lets in until it refuses one."""
    count = 0
    while True:
        status, body = await world.invoke(agent)
        if status == 429:
            assert body["code"] == "rate-exceeded"
            return count
        assert status == 200, body
        count += 1


async def test_calls_a_minute_are_overshot_by_one_share_at_the_most(two: list[World]) -> None:
    for world in two:
        await world.host()
        for agent in ("before", "after"):
            await world.agent(agent, calls_per_minute=LIMIT)

    async def both(agent: str) -> tuple[list[int], float]:
        began = time.monotonic()
        found = await asyncio.gather(*(taken(world, agent) for world in two))
        return found, LIMIT + LIMIT * (time.monotonic() - began) / 60  # what comes back while it is asked for

    (alone, late), most = await both("before")
    assert alone >= LIMIT, "it hasn't counted the second yet"
    assert late >= LIMIT // 2 and alone + late <= most + LIMIT // 2

    for world in two:
        await world.gateway.quota.beat()
    shares, most = await both("after")
    assert min(shares) >= LIMIT // 2 and sum(shares) <= most
