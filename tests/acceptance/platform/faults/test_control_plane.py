"""The control plane is away under load: calls, conversations, tasks and shared state go on as if nothing were.

`CHIMERA_TEST_AWAY` sets for how many seconds (10 by default; five minutes in `make soak`).
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.faults.killing import kill, processes
from chimera.testing.faults.load import AGENTS, Load, under_load

AWAY = float(os.environ.get("CHIMERA_TEST_AWAY", "10"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]


@pytest.mark.parametrize("how", ["stopped", "killed again and again"])
def test_calls_go_on_without_the_control_plane(
    start: Callable[..., Any], audit_is_whole: Callable[[Any], None], how: str
) -> None:
    platform = start()
    supervisor, answered = platform.where["pid"], 0

    def enough(load: Load) -> bool:
        return answered > 10 and all(load.counts().values())

    async def take_away(load: Load) -> None:
        nonlocal answered
        loop = asyncio.get_running_loop()
        (stopped,) = processes(supervisor)["control-plane"]
        if how == "stopped":
            os.kill(stopped, signal.SIGSTOP)
        end = loop.time() + AWAY
        try:
            # A busy machine takes longer to do enough of each kind.
            while (now := loop.time()) < end or (now < end + 120 and not enough(load)):
                if how != "stopped":
                    kill(supervisor, "control-plane")
                answer = await load.client.ask("POST", f"{AGENTS}steady/invoke", {"input": "hello"})
                assert answer is not None and answer[0] == 200, answer
                answered += 1
                await asyncio.sleep(0.02)
        finally:
            if how == "stopped":
                os.kill(stopped, signal.SIGCONT)

    load = asyncio.run(under_load(platform.url, platform.key, take_away))

    print(how, answered, load.counts(), load.client.seen)
    assert enough(load)
    assert not load.client.seen.get(500)
    audit_is_whole(platform)
