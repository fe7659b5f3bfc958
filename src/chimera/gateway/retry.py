"""When to ask a model again, as a pure rule: exponential backoff with full jitter, inside the deadline.

Full jitter (a wait drawn evenly between nothing and the backoff) spreads the retries of thousands of agents that failed
together. A wait that the provider asked for is kept; one that doesn't fit before the deadline is not begun.
"""

from msgspec import Struct


class RetryRule(Struct, frozen=True, kw_only=True):
    """At most `attempts`, waiting up to `backoff` before the second, twice that before the third, never above `cap`."""

    attempts: int
    backoff: float
    cap: float


def next_wait(
    rule: RetryRule, *, attempt: int, left: float, retry_after: float | None, draw: float, least: float = 0.05
) -> float | None:
    """Seconds to wait after failed attempt number `attempt` (from 1), or None to give up.

    `left` are the seconds until the deadline, of which an attempt needs `least`; `draw` is a random number in [0, 1).
    """
    if attempt >= rule.attempts:
        return None
    jittered = min(rule.cap, rule.backoff * 2.0 ** (attempt - 1)) * draw
    wait = max(jittered, retry_after or 0.0)
    return wait if wait + least <= left else None
