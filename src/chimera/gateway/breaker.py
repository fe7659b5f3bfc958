"""The circuit breaker in front of a model's provider, as a pure rule.

Closed, it counts failures in a row; at the limit it opens and refuses at once, so that thousands of agents don't wait
for a provider that is down. After a while it lets one call through: its success closes the circuit, its failure opens
it again for as long. A call that was let through before the circuit opened doesn't change an open circuit.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace


class BreakerState(Struct, frozen=True, kw_only=True):
    """Where the breaker stands; `opened` is when it opened, `probing` since when its one call is under way."""

    failures: int = 0
    opened: float | None = None
    probing: float | None = None


class BreakerRule(Struct, frozen=True, kw_only=True):
    """`failures` in a row open it for `open_for` seconds."""

    failures: int
    open_for: float


Outcome = Literal["ok", "failed", "neither"]
"""`neither`: the call says nothing of the provider's health (cancelled, or the request was at fault)."""


class Admitted(Struct, frozen=True, kw_only=True):
    """Whether a call may be made, whether it is the probe, and how long until the next may if not."""

    allowed: bool
    state: BreakerState
    probe: bool = False
    retry_after: float = 0.0


def admit(rule: BreakerRule, state: BreakerState, now: float) -> Admitted:
    """May a call be made at `now`?"""
    if state.opened is None:
        return Admitted(allowed=True, state=state)
    if state.probing is not None and now - state.probing < rule.open_for:
        return Admitted(allowed=False, state=state, retry_after=rule.open_for - (now - state.probing))
    if now - state.opened < rule.open_for:
        return Admitted(allowed=False, state=state, retry_after=rule.open_for - (now - state.opened))
    return Admitted(allowed=True, state=replace(state, probing=now), probe=True)


def record(rule: BreakerRule, state: BreakerState, outcome: Outcome, now: float, *, probe: bool) -> BreakerState:
    """The state after a call ended; `probe` as `admit` said for that call."""
    if probe:
        match outcome:
            case "ok":
                return BreakerState()
            case "failed":
                return BreakerState(failures=rule.failures, opened=now)
            case "neither":
                return replace(state, probing=None)
    if state.opened is not None or outcome == "neither":
        return state
    if outcome == "ok":
        return BreakerState() if state.failures else state
    failures = state.failures + 1
    return BreakerState(failures=failures, opened=now if failures >= rule.failures else None)
