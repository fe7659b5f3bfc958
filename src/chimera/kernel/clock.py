"""Time as a value that is passed in, so that rules and loops run on a virtual clock in tests."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic` for durations and deadlines, `wall` for what people and other machines see."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def wall(self) -> float:
        """Seconds since the epoch, UTC."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()
