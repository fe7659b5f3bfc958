"""The platform's own processes are started again, also when once they can't be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from chimera.adapters.substrates.local.children import FALLS, Child, ChildSpec
from chimera_host.testing.doubles import until


async def test_a_program_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    programs = [str(tmp_path / "nowhere"), sys.executable]
    wait = "import os, sys; print('listening', flush=True); os.read(int(sys.argv[1]), 1)"

    def arguments(lifeline: int) -> tuple[str, ...]:
        return (programs.pop(0) if len(programs) > 1 else programs[0], "-c", wait, str(lifeline))

    child = Child(ChildSpec(name="child", arguments=arguments, log=tmp_path / "child.jsonl"))
    running = asyncio.create_task(child.run())
    await until(lambda: (tmp_path / "child.jsonl").exists() and child.last_words() == "listening", 60)
    assert child.restarts == 1 and not child.fallen.is_set()
    await child.stop(5.0)
    await asyncio.wait_for(running, 60)
    assert child.process is not None and child.process.returncode is not None


async def test_a_program_that_always_ends_says_so(tmp_path: Path) -> None:
    spec = ChildSpec(
        name="child",
        arguments=lambda _: (sys.executable, "-c", "raise SystemExit('no luck')"),
        log=tmp_path / "child.jsonl",
    )
    child = Child(spec)
    running = asyncio.create_task(child.run())
    await asyncio.wait_for(child.fallen.wait(), 60)
    assert child.restarts == FALLS and child.last_words() == "no luck"
    await child.stop(1.0)
    await asyncio.wait_for(running, 60)


async def test_one_that_is_killed_is_started_again_and_one_that_will_not_end_is_killed(tmp_path: Path) -> None:
    deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('up', flush=True); time.sleep(60)"
    log = tmp_path / "child.jsonl"
    child = Child(ChildSpec(name="child", arguments=lambda _: (sys.executable, "-c", deaf), log=log))
    running = asyncio.create_task(child.run())

    async def up(times: int) -> int:
        await until(lambda: log.exists() and log.read_text() == "up\n" * times, 60)
        assert child.process is not None
        return child.process.pid

    first = await up(1)
    os.kill(first, signal.SIGKILL)
    second = await up(2)
    assert second != first and child.restarts == 1
    await child.stop(0.1)
    await asyncio.wait_for(running, 60)
    assert child.process is not None and child.process.returncode == -signal.SIGKILL
    assert child.restarts == 1


async def test_it_ends_with_the_one_who_started_it(tmp_path: Path) -> None:
    waits = "import os, sys; print('up', flush=True); os.read(int(sys.argv[1]), 1)"
    log = tmp_path / "child.jsonl"
    spec = ChildSpec(name="child", arguments=lambda lifeline: (sys.executable, "-c", waits, str(lifeline)), log=log)
    child = Child(spec)
    running = asyncio.create_task(child.run())
    await until(lambda: log.exists() and log.read_text() == "up\n", 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert child.process is not None
    assert await asyncio.wait_for(child.process.wait(), 60) == 0
