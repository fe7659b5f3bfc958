"""Kill -9 at random moments under load: each part of a real platform, and all of them together.

`CHIMERA_TEST_KILLS` sets how often (20 by default, over both databases), `CHIMERA_TEST_SEED` whom and when. What the
clients were told is held against what is there afterwards: see `chimera.testing.faults.history`.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.faults.killing import PARTS, kill, processes
from chimera.testing.faults.load import Load, under_load
from chimera.testing.postgresql import PostgreSQLServer

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "20"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]


@pytest.fixture
def database(dialect: str) -> Iterator[dict[str, str]]:
    if dialect == "sqlite":
        yield {}
        return
    with PostgreSQLServer(durable=True) as server:
        yield {
            "CHIMERA_NODE__DATABASE": server.new_database(migrated=False),
            "CHIMERA_NODE__DATABASE_PASSWORD": "secret:database",
            "CHIMERA_SECRET_database": "not needed by a server that trusts its socket",
        }


def test_nothing_acknowledged_is_lost_whoever_is_killed(
    start: Callable[..., Any], database: dict[str, str], dialect: str, audit_is_whole: Callable[[Any], None]
) -> None:
    platform, moments, kills = start(**database), random.Random(f"{SEED} {dialect}"), max(5, KILLS // 2)
    supervisor, done = platform.where["pid"], Counter[str]()

    async def fire(load: Load) -> None:
        order = [PARTS[number % len(PARTS)] if number % 5 else "all" for number in range(kills)]
        moments.shuffle(order)
        for part in order:
            before = load.counts()
            await asyncio.sleep(moments.uniform(0.1, 2.0))
            async with asyncio.timeout(90):
                # Every kind of work goes on after each kill, or the kills would only hit what is down anyway.
                while any(count <= before[kind] for kind, count in load.counts().items()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                while not kill(supervisor, part, moments):  # noqa: ASYNC110 - other processes tell no event
                    await asyncio.sleep(0.05)
            done[part] += 1

    load = asyncio.run(under_load(platform.url, platform.key, fire))

    print(dialect, dict(done), load.counts(), load.client.seen)
    assert set(done) == {"control-plane", "gateway", "host", "all"}
    assert min(load.counts().values()) >= kills, f"too little happened for the kills to mean anything: {load.counts()}"
    running = processes(supervisor)
    assert running["control-plane"] and running["gateway"]
    audit_is_whole(platform)
