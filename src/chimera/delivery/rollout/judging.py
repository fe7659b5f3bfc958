"""Which agents of a wave are worse than before, with the error controlled over all of them, and what else is decided.

Ten thousand tests at 5% would condemn five hundred good agents. Each wave has a budget of error, its part of the
rollout's (`Policy.error` divided by the number of waves, so that all of them together keep it). Half of it is for
agents one by one, half for groups of agents with the same change, whose evidence is multiplied.

In both halves e-values are judged by e-BH: of N hypotheses those with the k highest e-values are rejected, for the
greatest k of which the k-th is at least N / (k a). Of what is rejected so, a share of at most `a` is rejected wrongly
on average, whatever depends on what (R. Wang and A. Ramdas, "False discovery rate control with e-values", Journal of
the Royal Statistical Society B 84 (2022)); and where no agent is worse, anything at all is rejected with probability
`a` at most. It may be asked after every window: an agent's evidence is stopped when it is condemned and stays what it
is then, so that who was condemned once is condemned by every later look.

**Nothing flaps.** A condemned side never gets calls again in its rollout. Between well and condemned lies doubt: while
an agent is in doubt its weight doesn't rise and its bake time doesn't end, and it leaves doubt only well below the
value by which it came into it. All bets speak for doubt, also those that condemn nobody (`sequential.counting`):
waiting for more calls does no harm.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from chimera.delivery.rollout.sequential import BETS, Evidence, difference, log_e, pooled

DOUBT, RELIEF = 0.5, 0.25
"""An agent is in doubt from E = (1/a)^0.5 on, and out of it again below (1/a)^0.25."""

Strength = Literal["proven", "sufficient", "low"]


class Subject(Struct, frozen=True, kw_only=True):
    """One agent of a wave to be judged: its group (agents with the same change), what was seen, whether it is in doubt.

    `open` says whether a judgement may still change anything: of agents that are taken back already, evidence stays.
    """

    agent: str
    group: str
    evidence: Evidence
    doubted: bool = False
    open: bool = True


class Judgement(Struct, frozen=True, kw_only=True):
    """Agents and groups that are worse, by the logarithms of their e-values, and the agents in doubt."""

    agents: Mapping[str, float]
    groups: Mapping[str, float]
    doubted: frozenset[str]

    @property
    def clean(self) -> bool:
        """Whether nothing is condemned."""
        return not self.agents and not self.groups


def judge(
    wave: Sequence[Subject], *, size: int, groups: int, error: float, least_calls: int, spare: int = 1
) -> Judgement:
    """Judge all agents of a wave of `size` agents in `groups` groups; those that haven't begun need not be given.

    Nobody is condemned by less than `least_calls` of green's calls, no group by less than that together, and none by
    `spare` of its agents alone.
    """
    found = {one.agent: pooled([one.evidence]) for one in wave}
    enough = {one.agent: found[one.agent] for one in wave if one.evidence.green.calls >= least_calls}
    same: dict[str, list[Evidence]] = {}
    for one in wave:
        same.setdefault(one.group, []).append(one.evidence)
    together = {
        name: pooled(several, spare=spare)
        for name, several in same.items()
        if len(several) > spare and sum(one.green.calls for one in several) >= least_calls
    }
    condemned = e_bh(enough, size=size, error=error / 2)
    bad_groups = e_bh(together, size=groups, error=error / 2)
    return Judgement(
        agents={name: found[name] for name in condemned},
        groups={name: together[name] for name in bad_groups},
        doubted=frozenset(
            one.agent for one in wave if one.open and _doubts(log_e(one.evidence.bets), error / 2 / size, one.doubted)
        ),
    )


def e_bh(log_values: Mapping[str, float], *, size: int, error: float) -> tuple[str, ...]:
    """Who is rejected of `size` hypotheses, the strongest first; those that aren't given have the e-value 1 or less."""
    ordered = sorted(log_values, key=lambda name: (-log_values[name], name))
    for k in range(len(ordered), 0, -1):
        if log_values[ordered[k - 1]] >= math.log(size / (k * error)):
            return tuple(ordered[:k])
    return ()


def strength(evidence: Evidence, *, least_calls: int, tolerance: float, error: float) -> Strength:
    """How well it is known that green is no worse.

    `proven`: it fails in at most `tolerance` more of its calls than blue, or keeps the objective, but for `error`
    (`sequential.difference`, the caller's comparison); `sufficient`: it had the least calls and nothing spoke against
    it; `low`: it had fewer, and was decided by time and by evaluation cases.
    """
    if evidence.green.calls < least_calls:
        return "low"
    if difference(evidence.green, evidence.blue, error)[1] <= tolerance:
        return "proven"
    return "sufficient"


def why(evidence: Evidence, bets: Sequence[str] = BETS) -> str:
    """Which of these bets speaks most against green, in words with its figures."""
    green, blue = evidence.green, evidence.blue
    told = {
        "failing": f"{_share(green.failures, green.calls)} failed, {_share(blue.failures, blue.calls)} before",
        "slowing": f"{_share(green.slow, green.calls)} were slower than nine tenths of calls were before",
        "faulty": f"{_share(green.failures, green.calls)} failed, more than its objective allows",
        "late": f"{_share(green.late, green.calls)} took longer than its objective allows",
    }
    return told[max(bets, key=lambda name: log_e(getattr(evidence, name)))]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} calls"


def _doubts(value: float, error: float, doubted: bool) -> bool:
    bound = math.log(1 / error)
    return value >= bound * (RELIEF if doubted else DOUBT)
