"""What calls on both sides of an agent say about its new revision, as evidence that may be looked at any time.

A rollout is watched: somebody looks after each window of calls and would stop at the first bad moment. A test made for
one look errs far more often than it says when it is looked at often. So evidence here is an **e-process**: a number E
that begins at 1 and, as long as the new revision is no worse (the null hypothesis), is at most 1 on average whenever
one stops. By Ville's inequality it ever reaches 1/a with probability a at most, however often one looks.

Each window of time is a block: blue had `n` calls of which `k` failed, green had `m` of which `l` did. Whoever holds
that green is worse bets on rates (b, g) before he sees the block, and multiplies E by

    S = P(block; b, g) / P(block; t, t + d)   with P(block; x, y) = x^k (1-x)^(n-k) y^l (1-y)^(m-l)

where (t, t + d) is the closest of all pairs that say "green fails in at most `d` more of its calls": the one with the
least n KL(b, t) + m KL(g, t + d). That S is at most 1 on average for *every* pair (x, y) of the null hypothesis is
Theorem 1 of R. Turner and P. Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond",
Statistics & Probability Letters 198 (2023); the case d = 0, where t is the weighted mean, is R. Turner, A. Ly and
P. Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", Journal of
Statistical Planning and Inference 230 (2024). Why, in three lines: the logarithm of the mean of S is a concave function
of (x, y); it is 0 at (t, t + d); its gradient there is minus the divergence's, which no step inside the null decreases.

What follows from "for every pair, in every block":

- Rates may differ from window to window. A model provider that fails for a minute fails on both sides, and is no
  evidence. What is compared happened at the same time.
- Blocks of different agents multiply too, so agents with the same change pool their evidence: the same authors,
  "Safe sequential testing and effect estimation in stratified count data", AISTATS 2023.
- The number of calls in a window need not be planned, and windows need not be equally long. Windows in which one side
  had no call say nothing, so they are joined until both had some.

How far green is off, nobody knows before. E is the mean over `EXCESS`, bets on a little to nearly all of the calls, as
in the mixture tests of H. Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41 (1970), and R. Johari, P. Koomen, L. Pekelis and D. Walsh, "Always valid inference:
continuous monitoring of A/B tests", Operations Research 70 (2022). A mean of e-processes is one, whatever depends on
what (V. Vovk and R. Wang, "E-values: calibration, combination and applications", Annals of Statistics 49 (2021)), so
failures and latencies are averaged in the same way.

That green misses its objective is no bet of this null hypothesis: an outage outside makes it miss that too, and may
strike seconds in which blue had few calls, or such that all went well. So it condemns only where blue had no call at
all, and there is nothing to compare with (`counting`); in full it speaks for doubt alone.

Cost: 0.03 to 0.2 ms for a window of one agent in which both sides had calls, the more the busier it is (plain Python),
and 300 bytes of state.
"""

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

EXCESS: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 0.7)
"""How much of what is above the allowed rate green is bet to fail; one e-process each."""
NOTHING: tuple[float, ...] = (0.0,) * len(EXCESS)
BETS = ("failing", "slowing", "faulty", "late")
"""Fields of `Evidence` that hold bets: two that compare with blue, then two that compare with the objective."""
PRIOR_CALLS = 10.0
"""How many calls the belief about blue weighs before any was seen. It costs power where it is wrong, never validity."""
LEAST_RATE, MOST_RATE = 0.0005, 0.9
REFERENCE_ERROR = 1e-6
"""How likely blue's earlier rate may be above the limit taken for it, where blue has no calls beside green's."""
ALONE_CALLS = 20
"""After so many of green's calls without any of blue's, green is held against what blue was before."""
PACE_SHARE = 0.1
PACE_CALLS = 20
"""Blue's own pace is the latency that a tenth of its calls exceed, where it had so many."""


class Counts(Struct, frozen=True, array_like=True):
    """Calls of one side, those that failed, and those that took longer than the objective and than blue's own pace."""

    calls: int = 0
    failures: int = 0
    late: int = 0
    slow: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        return Counts(
            self.calls + other.calls, self.failures + other.failures, self.late + other.late, self.slow + other.slow
        )


