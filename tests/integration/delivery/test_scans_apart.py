"""Processes that scan: one that is late, killed or too greedy takes nothing with it."""

import asyncio
import io
import random
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
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
KNOWING = Ask(scanner="dependencies", agents=[Asked(agent="a", value=value("a"))])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
async def scans(tmp_path: Path) -> AsyncIterator[ScansApart]:
    made = ScansApart(PROGRAM, config(tmp_path / "osv"), at_once=2, seconds=60.0)
    yield made
    await made.aclose()


def answering(*, at_once: int, seconds: float = 60.0, code: str = "") -> ScansApart:
    """Processes that say at once that nothing is found, after they have run some code for each request."""
    program = (
        "import os, sys, tempfile, time\n"
        "from chimera.adapters.framing import framed, read_frame\n"
        "from chimera.adapters.scanners.apart import Scanned\n"
        "from chimera.delivery.scanning.model import report\n"
        "read_frame(sys.stdin.buffer)\n"
        "while read_frame(sys.stdin.buffer) is not None:\n"
        f"    {code or 'pass'}\n"
        "    sys.stdout.buffer.write(framed(Scanned(report([], {}))))\n"
        "    sys.stdout.buffer.flush()\n"
    )
    return ScansApart(("-c", program), ASK, at_once=at_once, seconds=seconds)


def below(folder: Path, pattern: str) -> int:
    """How many files and folders are below one."""
    return len(list(folder.rglob(pattern)))


def processes(scans: ScansApart) -> list[Process]:
    return [one.process for one in (*scans._knowing._idle, *scans._others._idle)]


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
    (one,) = scans._others._idle
    return one.process


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
    (one,) = workers._idle
    async with asyncio.timeout(30):
        assert await one.process.wait() == -signal.SIGKILL
    assert workers._idle == []
    await workers.aclose()


async def test_a_process_that_was_killed_while_it_waited_for_work_is_replaced(scans: ScansApart) -> None:
    await scans.scan(ASK)
    process = the_idle(scans)
    process.kill()
    await process.wait()
    assert (await scans.scan(ASK)).looked == {"secrets": 1}


@pytest.mark.parametrize(
    ("code", "how", "step"),
    [
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL", "--control-plane-memory"),
        ("os.kill(os.getpid(), 24)", "killed by SIGXCPU", "delivery.check_seconds"),
        ("sys.exit(3)", "with exit code 3", "the control plane's log"),
    ],
)
async def test_a_process_that_ends_before_its_answer_says_how_and_what_to_do(code: str, how: str, step: str) -> None:
    scans = answering(at_once=2, code=code)
    with pytest.raises(ScanningError, match=f"the process that looks for secrets has no answer: .*{how}") as refused:
        await scans.scan(ASK)
    assert step in str(refused.value.next_step)
    await scans.aclose()


async def test_a_scan_that_takes_too_long_has_judged_no_agent_and_its_time_is_not_its_wait() -> None:
    scans = answering(at_once=1, seconds=2.0)
    await scans.scan(ASK)  # its process has started now
    async with scans._slots:
        waiting = asyncio.create_task(scans.scan(ASK))
        await asyncio.sleep(2.2)
    assert not (await waiting).unjudged
    await scans.aclose()
    stuck = answering(at_once=1, seconds=0.5, code="time.sleep(3600)")
    (said,) = (await stuck.scan(ASK)).unjudged
    assert (said.agent, said.message) == ("a", "looking for secrets took longer than 0.5 s")
    assert "delivery.check_seconds" in said.next_step and processes(stuck) == []
    await stuck.aclose()


async def test_no_more_processes_than_allowed_are_there_those_that_wait_for_work_included() -> None:
    scans = answering(at_once=1)
    await scans.scan(KNOWING)
    (knowing,) = processes(scans)
    await scans.scan(ASK)
    assert knowing.returncode == -signal.SIGKILL and len(processes(scans)) == 1
    await scans.aclose()
    scans = answering(at_once=2, code="time.sleep(0.2)")
    await asyncio.gather(*(scans.scan(ask) for ask in (ASK, KNOWING, ASK, KNOWING, ASK)))
    assert len(processes(scans)) == 2
    await scans.aclose()


async def test_an_index_is_waited_for_and_read_again_where_it_is_waited_for_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = answering(at_once=2, code="time.sleep(0.2)")
    await asyncio.gather(scans.scan(KNOWING), scans.scan(KNOWING))
    assert len(processes(scans)) == 1, "one process answered both"
    (only,) = processes(scans)
    only.send_signal(signal.SIGSTOP)
    monkeypatch.setattr("chimera.adapters.scanners.apart.PATIENCE", 0.1)
    stuck = asyncio.create_task(scans.scan(KNOWING))
    await asyncio.sleep(0)
    assert not (await scans.scan(KNOWING)).unjudged
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    await scans.aclose()


async def test_temporary_files_go_with_the_process_that_made_them(temporary: Path) -> None:
    scans = answering(at_once=1, code="os.chdir(tempfile.mkdtemp()); open('large', 'w').write('x' * 10)")
    await scans.scan(ASK)
    assert below(temporary, "large") == 1
    the_idle(scans).send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await scans.scan(ASK)
    assert below(temporary, "large") == 0
    await scans.aclose()
    assert below(temporary, "*") == 0


@pytest.fixture
def modules(tmp_path: Path) -> None:
    """Two folders with a module each."""
    for folder in ("named", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}_module.py").write_text("")


@pytest.mark.usefixtures("modules")
async def test_processes_import_what_their_asker_does_and_nothing_from_where_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "named"))
    monkeypatch.chdir(tmp_path / "here")
    scans = answering(at_once=1, code="import named_module")
    assert not (await scans.scan(ASK)).unjudged
    await scans.aclose()
    scans = answering(at_once=1, code="import here_module")
    with pytest.raises(ScanningError, match="with exit code 1"):
        await scans.scan(ASK)
    await scans.aclose()


async def test_what_takes_too_much_memory_is_said(tmp_path: Path) -> None:
    scans = ScansApart(PROGRAM, config(tmp_path / "osv", memory=512 * 1024**2), at_once=2, seconds=60.0)
    try:
        agents = [Asked(agent="a", value=value("a"), bundle="sha256:large")]
        large = Ask(scanner="secrets", agents=agents, bundles={"sha256:large": unpacking_to_much()})
        with pytest.raises(ScanningError, match=r"more memory than the 512 MiB that it may have"):
            await scans.scan(large)
        assert (await scans.scan(ASK)).looked == {"secrets": 1}
    finally:
        await scans.aclose()


async def test_a_process_has_so_much_processor_time_for_each_request(scans: ScansApart) -> None:
    await scans.scan(ASK)
    process = the_idle(scans)
    first, _ = resource.prlimit(process.pid, resource.RLIMIT_CPU)
    assert 60 <= first < 120, "what its start took, and what one request may take"
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (100_000, resource.RLIM_INFINITY))
    await scans.scan(ASK)
    assert the_idle(scans) is process
    second, _ = resource.prlimit(process.pid, resource.RLIMIT_CPU)
    assert first <= second < 120, "counted anew"


def test_a_process_whose_asker_is_gone_ends_by_itself_however_busy_it_is() -> None:
    busy = "from chimera.adapters.framing import bound_cpu\nbound_cpu(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", busy], timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU
