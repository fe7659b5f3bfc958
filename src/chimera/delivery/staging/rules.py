"""Whether an agent's new revision may leave staging, by what was seen of its calls there: a pure rule.

It fails for what is shown, not for what could be: where an error of `error` at most is allowed for, over all agents
of the change together (Bonferroni), its rate of errors is above what its service level objective allows, more than 5%
of its calls take longer than the objective's latency, or it is worse than the live revision, which answered the same
cases under the same load. Longer times must also matter: the median at least `SLOWER` times the live one's, and so much
longer that somebody notices. They fail an agent where they are longer again (`again`).

Few calls show little. Where even calls without an error would not show that the objective is kept, the verdict says
`low evidence`: the rollout decides by more traffic.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from msgspec import Struct

from chimera.delivery.staging.statistics import at_least, longer, newcombe, wilson, z_of

ERROR = 0.05
SLOWER = 1.25
NOTICED = 0.05
"""Seconds that calls must take longer to count as slower."""
LONG_CALLS = 0.05
"""The share of calls that may take longer than `latency_p95`."""
FEWEST = 8
"""Calls of a side below which the two sides aren't compared."""


class Objective(Struct, frozen=True, kw_only=True):
    """What the definition promises: the share of calls that succeed, and the seconds within which 95% are answered."""

    availability: float
    latency_p95: float


class Seen(Struct, frozen=True, kw_only=True):
    """Calls of one revision: how many, how many were no answer, and the seconds of those that were."""

    calls: int
    errors: int
    seconds: tuple[float, ...] = ()


class Judged(Struct, frozen=True, kw_only=True):
    """What is found: `faults` in words, and the figures that they rest on.

    `slower` is one more fault, of longer times than the live revision's, if that is shown by other measurements too.
    """

    faults: tuple[str, ...]
    low_evidence: bool
    figures: dict[str, Any]
    slower: str = ""


def error_of(agents: int) -> float:
    """The error that the judgement of each of so many agents may have."""
    return ERROR / max(1, agents)


def judge(new: Seen, live: Seen | None, objective: Objective, *, agents: int) -> Judged:
    """Judge one of so many agents; `live` is None where nothing is live to compare with."""
    error = error_of(agents)
    z = z_of(error)
    faults: list[str] = []
    allowed = 1.0 - objective.availability
    if at_least(new.errors, new.calls, allowed) < error:
        faults.append(f"{new.errors} of {new.calls} calls failed, and {allowed:.2%} may")
    late = sum(one > objective.latency_p95 for one in new.seconds)
    if at_least(late, len(new.seconds), LONG_CALLS) < error:
        faults.append(f"{late} of {len(new.seconds)} answers took longer than {objective.latency_p95:g} s")
    figures: dict[str, Any] = {"calls": new.calls, "errors": new.errors}
    if new.seconds:
        figures["median_seconds"] = round(median(new.seconds), 4)
    slower = ""
    if live is not None and live.calls:
        figures |= {"live_calls": live.calls, "live_errors": live.errors}
        faults += _more_errors(new, live, z)
        slower = _longer_times(new, live, error, figures)
    low = wilson(0, new.calls, z)[1] > allowed
    return Judged(faults=tuple(faults), slower=slower, low_evidence=low, figures=figures)


def _more_errors(new: Seen, live: Seen, z: float) -> Iterator[str]:
    if min(new.calls, live.calls) >= FEWEST and newcombe((new.errors, new.calls), (live.errors, live.calls), z)[0] > 0:
        yield f"{new.errors} of {new.calls} calls failed, of the live revision {live.errors} of {live.calls} did"


def _longer_times(new: Seen, live: Seen, error: float, figures: dict[str, Any]) -> str:
    if min(len(new.seconds), len(live.seconds)) >= FEWEST:
        now, before = median(new.seconds), median(live.seconds)
        figures |= {"live_median_seconds": round(before, 4), "p_longer": round(longer(new.seconds, live.seconds), 6)}
        if now > SLOWER * before and now - before > NOTICED and longer(new.seconds, live.seconds) < error:
            return f"answers take {now:.3g} s in the middle, of the live revision {before:.3g} s"
    return ""
