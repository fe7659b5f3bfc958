"""Memory: what the process uses, what a loaded agent costs, how many fit, and which agents made it grow.

Python can't tell what one agent holds, but the process can be measured: the growth since nothing was loaded, divided
by the agents that made it, is the cost of one. `estimate` is that rule, `capacity` how many agents fit by it. Growth
while calls run is charged to the agents that ran them; when the bound is passed, the one that was charged with most is
named.
"""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

FIRST_GUESS = 64 * 1024
"""Bytes of one loaded agent before anything was measured: above what each framework needs, so that it errs safely."""
MIN_SAMPLE = 20
"""Agents that must be loaded before a measurement counts; below, allocator noise drowns it."""
FLOOR, CEILING = 4 * 1024, 256 * 1024**2
SHARE_FOR_AGENTS = 0.85
"""Part of the room above the base that loaded agents may fill; the rest is for running calls."""
SHORT = 0.9
"""Part of the bound from which on memory is short and unused agents are given up."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Costs(Struct, frozen=True, kw_only=True):
    """What is known: the process's bytes before any agent, the bytes of one, the most agents loaded when measured."""

    base: int
    each: float = float(FIRST_GUESS)
    loaded: int = 0


def resident_bytes() -> int:
    """Bytes of this process in memory; on systems without /proc the highest it ever was."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def estimate(costs: Costs, *, resident: int, loaded: int) -> Costs:
    """The costs after a look at the process with `loaded` agents in it.

    Only a number of agents not seen before teaches anything: freed memory stays with the process, so a look after
    unloading would charge the few that are left with what others held.
    """
    if loaded < MIN_SAMPLE or loaded <= costs.loaded:
        return costs
    measured = min(max((resident - costs.base) / loaded, FLOOR), CEILING)
    return Costs(base=costs.base, each=measured, loaded=loaded)


def capacity(costs: Costs, limit: int) -> int:
    """How many agents fit into a process that may use `limit` bytes; at least one."""
    return max(1, int((limit - costs.base) * SHARE_FOR_AGENTS / costs.each))


def trim() -> None:
    """Have the C library give freed memory back to the system, where it can."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


class Growth:
    """Charges growth of the process to the agents that were running. Bounded: forgets the least charged."""

    def __init__(self, keep: int = 256) -> None:
        """Remember at most `keep` agents."""
        self._keep = keep
        self._charged: dict[str, float] = {}

    def charge(self, grown: int, running: Iterable[str]) -> None:
        """The process grew by `grown` bytes while calls of these agents ran."""
        agents = list(running)
        if grown <= 0 or not agents:
            return
        for agent in agents:
            self._charged[agent] = self._charged.get(agent, 0.0) + grown / len(agents)
        if len(self._charged) > self._keep:
            heaviest = sorted(self._charged.items(), key=lambda item: -item[1])[: self._keep // 2]
            self._charged = dict(heaviest)

    def heaviest(self) -> tuple[str, ...]:
        """The agent that was charged with more than half of everything, if one was."""
        total = sum(self._charged.values())
        return tuple(agent for agent, charged in self._charged.items() if charged > total / 2)
