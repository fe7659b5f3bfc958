"""A clock that a test moves by hand."""


class ManualClock:
    """A `Clock` at a fixed time until `advance`."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        """Stand at `now` seconds since the epoch; the monotonic clock begins at 0."""
        self._start = now
        self._now = now

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._now - self._start

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
