"""A host on its way up."""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

from chimera_host import process
from chimera_host.errors import AgentLoadError
from chimera_host.testing.process import environment


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say which signals are caught")
async def test_a_host_that_is_told_to_stop_before_it_serves_ends():
    # As the first process of a container, where a signal without a handler is lost, it would outlive its grace.
    reading, writing = os.pipe()
    host = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chimera_host", "serve", "--config-fd", str(reading)),
        pass_fds=[reading],
        env=environment(),
    )
    os.close(reading)
    try:
        async with asyncio.timeout(60):
            while not caught(host.pid) & 1 << signal.SIGTERM - 1:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            host.terminate()
            assert await host.wait() == 0
    finally:
        os.close(writing)
        if host.returncode is None:
            host.kill()
            await host.wait()


def test_garbage_is_collected_again_once_the_framework_is_imported_or_is_not_there(monkeypatch):
    try:
        process.preload("function")
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    monkeypatch.setitem(sys.modules, "chimera_host.frameworks.langgraph", None)
    with pytest.raises(AgentLoadError, match="can't run langgraph"):
        process.preload("langgraph")
    assert gc.isenabled()


def caught(process: int) -> int:
    """The signals that a process has handlers for, as bits."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
