"""How many hosts a cell needs: Knative's KPA as a pure rule, the same numbers in both homes.

`decide` takes what was observed and the state of before, and returns the decision with the state of after; nothing
is kept elsewhere. Formulas follow knative/serving `pkg/autoscaler/scaling/autoscaler.go`: a stable window of 60 s, a
panic window of 6 s that takes over when it asks for twice the ready hosts, rates of change bounded by 1000 up and 2
down a tick. A cell falls to zero `idle_timeout` seconds after its last call (60 s of stable window and 240 s of
retention by default). Cost: one pass over tens of cells each tick, 60 numbers a cell.
"""

import math
from dataclasses import dataclass, field, replace

STABLE_WINDOW = 60
PANIC_WINDOW = 6
UTILISATION = 0.7
MAX_SCALE_UP_RATE = 1000.0
MAX_SCALE_DOWN_RATE = 2.0
PANIC_THRESHOLD = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """A cell's bounds: hosts from `minimum` to `maximum`, calls in flight a host (`target`), seconds until zero."""

    minimum: int
    maximum: int
    target: float
    idle_timeout: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalerState:
    """What the rule remembers of a cell: one average of calls in flight for each of the last 60 seconds."""

    samples: tuple[tuple[int, float], ...] = ()
    panic_until: float | None = None
    panic_hosts: int = 0
    last_active: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """Calls in flight on average since the last tick, calls that wait for a host now, and hosts that are ready."""

    in_flight: float
    waiting: int
    ready: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Hosts wanted, and why."""

    hosts: int
    reason: str
    state: ScalerState = field(default_factory=ScalerState)


def decide(bounds: Bounds, observation: Observation, state: ScalerState, now: float) -> Decision:
    """The number of hosts wanted at `now` (seconds), with the state to pass to the next call."""
    samples = _record(state.samples, observation, now)
    active = observation.in_flight > 0 or observation.waiting > 0
    last_active = now if active else state.last_active
    target = max(0.01, bounds.target * UTILISATION)
    ready = max(1, observation.ready)
    wanted_stable = math.ceil(_average(samples, now, STABLE_WINDOW) / target)
    wanted_panic = math.ceil(_average(samples, now, PANIC_WINDOW) / target)
    highest, lowest = math.ceil(MAX_SCALE_UP_RATE * ready), math.floor(ready / MAX_SCALE_DOWN_RATE)

    panic_until, panic_hosts = state.panic_until, state.panic_hosts
    if observation.ready > 0 and wanted_panic / ready >= PANIC_THRESHOLD:
        panic_until = now + STABLE_WINDOW
    elif panic_until is not None and now >= panic_until:
        panic_until, panic_hosts = None, 0

    stable = min(max(wanted_stable, lowest), highest)
    if panic_until is not None:
        # In panic the number of hosts never falls: a burst that pauses must not lose what it has just started.
        panic_hosts = max(panic_hosts, observation.ready, stable, min(wanted_panic, highest))
        hosts, reason = panic_hosts, "panic"
    else:
        hosts, reason = stable, "stable"
    if not active and hosts <= 1:
        idle_for = math.inf if last_active is None else now - last_active
        if idle_for >= bounds.idle_timeout:
            hosts, reason = lowest, "idle"
        elif observation.ready > 0:
            hosts, reason = 1, "retained"
    clamped = min(max(hosts, bounds.minimum), bounds.maximum)
    if clamped != hosts:
        reason += ", at its minimum" if clamped > hosts else ", at its maximum"
    after = replace(state, samples=samples, panic_until=panic_until, panic_hosts=panic_hosts, last_active=last_active)
    return Decision(hosts=clamped, reason=reason, state=after)


def _record(samples: tuple[tuple[int, float], ...], seen: Observation, now: float) -> tuple[tuple[int, float], ...]:
    second = math.floor(now)
    # A second that is looked at twice keeps the higher value: a call that waited, got its host and isn't yet in any
    # report must not be forgotten because another cell's wake-up came in the same second.
    value = max(seen.in_flight, float(seen.waiting), *(value for at, value in samples if at == second))
    kept = [sample for sample in samples if second - STABLE_WINDOW < sample[0] < second]
    return (*kept, (second, value))


def _average(samples: tuple[tuple[int, float], ...], now: float, window: int) -> float:
    # The average is over what was sampled, not over the whole window: a cell that woke a second ago is judged by
    # that second, as the KPA does with its buckets.
    recent = [value for second, value in samples if second > math.floor(now) - window]
    return sum(recent) / len(recent) if recent else 0.0
