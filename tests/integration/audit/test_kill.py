"""`kill -9` amid appending loses nothing that was acknowledged, leaves no batch half there and no chain broken.

`CHIMERA_TEST_KILLS` sets how often the writing process is killed (20 by default), `CHIMERA_TEST_SEED` the moments.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chimera.adapters.storage.database import Database
from chimera.immune.audit.model import decode
from chimera.testing.audit import AuditLog

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "20"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
LONGEST = 0.3
PROGRAM = Path(__file__).parent / "appending.py"


def append_until_killed(process: "subprocess.Popen[bytes]", told: list[str], after: float) -> dict[str, int]:
    """The last number that each writer was told is kept."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(told) + b"\n")
    process.stdin.flush()
    kept: dict[str, int] = {}
    pid, ready, killing = None, False, False
    while (line := process.stdout.readline()) != b'["ended"]\n':
        assert line, "the appending process failed; its error is above"
        match msgspec.json.decode(line):
            case ["started", number]:
                pid = number
            case ["ready"]:
                ready = True
            case ["kept", name, number]:
                kept[name] = number
        if pid is not None and ready and not killing:
            killing = True
            threading.Timer(after, os.kill, (pid, signal.SIGKILL)).start()
    return kept


@pytest.fixture
def forker() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost(
    database: Database, database_name: str, forker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    moments, acknowledged = random.Random(SEED), 0
    log = AuditLog(database, tmp_path)
    for run in range(KILLS):
        moment = moments.uniform(0.0, LONGEST)
        begun = (await log.store.head()).seq
        kept = await asyncio.to_thread(append_until_killed, forker, [database_name, f"run-{run}"], moment)
        found = await batches_after(log, begun)
        for name, number in kept.items():
            # The one in flight may be there too: its answer was lost with the process.
            assert found[name] in (number, number + 1), f"{name}: {number} batches were acknowledged"
        acknowledged += sum(kept.values())
        await log.sign()
    report = await log.verify()
    assert report.ok, report.findings
    assert report.signed_through == report.last
    assert acknowledged > KILLS, "too little was written for the kills to mean anything"


async def batches_after(log: AuditLog, place: int) -> Counter[str]:
    """How many whole batches of ten each writer has after a place; a part of one fails."""
    entries: Counter[str] = Counter()
    while page := await log.store.entries(place, 5_000):
        entries.update(decode(one.entry).actor for one in page)
        place = page[-1].seq
    half: dict[str, Any] = {name: count for name, count in entries.items() if count % 10}
    assert not half, f"batches are half there: {half}"
    return Counter({name: count // 10 for name, count in entries.items()})
