"""In which order a change reaches its agents: waves, the first of which is a canary.

A wave is begun when all before it are decided. The canary is the smallest, and has one agent of every group, so that
each kind of change is tried on one agent before it reaches a second; within a group the agent with the most calls goes
first, since it is decided soonest. Agents that are taken out of service come last: what replaces them stands by then.

Within a wave, no more agents than `max_parallel` are on their way at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

CANARY_SHARE = 0.1
"""The canary has no more than this share of the agents, however many groups there are, unless it is told to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """An agent to be put into a wave: its group, the calls that it had of late, and whether it is to be taken out."""

    agent: str
    group: str
    calls: int = 0
    leaves: bool = False


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
    ordered = order(candidates)
    found, begin = [], 0
    for size in sizes(len(ordered), len({one.group for one in ordered}), canary, shares):
        found.append(ordered[begin : begin + size])
        begin += size
    return found
