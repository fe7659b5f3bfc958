"""Kill -9 at random moments under load: each part of a real platform, and all of them together.

`CHIMERA_TEST_KILLS` sets how often (20 by default, over both databases), `CHIMERA_TEST_SEED` whom and when. What the
clients were told is held against what is there afterwards: see `chimera.testing.faults.history`.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.faults.killing import PARTS, kill, processes
from chimera.testing.faults.load import Load, connected
from chimera.testing.postgresql import PostgreSQLServer

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "20"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
# A killed gateway's work is taken over after so long; with the default of 15 s most of the test would be waiting.
SETTINGS = {
    "CHIMERA_STATE__HOLDER_LIFE": "2",
    "CHIMERA_TASKS__LEASE": "2",
    "CHIMERA_STATE__DEATHS": "10",
    "CHIMERA_AUDIT__CHECKPOINT_SECONDS": "1",
}
AGENT = """\
schema_version: "ADaC v2.0"
metadata: {name: steady, version: 1.0.0, description: Says it again}
specification: {framework: function}
capabilities: {primary_functions: [echo]}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]


@pytest.fixture
def database(dialect: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    if dialect == "sqlite":
        yield {}
        return
    with PostgreSQLServer(durable=True) as server:
        yield {
            "CHIMERA_NODE__DATABASE": server.new_database(migrated=False),
            "CHIMERA_NODE__DATABASE_PASSWORD": "secret:database",
            "CHIMERA_SECRET_database": "not needed by a server that trusts its socket",
        }


@pytest.fixture
def killed_platform(new_platform: Any, database: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    running = new_platform(tmp_path / "home", **SETTINGS, **database)
    running.ok("apply", "-", text=AGENT)
    yield running
    assert running.stop() == 0


def verify_audit_log(platform: Any) -> None:
    """The chain is whole, and its next checkpoint, which is signed within seconds, agrees."""
    for _ in range(60):
        verified = platform.run("audit", "verify", "--output", "json")
        report = json.loads(verified.stdout)
        if report["ok"] and report["signed_through"]:
            return
        assert {finding["kind"] for finding in report["findings"]} <= {"unsigned"}, report
    raise AssertionError(f"no checkpoint was signed: {report}")


async def under_fire(platform: Any, kills: int, moments: random.Random) -> tuple[Load, Counter[str]]:
    """Load on the platform until so many kills have happened; what the clients know, and who was killed."""
    done: Counter[str] = Counter()
    supervisor = platform.where["pid"]
    async with connected(platform.url, platform.key) as client:
        load = Load(client, "steady", lambda: done.total() < kills)
        await load.prepare()

        async def fire() -> None:
            order = [PARTS[number % len(PARTS)] if number % 5 else "all" for number in range(kills)]
            moments.shuffle(order)
            for part in order:
                await asyncio.sleep(moments.uniform(0.1, 2.0))
                async with asyncio.timeout(60):
                    while not kill(supervisor, part, moments):  # noqa: ASYNC110 - other processes tell no event
                        await asyncio.sleep(0.05)
                done[part] += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(fire())
            group.create_task(load.run())
        assert await load.wrong() == []
    return load, done


def test_nothing_acknowledged_is_lost_whoever_is_killed(killed_platform: Any, dialect: str) -> None:
    moments = random.Random(f"{SEED} {dialect}")
    load, done = asyncio.run(under_fire(killed_platform, max(5, KILLS // 2), moments))

    assert set(done) >= {"control-plane", "gateway", "host", "all"}
    written = sum(1 for one in load.sessions.operations if one.f == "write" and isinstance(one.output, int))
    said = sum(map(len, load.talks.values()))
    logged = sum(len(book.acknowledged) for book in load.logs.values())
    counts = {"session writes": written, "log writes": logged, "turns": said, "tasks": len(load.tasks)}
    print(dialect, dict(done), counts, load.client.seen)
    assert min(counts.values()) > done.total(), f"too little happened for the kills to mean anything: {counts}"
    assert all(processes(killed_platform.where["pid"])[part] for part in ("control-plane", "gateway"))
    verify_audit_log(killed_platform)
