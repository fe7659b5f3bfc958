"""Time that jumps keeps the order of things, and says so when it would stand still for ever."""

import asyncio
import time

import pytest

from chimera.testing.virtual_time import LoopClock, NothingWillHappen, run


def test_hours_pass_in_no_time_and_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, after: float) -> None:
        await asyncio.sleep(after)
        seen.append((name, LoopClock().monotonic()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(note("late", 7200.0))
            group.create_task(note("early", 0.1))
            group.create_task(note("between", 59.5))

    began = time.monotonic()
    run(main())
    assert seen == [("early", 0.1), ("between", 59.5), ("late", 7200.0)]
    assert time.monotonic() - began < 5


def test_time_outs_come_when_they_should() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return LoopClock().wall()

    assert run(main()) == 1_700_000_030.0


def test_a_deadlock_is_told() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NothingWillHappen):
        run(main())
