"""Whether a new revision answers earlier inputs worse than the live one, by what both said to the same: a pure rule.

Each input is put to both revisions at the same time, so it is its own control: how hard it is, and how busy the machine
is, counts on both sides alike. Of each pair it is asked which side did worse, and the *sign test* says whether that is
the new one more often than chance would have it (R. A. Fisher; for failures it is McNemar's test in its exact form,
Psychometrika 12, 1947). If the new revision is as the live one, either is the worse side with the same probability,
whatever the inputs are, so the tail of the binomial distribution with one half is exact for any number of pairs, and
nothing is asked of the shape of times or the truth of answers. Pairs that say nothing are left out.

What holds up the host of one side holds up all that it answers at that moment, so longer times count where they are
longer again (`again`).

Three things are compared: whether there was an answer; how much of what the agent's own tests expect an answer meets;
and whether it took more than `SLOWER` times as long, and so much longer that somebody notices. Their errors together
are `ERROR`, over all agents of the change (Bonferroni), so that an unchanged agent rarely holds a change up.

`low evidence`: with so few inputs, nothing would be shown even if the new revision did worse on every one of them.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from msgspec import Struct

from chimera.delivery.staging.rules import ERROR, NOTICED, SLOWER, Judged
from chimera.delivery.staging.statistics import at_least

COMPARED = 3
"""Things that are compared, among which the error is shared."""


class Side(Struct, frozen=True, kw_only=True):
    """What became of an input on one side: no answer, or one that took `seconds` and meets `met` expectations."""

    failed: bool = False
    seconds: float = 0.0
    met: int = 0


class Pair(Struct, frozen=True, kw_only=True):
    """One input, and what became of it on both sides."""

    new: Side
    live: Side


def error_of(agents: int) -> float:
    """The error that each of the three comparisons of an agent may have, for so many agents."""
    return ERROR / (COMPARED * max(1, agents))


def compare(pairs: Sequence[Pair], *, agents: int) -> Judged:
    """Judge one of so many agents by `pairs`."""
    error = error_of(agents)
    answered = [one for one in pairs if not one.new.failed and not one.live.failed]
    broken = sum(one.new.failed and not one.live.failed for one in pairs)
    mended = sum(one.live.failed and not one.new.failed for one in pairs)
    worse = sum(one.new.met < one.live.met for one in answered)
    better = sum(one.new.met > one.live.met for one in answered)
    slower = sum(_is_slower(one) for one in answered)
    p_errors, p_answers = at_least(broken, broken + mended, 0.5), at_least(worse, worse + better, 0.5)
    p_slower = at_least(slower, len(answered), 0.5)
    faults = []
    if p_errors < error:
        faults.append(f"{broken} of {len(pairs)} inputs failed that the live revision answered, {mended} the other way")
    if p_answers < error:
        faults.append(
            f"{worse} of {len(answered)} answers meet less of what its tests expect than the live revision's, "
            f"{better} meet more"
        )
    late = f"{slower} of {len(answered)} answers took more than {SLOWER:g} times as long as the live revision's"
    figures: dict[str, Any] = {
        "inputs": len(pairs),
        "errors": sum(one.new.failed for one in pairs),
        "live_errors": sum(one.live.failed for one in pairs),
        "newly_failed": broken,
        "newly_answered": mended,
        "p_errors": round(p_errors, 6),
        "worse_answers": worse,
        "better_answers": better,
        "p_answers": round(p_answers, 6),
        "slower": slower,
        "p_slower": round(p_slower, 6),
    }
    ratios = [one.new.seconds / one.live.seconds for one in answered if one.live.seconds > 0]
    if ratios:
        figures["median_ratio"] = round(median(ratios), 4)
    return Judged(
        faults=tuple(faults),
        slower=late if p_slower < error else "",
        low_evidence=at_least(len(pairs), len(pairs), 0.5) >= error,
        figures=figures,
    )


def _is_slower(pair: Pair) -> bool:
    longer = pair.new.seconds - pair.live.seconds
    return longer > NOTICED and pair.new.seconds > SLOWER * pair.live.seconds
