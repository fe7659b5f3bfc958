"""The wall clock jumps under load, forward and back: nothing is lost, and nothing is done twice."""

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.faults.calls import Faults, compiler
from chimera.testing.faults.load import Load, under_load

SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
JUMPS = 5
pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="needs a C compiler (cc)")]


def test_a_clock_that_jumps_loses_nothing(
    start: Callable[..., Any], tmp_path: Path, audit_is_whole: Callable[[Any], None]
) -> None:
    with Faults(tmp_path, "nothing fails") as faults:
        platform, moments = start(**faults.environ), random.Random(SEED)

        async def jump(_: Load) -> None:
            for _ in range(JUMPS):
                await asyncio.sleep(moments.uniform(0.5, 2.0))
                faults.set_clock(moments.randint(-600, 600))
            await asyncio.sleep(1)
            faults.set_clock(0)
            await asyncio.sleep(2)

        load = asyncio.run(under_load(platform.url, platform.key, jump))
    print(load.counts(), load.client.seen)
    assert all(load.counts().values())
    audit_is_whole(platform)
