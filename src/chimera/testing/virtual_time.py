"""An event loop whose time jumps: a test of hours runs in milliseconds, with the real `asyncio.sleep` and time-outs.

When nothing is ready to run, the loop moves its clock to the next timer instead of waiting for it. Only what runs on
this loop alone may be tested so: what waits for another thread or a process would see its time-outs pass at once. A
client and a server that both run on the loop may talk over sockets of this machine, given a `breath`: for so many
real seconds the loop looks for what the sockets bring before it moves the clock.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0


class NothingWillHappen(RuntimeError):
    """Every task waits for something that no timer and no other task will bring."""


class _JumpingSelector(selectors.DefaultSelector):
    """Reports what is ready at once; a wait becomes a jump of the loop's clock."""

    def __init__(self, breath: float) -> None:
        super().__init__()
        self.now = 0.0
        self._breath = breath

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and self._breath and (timeout is None or timeout > 0):
            ready = super().select(self._breath)
        if not ready:
            if timeout is None:
                raise NothingWillHappen("all tasks wait, and no timer is set")
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The event loop; its time begins at 0."""

    def __init__(self, breath: float = 0.0) -> None:
        """Make a loop that hasn't run yet."""
        self._jumping = _JumpingSelector(breath)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds that have passed for what runs here."""
        return self._jumping.now


class LoopClock:
    """The `Clock` of the loop that is running, virtual or not."""

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """The same, counted from a fixed date."""
        return EPOCH + self.monotonic()


def run(main: Coroutine[Any, Any, T], *, breath: float = 0.0) -> T:
    """Run `main` to its end in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(breath)) as runner:
        return runner.run(main)
