"""Processes that scan: one that is late, killed or too greedy takes nothing with it."""

import asyncio
import io
import random
import signal
import subprocess
import sys
import tarfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chimera.adapters.scanners.apart import ScansApart
from chimera.adapters.workers import Workers
from chimera.bootstrap.scanning_parts import PROGRAM
from chimera.delivery.scanning.errors import ScanningError
from chimera.delivery.scanning.packed import Ask, Asked
from tests.contract.scans.test_scans import config, value

ASK = Ask(scanner="secrets", agents=[Asked(agent="a", value=value("a"))])


@pytest.fixture
async def scans(tmp_path: Path) -> AsyncIterator[ScansApart]:
    made = ScansApart(PROGRAM, config(tmp_path / "osv"))
    yield made
    await made.aclose()


def unpacking_to_much() -> bytes:
    """Four files of 60 MB, as well compressed as is accepted."""
    drawn = random.Random(7)
    again = drawn.randbytes(10_000).hex().encode()
    text = b"".join(again + drawn.randbytes(150).hex().encode() for _ in range(3_000))
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return target.getvalue()


def the_idle(scans: ScansApart) -> Process:
    (process,) = scans._shared._idle
    return process


async def test_one_process_answers_one_after_another_and_ends_in_the_end(scans: ScansApart) -> None:
    await scans.scan(ASK)
    first = the_idle(scans)
    await scans.scan(ASK)
    assert the_idle(scans) is first
    await scans.aclose()
    assert first.returncode == -signal.SIGKILL


async def test_a_scan_that_nobody_waits_for_ends_with_its_process(scans: ScansApart) -> None:
    await scans.scan(ASK)
    stuck = the_idle(scans)
    stuck.send_signal(signal.SIGSTOP)  # as one that a pattern keeps busy for hours
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await scans.scan(ASK)
    assert stuck.returncode == -signal.SIGKILL
    assert (await scans.scan(ASK)).looked == {"secrets": 1}


async def test_processes_without_work_are_ended() -> None:
    workers = Workers(
        ("-c", "import sys; sys.stdout.buffer.write(bytes(4)); sys.stdout.flush(); input()"), kept=1, idle_seconds=0.0
    )
    async with workers.one() as worker:
        assert await worker.read() == b""
        worker.answered = True
    (process,) = workers._idle
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
    assert workers._idle == []


async def test_a_process_that_is_killed_is_said_and_replaced(scans: ScansApart) -> None:
    await scans.scan(ASK)
    process = the_idle(scans)
    process.kill()
    await process.wait()
    with pytest.raises(ScanningError, match="the process that looks for secrets has no answer: it ended") as refused:
        await scans.scan(ASK)
    assert "scanning.memory_bytes" in str(refused.value.next_step)
    assert (await scans.scan(ASK)).looked == {"secrets": 1}


async def test_what_takes_too_much_memory_is_said(tmp_path: Path) -> None:
    scans = ScansApart(PROGRAM, config(tmp_path / "osv", memory_bytes=512 * 1024**2))
    try:
        agents = [Asked(agent="a", value=value("a"), bundle="sha256:large")]
        large = Ask(scanner="secrets", agents=agents, bundles={"sha256:large": unpacking_to_much()})
        with pytest.raises(ScanningError, match=r"more memory than `scanning\.memory_bytes`"):
            await scans.scan(large)
        assert (await scans.scan(ASK)).looked == {"secrets": 1}
    finally:
        await scans.aclose()


def test_a_process_whose_asker_is_gone_ends_by_itself_however_busy_it_is() -> None:
    busy = "from chimera.adapters.framing import bound_cpu\nbound_cpu(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", busy], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU
