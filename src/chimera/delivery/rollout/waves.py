"""In which order a change reaches its agents: waves, the first of which is a canary.

A wave is begun when all before it are decided. The canary is the smallest, and has one agent of every group, so that
each kind of change is tried on one agent before it reaches a second; within a group the agent with the most calls goes
first, since it is decided soonest. Agents that are taken out of service come last: what replaces them stands by then.

A new agent that others of the change call is in the wave of the first of them, and before it: their new revisions find
it there. Such agents count for no wave's size, since nobody calls them but for those.

Within a wave, no more agents than `max_parallel` are on their way at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CANARY_SHARE = 0.1
"""The canary has no more than this share of the agents, however many groups there are, unless it is told to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An agent to be put into a wave: its group, the calls that it had of late, and whether it is to be taken out.

    `needed_by` are the agents of the change that call it, where it is new.
    """

    agent: str
    group: str
    calls: int = 0
    leaves: bool = False
    needed_by: frozenset[str] = frozenset()


def order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """All candidates, groups in turns (the largest begins), the busiest of a group first, those that leave last."""
    groups: dict[str, list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: (-one.calls, one.agent)):
        groups.setdefault(one.group, []).append(one)
    rank = {name: place for place, name in enumerate(sorted(groups, key=lambda name: (-len(groups[name]), name)))}
    turn = {one.agent: turn for members in groups.values() for turn, one in enumerate(members)}
    return sorted(candidates, key=lambda one: (one.leaves, turn[one.agent], rank[one.group]))


def sizes(agents: int, groups: int, canary: int, shares: Sequence[float]) -> list[int]:
    """How many agents each wave has: the canary, then as many as bring the total to each of `shares` (up to 1).

    The canary is at least `canary`, and one for each group if that is no more than a tenth of all. Waves that would be
    empty are left out; the last one takes all that is left.
    """
    if agents <= 0:
        return []
    first = min(agents, max(1, canary, min(groups, int(agents * CANARY_SHARE))))
    found, total = [first], first
    for share in (*sorted(shares), 1.0):
        wanted = agents if share >= 1 else int(agents * share)
        if wanted > total:
            found.append(wanted - total)
            total = wanted
    return found


def waves(candidates: Sequence[Candidate], canary: int, shares: Sequence[float]) -> list[list[Candidate]]:
    """The candidates by wave."""
    ordered = order([one for one in candidates if not one.needed_by])
    found, begin = [], 0
    for size in sizes(len(ordered), len({one.group for one in ordered}), canary, shares):
        found.append(ordered[begin : begin + size])
        begin += size
    return _with_needed(found, [one for one in candidates if one.needed_by])


def _with_needed(found: Sequence[list[Candidate]], needed: Sequence[Candidate]) -> list[list[Candidate]]:
    """The waves with the new agents that others call, each before the first that does; those in a circle come first."""
    left = {one.agent: one for one in order(needed)}
    made = []
    for wave in found:
        with_needed, callers = list(wave), {one.agent for one in wave}
        while more := [one for one in left.values() if one.needed_by & callers]:
            with_needed[:0] = more
            callers = {one.agent for one in more}
            for one in more:
                del left[one.agent]
        made.append(with_needed)
    if not left:
        return made
    return [[*left.values(), *made[0]], *made[1:]] if made else [list(left.values())]
