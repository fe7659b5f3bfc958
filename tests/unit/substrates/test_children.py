"""The platform's own processes are started again, also when once they can't be."""

import asyncio
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
    await until(lambda: (tmp_path / "child.jsonl").exists() and child.last_words() == "listening", 15)
    assert child.restarts == 1 and not child.fallen.is_set()
    await child.stop(5.0)
    await asyncio.wait_for(running, 5)
    assert child.process is not None and child.process.returncode is not None


async def test_a_program_that_always_ends_says_so(tmp_path: Path) -> None:
    spec = ChildSpec(
        name="child",
        arguments=lambda _: (sys.executable, "-c", "raise SystemExit('no luck')"),
        log=tmp_path / "child.jsonl",
    )
    child = Child(spec)
    running = asyncio.create_task(child.run())
    await asyncio.wait_for(child.fallen.wait(), 20)
    assert child.restarts == FALLS and child.last_words() == "no luck"
    await child.stop(1.0)
    await asyncio.wait_for(running, 20)