class Objective(Struct, frozen=True, array_like=True):
    """What an agent promises: shares of its calls that may fail, and that may take longer than `seconds`."""

    failures: float = 0.01
    late: float = 0.05
    seconds: float = 30.0


class Tolerance(Struct, frozen=True, array_like=True):
    """By how much green's share of failures, and of slow calls, may be above blue's."""

    failures: float = 0.005
    slow: float = 0.02


class Evidence(Struct, frozen=True, array_like=True):
    """All that was seen of an agent so far, and the logarithms of its e-processes, one for each bet.

    `failing` and `slowing` compare green with blue; `faulty` and `late` with the objective. `pace` is the bucket of
    latencies that counts as slow (-1: not chosen yet), and `latencies` those of blue that it is chosen by (empty then).
    `open_blue` and `open_green` are windows that are not yet joined to a block.
    """

    blue: Counts = Counts()
    green: Counts = Counts()
    failing: tuple[float, ...] = NOTHING
    slowing: tuple[float, ...] = NOTHING
    faulty: tuple[float, ...] = NOTHING
    late: tuple[float, ...] = NOTHING
    pace: int = -1
    latencies: tuple[int, ...] = ()
    open_blue: Counts = Counts()
    open_green: Counts = Counts()

    @property
    def bets(self) -> tuple[float, ...]:
        """The logarithms of all bets."""
        return self.failing + self.slowing + self.faulty + self.late


class Window(Struct, frozen=True, array_like=True):
    """One side in one window: calls, those that failed, and all of them by bucket of latency."""

    calls: int = 0
    failures: int = 0
    buckets: tuple[int, ...] = ()


def observe(
    before: Evidence,
    blue: Window,
    green: Window,
    objective: Objective,
    tolerance: Tolerance,
    bounds: Sequence[float],
    *,
    alone: int = ALONE_CALLS,
) -> Evidence:
    """The evidence with one more window. `bounds` are those of the buckets, in seconds.

    Bets are made by what was seen before this window. The bet that green misses the objective is made where blue keeps
    it, before and in this window: where neither does, green isn't at fault. `alone` is how many of green's calls
    without any of blue's are no chance (`patience`).
    """
    promised = bucket_of(objective.seconds, bounds)
    if before.pace < 0 and green.calls:
        before = _with_pace(before, promised)
    past, pace = before.blue, before.pace
    b, g = _counts(blue, promised, pace), _counts(green, promised, pace)
    if pace < 0:
        return replace(before, blue=past.plus(b), latencies=_sum(before.latencies, blue.buckets))
    share, late_share = objective.failures, objective.late
    faulty, late = before.faulty, before.late
    if g.calls and _keeps(past.failures, past.calls, share) and _keeps(b.failures, b.calls, share):
        faulty = against_limit(faulty, g.calls, g.failures, share)
    if g.calls and _keeps(past.late, past.calls, late_share) and _keeps(b.late, b.calls, late_share):
        late = against_limit(late, g.calls, g.late, late_share)
    after = replace(before, blue=past.plus(b), green=before.green.plus(g), faulty=faulty, late=late)
    return _join(after, before.open_blue.plus(b), before.open_green.plus(g), objective, tolerance, alone)


def patience(share: float) -> int:
    """After how many calls of green's it is no chance that blue had none, where green gets this `share` of the calls.

    With nine of ten calls green has twenty in a row an eighth of the time; whoever then held it against blue's past
    would take a provider's outage for its fault.
    """
    if share >= 1.0:
        return ALONE_CALLS
    return max(ALONE_CALLS, math.ceil(math.log(REFERENCE_ERROR) / math.log(max(share, REFERENCE_ERROR))))


