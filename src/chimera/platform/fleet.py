"""From a wanted number of hosts to what to do now: a plan over one cell's hosts, as a pure rule.

Level-triggered: the plan is made from what is there, whatever happened before, so a lost event or a restart of the
loop changes nothing. A host that is stopping counts for nothing; one that is starting counts for the wanted number.
A cell whose hosts keep dying at their start is tried again after a delay that doubles, up to a minute.
"""

from dataclasses import dataclass
from enum import Enum

FIRST_RETRY_DELAY = 0.5
LONGEST_RETRY_DELAY = 60.0


class HostPhase(Enum):
    """Where a host is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True, slots=True)
class HostView:
    """A host as the rule sees it. `unhealthy` says why it must be replaced, or is None."""

    host: str
    phase: HostPhase
    started: float
    unhealthy: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StartHosts:
    """Start `count` hosts."""

    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainHost:
    """Take a host out of routing and stop it once its calls are done."""

    host: str
    reason: str


Action = StartHosts | DrainHost


def plan(hosts: list[HostView], wanted: int, *, failures: int, last_failure: float, now: float) -> list[Action]:
    """What to do so that `wanted` healthy hosts run; `failures` counts starts that failed in a row."""
    actions: list[Action] = []
    healthy = []
    for view in hosts:
        if view.phase in (HostPhase.DRAINING, HostPhase.GONE):
            continue
        if view.unhealthy is not None:
            actions.append(DrainHost(host=view.host, reason=view.unhealthy))
        else:
            healthy.append(view)
    missing = wanted - len(healthy)
    if missing > 0 and now >= last_failure + retry_delay(failures):
        actions.append(StartHosts(count=missing))
    if missing < 0:
        # Those that aren't ready go first, then the youngest: the old ones have the agents loaded.
        order = sorted(healthy, key=lambda view: (view.phase is HostPhase.READY, -view.started))
        actions.extend(DrainHost(host=view.host, reason="scaled down") for view in order[:-missing])
    return actions


def retry_delay(failures: int) -> float:
    """Seconds to wait after `failures` failed starts in a row: 0, 0.5, 1, 2 … 60."""
    if failures == 0:
        return 0.0
    return float(min(LONGEST_RETRY_DELAY, FIRST_RETRY_DELAY * 2 ** min(failures - 1, 20)))
