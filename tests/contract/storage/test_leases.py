"""What relies on leases relies on this, whatever keeps them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases, check_lease, forget_lease
from chimera.adapters.storage.opening import open_database
from chimera.kernel.leases import Leases
from chimera.testing.clock import ManualClock
from chimera.testing.leases import MemoryLeases


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def leases(dialect: str, request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Leases]:
    if dialect == "memory":
        yield MemoryLeases(clock)
        return
    database = open_database(request.getfixturevalue("database_name"), clock=clock)
    yield StoredLeases(database)
    await asyncio.to_thread(database.close)


async def test_a_lease_excludes_others_until_it_expires(leases: Leases, clock: ManualClock) -> None:
    mine = await leases.acquire("work", "me", 10.0)
    assert mine is not None
    assert (mine.token, mine.expires) == (1, clock.wall() + 10.0)
    assert await leases.acquire("work", "you", 10.0) is None

    clock.advance(10.0)
    yours = await leases.acquire("work", "you", 10.0)
    assert yours is not None
    assert (yours.owner, yours.token) == ("you", 2)
    assert await leases.acquire("work", "me", 10.0) is None


async def test_renewing_keeps_the_token(leases: Leases, clock: ManualClock) -> None:
    for _ in range(5):
        mine = await leases.acquire("work", "me", 10.0)
        clock.advance(9.0)
    assert mine is not None
    assert mine.token == 1
    assert await leases.acquire("work", "you", 10.0) is None


async def test_a_lease_given_back_is_free_at_once_and_its_token_goes_on(leases: Leases) -> None:
    mine = await leases.acquire("work", "me", 10.0)
    assert mine is not None
    await leases.release(mine)
    yours = await leases.acquire("work", "you", 10.0)
    assert yours is not None
    assert yours.token > mine.token

    await leases.release(mine)
    assert await leases.acquire("work", "me", 10.0) is None


async def test_leases_of_other_names_are_free(leases: Leases) -> None:
    assert await leases.acquire("one", "me", 10.0)
    assert await leases.acquire("two", "you", 10.0)


async def test_of_many_who_ask_at_once_one_gets_it(leases: Leases) -> None:
    got = await asyncio.gather(*(leases.acquire("work", f"owner-{number}", 10.0) for number in range(20)))
    assert sum(one is not None for one in got) == 1


async def test_a_clock_that_goes_back_holds_nobody_for_long(leases: Leases, clock: ManualClock) -> None:
    assert await leases.acquire("work", "me", 10.0)
    clock.advance(-3600.0)
    yours = await leases.acquire("work", "you", 10.0)
    assert yours is not None
    assert yours.token == 2


class TestInTheDatabase:
    @pytest.fixture(params=["sqlite", "postgresql"])
    def dialect(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    async def test_who_has_lost_it_writes_nothing(self, database: Database, database_name: str) -> None:
        leases = StoredLeases(database)
        mine = await leases.acquire("work", "me", 10.0)
        assert mine is not None
        await database.write(lambda connection: check_lease(connection, mine))
        await leases.release(mine)
        yours = await leases.acquire("work", "you", 10.0)
        assert yours is not None

        with pytest.raises(LeaseLost):
            await database.write(lambda connection: check_lease(connection, mine))
        await database.write(lambda connection: check_lease(connection, yours))
        await database.write(lambda connection: forget_lease(connection, "work"))
        with pytest.raises(LeaseLost):
            await database.write(lambda connection: check_lease(connection, yours))

    async def test_of_several_processes_who_ask_at_once_one_gets_it(self, database_name: str) -> None:
        several = [open_database(database_name) for _ in range(4)]
        for round_ in range(5):
            asked = (
                StoredLeases(one).acquire(f"work-{round_}", f"owner-{number}", 10.0)
                for number, one in enumerate(several)
            )
            assert sum(one is not None for one in await asyncio.gather(*asked)) == 1
        for one in several:
            await asyncio.to_thread(one.close)