def _join(
    after: Evidence, blue: Counts, green: Counts, objective: Objective, tolerance: Tolerance, alone: int
) -> Evidence:
    """The evidence with a block of both sides' calls; without one yet, where only one side had any."""
    if not green.calls or (not blue.calls and green.calls < alone):
        return replace(after, open_blue=blue, open_green=green)
    past = after.blue
    known = past.calls - blue.calls
    return replace(
        after,
        failing=_against_blue(
            after.failing,
            blue.calls,
            blue.failures,
            green.calls,
            green.failures,
            Counts(known, past.failures - blue.failures),
            objective.failures / 2,
            tolerance.failures,
        ),
        slowing=_against_blue(
            after.slowing,
            blue.calls,
            blue.slow,
            green.calls,
            green.slow,
            Counts(known, past.slow - blue.slow),
            min(objective.late / 2, PACE_SHARE),
            tolerance.slow,
        ),
        open_blue=Counts(),
        open_green=Counts(),
    )


def log_e(bets: Sequence[float]) -> float:
    """The logarithm of the mean of e-values whose logarithms are `bets`."""
    most = max(bets)
    return most + math.log(sum(math.exp(bet - most) for bet in bets) / len(bets))


def counting(several: Sequence[Evidence]) -> tuple[str, ...]:
    """The names of the bets by which these agents may be condemned: against blue, or all where it had no calls."""
    return BETS[:2] if any(one.blue.calls for one in several) else BETS


def pooled(several: Sequence[Evidence], *, spare: int = 0) -> float:
    """The logarithm of the e-value of agents together, that none of them is worse: bet by bet, their product.

    With `spare`, the evidence that is left whichever so many agents one leaves out: bet by bet without the strongest.
    It is never more than that of the others without any fixed ones, which is an e-process, so it errs no more often.
    One agent that is bad by itself says nothing of those that were changed alike. Bets are those of `counting`.
    """
    names = counting(several)
    by_bet = zip(*([bet for name in names for bet in getattr(one, name)] for one in several), strict=True)
    sums = [math.fsum(sorted(bets)[: max(0, len(bets) - spare)]) for bets in by_bet]
    return log_e(sums) if sums else 0.0


def log_factor(n: int, k: int, m: int, failed: int, b: float, g: float, d: float) -> float:
    """The logarithm of S (see above), for a bet on the rates `b` and `g` with g >= b + d."""
    t = closest(n, m, b, g, d)
    u = t + d
    return (
        k * math.log(b / t)
        + (n - k) * math.log((1 - b) / (1 - t))
        + failed * math.log(g / u)
        + (m - failed) * math.log((1 - g) / (1 - u))
    )


def closest(n: int, m: int, b: float, g: float, d: float) -> float:
    """The `t` between b and g - d with the least n KL(b, t) + m KL(g, t + d): where the derivative is 0.

    It is the weighted mean where d = 0, and a root of a cubic otherwise (C. Farrington and G. Manning, Statistics in
    Medicine 9 (1990)), found by Newton's steps that stay between the bounds.
    """
    low, high = b, g - d
    if not n or high <= low:
        return high
    if not m:
        return low
    t = (n * low + m * high) / (n + m)
    if d == 0.0:
        return t
    for _ in range(60):
        u = t + d
        tv, uv = t * (1 - t), u * (1 - u)
        value = n * (t - b) / tv + m * (u - g) / uv
        if value > 0:
            high = t
        else:
            low = t
        slope = n * (tv - (t - b) * (1 - 2 * t)) / (tv * tv) + m * (uv - (u - g) * (1 - 2 * u)) / (uv * uv)
        step = t - value / slope if slope > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - t) <= 1e-15 + 1e-13 * t:
            return following
        t = following
    return t


def upper(calls: int, failures: int, error: float) -> float:
    """A rate that the true one exceeds with probability `error` at most, at whatever number of calls one looks.

    It is the largest p with n KL(k/n, p) <= log((n + 1) / error). By the mixture over all rates alike the e-process
    P(calls; uniform) / P(calls; p) is at least exp(n KL(k/n, p)) / (n + 1) (H. Robbins as above; E. Kaufmann and
    W. Koolen, "Mixture martingales revisited", Journal of Machine Learning Research 22 (2021)).
    """
    if not calls:
        return 1.0
    seen, bound = failures / calls, math.log((calls + 1) / error) / calls
    low, high = seen, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _divergence(seen, middle) > bound:
            high = middle
        else:
            low = middle
    return high


