"""Nothing acknowledged is lost by `kill -9`, and no batch is ever half there.

`CHIMERA_TEST_KILLS` sets how often the writing process is killed (20 by default), `CHIMERA_TEST_SEED` the moments.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.quota import QuotaStorage

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "20"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
LONGEST = 0.4
AGENTS = 60
PROGRAM = Path(__file__).parent / "writing.py"


@dataclass
class Acknowledged:
    """What the writer has been told is kept."""

    sessions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    usage: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    batches: int = 0

    def take(self, line: bytes) -> None:
        match msgspec.json.decode(line):
            case ["session", name, version]:
                self.sessions[name] = version
            case ["usage", day, count]:
                self.usage[day] = count
            case ["batch", number]:
                self.batches = number


class Forker:
    """Starts writing processes."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write_until_killed(self, told: list[object], after: float, acknowledged: Acknowledged) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(told) + b"\n")
        self._process.stdin.flush()
        pid, ready, killing = None, False, False
        while (line := self._process.stdout.readline()) != b'["ended"]\n':
            assert line, "the writing process failed; its error is above"
            match msgspec.json.decode(line):
                case ["started", number]:
                    pid = number
                case ["ready"]:
                    ready = True
                case _:
                    acknowledged.take(line)
            if pid is not None and ready and not killing:
                killing = True
                threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
        assert killing, "the writing process ended before it was killed; its error is above"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture
def forker() -> Iterator[Forker]:
    made = Forker()
    yield made
    made.close()


async def look(database: str, acknowledged: Acknowledged) -> int:
    """Compare what is there with what was acknowledged; the number of the batch that is live."""
    opened = open_database(database)
    store, catalogue = GatewayStorage(opened), Catalogue(opened, max_hosts=2)
    try:
        checks = (("integrity_check", ["ok"]), ("foreign_key_check", [])) if opened.dialect == "sqlite" else ()
        for check, answer in checks:
            pragma = text(f"PRAGMA {check}")
            assert await opened.read(lambda connection, p=pragma: connection.execute(p).scalars().all()) == answer
        for name, version in list(acknowledged.sessions.items()):
            stored = await store.load_session("default", "agent", name)
            assert stored is not None
            assert stored.version in (version, version + 1), f"{name}: {version} was acknowledged"
            assert stored.state.messages[0].content == f"{name} {stored.version}"
            # What was written and not acknowledged is there now, and the next run goes on from it.
            acknowledged.sessions[name] = stored.version
        for day, count in acknowledged.usage.items():
            (row,) = await QuotaStorage(opened).usage_of_day(day)
            assert row.calls in (count, count + 1)
            assert (row.prompt_tokens, row.completion_tokens) == (2 * row.calls, 3 * row.calls)
        versions = {row["version"] for row in await catalogue.agents("default", {}, "", 1000)}
        live = len(await catalogue.agents("default", {}, "", 1000))
        if not versions:
            assert acknowledged.batches == 0
            return 0
        assert len(versions) == 1, f"a batch is half there: {versions}"
        assert live == AGENTS
        number = int(versions.pop().partition(".")[0])
        assert number in (acknowledged.batches, acknowledged.batches + 1)
        status = await catalogue.status()
        assert status["sequence"] == number * AGENTS
        return number
    finally:
        await asyncio.to_thread(opened.close)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_no_batch_is_half_there(database_name: str, forker: Forker) -> None:
    moments, acknowledged = random.Random(SEED), Acknowledged()
    batches_done = 0
    for run in range(KILLS):
        told = [database_name, f"day-{run:04d}", batches_done]
        forker.write_until_killed(told, moments.uniform(0.0, LONGEST), acknowledged)
        batches_done = asyncio.run(look(database_name, acknowledged))
        acknowledged.batches = max(acknowledged.batches, batches_done)
    assert sum(acknowledged.sessions.values()) > KILLS, "too little was written for the kills to mean anything"
    assert batches_done > 0
