"""What few calls say of many: intervals of rates, and whether one sample of times tends to be longer than another.

- Whether a rate is above a bound: the binomial distribution's own tail, which holds for any number of calls.
- A rate from `k` of `n`: Wilson's score interval (E. B. Wilson, JASA 22, 1927), which keeps its coverage for small `n`
  and rates near 0 and 1, where errors are.
- The difference of two rates: Newcombe's hybrid of two Wilson intervals (R. G. Newcombe, Statistics in Medicine 17,
  1998, method 10).
- Times: the Mann-Whitney test (H. B. Mann, D. R. Whitney, Annals of Mathematical Statistics 18, 1947) by its normal
  approximation with the corrections for ties and continuity. It asks nothing of the shape of the distribution, and
  times have long tails. The approximation is good from about eight calls a side.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

_NORMAL = NormalDist()


def z_of(error: float) -> float:
    """The quantile of the normal distribution that a one-sided error leaves above it."""
    return _NORMAL.inv_cdf(1.0 - error)


def wilson(count: int, of: int, z: float) -> tuple[float, float]:
    """The interval of a rate of which `count` of `of` were seen; all that is possible where nothing was."""
    if of == 0:
        return 0.0, 1.0
    rate = count / of
    middle = rate + z * z / (2 * of)
    spread = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def at_least(count: int, of: int, rate: float) -> float:
    """How likely `count` or more of `of` are, each with this rate."""
    if count <= 0:
        return 1.0
    if rate <= 0.0 or rate >= 1.0:
        return float(rate >= 1.0)

    def one(k: int) -> float:
        ways = math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
        return math.exp(ways + k * math.log(rate) + (of - k) * math.log1p(-rate))

    return min(1.0, math.fsum(one(k) for k in range(count, of + 1)))


def newcombe(first: tuple[int, int], second: tuple[int, int], z: float) -> tuple[float, float]:
    """The interval of the first rate less the second, each as how many of how many."""
    if not first[1] or not second[1]:
        return -1.0, 1.0
    one, two = first[0] / first[1], second[0] / second[1]
    low_one, high_one = wilson(*first, z)
    low_two, high_two = wilson(*second, z)
    below = math.sqrt((one - low_one) ** 2 + (high_two - two) ** 2)
    above = math.sqrt((high_one - one) ** 2 + (two - low_two) ** 2)
    return one - two - below, one - two + above


def longer(first: Sequence[float], second: Sequence[float]) -> float:
    """The one-sided p-value of the first sample's times being no longer than the second's."""
    n, m = len(first), len(second)
    if not n or not m:
        return 1.0
    ranks = _ranks([*first, *second])
    u = sum(ranks[:n]) - n * (n + 1) / 2
    ties = sum(count**3 - count for count in Counter([*first, *second]).values())
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1))) if total > 1 else 0.0
    if variance <= 0:
        return 1.0  # all times are the same
    return 1.0 - _NORMAL.cdf((u - n * m / 2 - 0.5) / math.sqrt(variance))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the middle of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    return ranks