def lower(calls: int, failures: int, error: float) -> float:
    """A rate that the true one is below with probability `error` at most, likewise."""
    return 1.0 - upper(calls, calls - failures, error)


def difference(green: Counts, blue: Counts, error: float) -> tuple[float, float]:
    """Bounds of green's share of failures less blue's, that hold at all times at once but with probability `error`."""
    part = error / 4
    low = lower(green.calls, green.failures, part) - upper(blue.calls, blue.failures, part)
    return low, upper(green.calls, green.failures, part) - lower(blue.calls, blue.failures, part)


def against_limit(bets: tuple[float, ...], m: int, failed: int, limit: float) -> tuple[float, ...]:
    """The bets that `failed` of `m` calls are more than a share of `limit`, after these calls."""
    if limit >= 1 - LEAST_RATE:
        return bets
    kept = m - failed
    rates = [limit + (1 - limit) * part for part in EXCESS]
    return tuple(
        bet + failed * math.log(rate / limit) + kept * math.log((1 - rate) / (1 - limit))
        for bet, rate in zip(bets, rates, strict=True)
    )


def bucket_of(seconds: float, bounds: Sequence[float]) -> int:
    """The bucket that ends at or after `seconds`; what lies in later ones took longer."""
    return next((number for number, bound in enumerate(bounds) if bound >= seconds), len(bounds))


def _against_blue(
    bets: tuple[float, ...], n: int, k: int, m: int, failed: int, past: Counts, prior: float, d: float
) -> tuple[float, ...]:
    """`bets` after a block; `past` are blue's calls before it, and those that failed."""
    if not n:
        limit = upper(past.calls, past.failures, REFERENCE_ERROR) + d
        return against_limit(bets, m, failed, limit)
    believed = (past.failures + PRIOR_CALLS * prior) / (past.calls + PRIOR_CALLS)
    believed = min(MOST_RATE, max(LEAST_RATE, believed))
    allowed = believed + d
    if allowed >= 1 - LEAST_RATE:
        return bets  # green may fail in all its calls: no rate of its own could be worse
    rates = [allowed + (1 - allowed) * part for part in EXCESS]
    return tuple(bet + log_factor(n, k, m, failed, believed, rate, d) for bet, rate in zip(bets, rates, strict=True))


def _keeps(failures: int, calls: int, share: float) -> bool:
    """Whether a side kept what is promised; one without calls broke nothing."""
    return failures <= calls * share


def _counts(window: Window, promised: int, pace: int) -> Counts:
    slow = sum(window.buckets[pace + 1 :]) if pace >= 0 else 0
    return Counts(window.calls, window.failures, sum(window.buckets[promised + 1 :]), slow)


def _with_pace(before: Evidence, promised: int) -> Evidence:
    """The evidence once green gets its first calls: from now on what is slow is what blue's calls seldom were."""
    pace = _pace(before.latencies, promised)
    blue = replace(before.blue, slow=sum(before.latencies[pace + 1 :]))
    return replace(before, blue=blue, pace=pace, latencies=())


def _pace(latencies: Sequence[int], promised: int) -> int:
    """The first bucket that at most a tenth of blue's calls are beyond; never later than what is promised."""
    calls = sum(latencies)
    if calls < PACE_CALLS:
        return promised
    beyond = calls
    for number, count in enumerate(latencies):
        beyond -= count
        if beyond <= PACE_SHARE * calls:
            return min(number, promised)
    return promised


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if not other:
        return one
    if not one:
        return other
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _divergence(p: float, q: float) -> float:
    """KL(p, q) of two coins, in nats."""
    found = 0.0
    if p > 0:
        found += p * math.log(p / q)
    if p < 1:
        found += math.inf if q >= 1 else (1 - p) * math.log((1 - p) / (1 - q))
    return found
