"""Switches under load: no call fails, whatever dies meanwhile, no session leaves its revision, and rollbacks take hold.

`CHIMERA_TEST_SWITCHES=500` makes as many as the figures are about.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from benchmarks.switching import Callers, Switched, gateway_on, say_revision
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import open_database
from chimera.bootstrap.gateway_parts import Gateway
from chimera.testing.hosts import FakeHost
from chimera.testing.pool import FakeHostPool

SWITCHES = int(os.environ.get("CHIMERA_TEST_SWITCHES", "12"))


class Rig:
    """Two gateways, the hosts of one cell, and an agent."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.switched = Switched(database, ["anna"])
        self.pools = [FakeHostPool(), FakeHostPool()]
        self.gateways: list[Gateway] = []
        self.hosts: list[FakeHost] = []
        self.cell = ""
        self._stack = stack
        self._made = 0

    async def host(self) -> None:
        """One more host takes calls."""
        self._made += 1
        host = await self._stack.enter_async_context(FakeHost(f"host-{self._made}", self.cell, say_revision))
        self.hosts.append(host)
        for pool in self.pools:
            pool.add(host.endpoint)

    async def lose_host(self) -> None:
        """The oldest host dies with what runs on it, and another takes its place."""
        await self.host()
        dead = self.hosts.pop(0)
        await dead.stop()
        for pool in self.pools:
            pool.remove(dead.host)

    async def seen(self) -> None:
        """Both gateways have read what was committed."""
        for gateway in self.gateways:
            await gateway.routes.refresh()

    def callers(self) -> Callers:
        return Callers(urls=[gateway.public_url for gateway in self.gateways])


@pytest.fixture(params=["postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def rig(database_name: str, tmp_path: Path) -> AsyncIterator[Rig]:
    databases = [open_database(database_name) for _ in range(3)]
    async with AsyncExitStack() as stack:
        made = Rig(databases[0], stack)
        made.cell = await made.switched.begin()
        for _ in range(2):
            await made.host()
        for number, database in enumerate(databases[1:]):
            context = gateway_on(tmp_path / str(number), database, made.pools[number], routes={"poll": 0.05})
            made.gateways.append(await stack.enter_async_context(context))
        yield made
    for database in databases:
        await asyncio.to_thread(database.close)


async def test_no_call_fails_through_any_switch_and_no_session_leaves_its_revision(rig: Rig) -> None:
    async with rig.callers() as callers:
        await callers.more(8)
        for number in range(SWITCHES):
            for step in (rig.switched.set_green, rig.switched.weigh, rig.switched.finish):
                await step(number)
                await rig.seen()
                await callers.more(4)
            if number % 4 == 1:
                await rig.lose_host()
        await callers.more(8)
    assert not callers.failed, callers.failed[:3]
    by_session = defaultdict(set)
    for one in callers.calls:
        by_session[one.session].add(one.revision)
    free = by_session.pop(None)
    assert len(free) == 2 and all(len(revisions) == 1 for revisions in by_session.values())


@pytest.mark.parametrize("now", [False, True])
async def test_after_a_rollback_no_new_call_or_turn_reaches_the_bad_revision(rig: Rig, now: bool) -> None:
    bad = rig.switched.revisions[1][0].digest
    async with rig.callers() as callers:
        await rig.switched.set_green(0)
        await rig.switched.weigh(0)
        await rig.seen()
        await callers.more(16)
        await rig.switched.finish(0)
        await rig.seen()
        assert bad in {one.revision for one in callers.calls}
        await rig.switched.roll_back(now=now)
        await rig.seen()
        since = time.monotonic()
        await callers.more(40)
    after = [one for one in callers.calls if one.began > since]
    assert len(after) >= 20 and {one.revision for one in after} == {rig.switched.revisions[0][0].digest}
    assert all(one.status == 200 for one in after)
    refused = {one.status for one in callers.failed}
    assert refused <= ({503} if now else set()), callers.failed[:3]
