"""How often a rollout's judgement errs, and how soon it finds what is bad: measured over thousands of seeded runs.

Each run is a wave of agents that is looked at after every window, with a random number of calls on both sides; it ends
with the first condemnation or after its last window. What is asserted is what `docs/guides/rollout.md` tells.
"""

import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import comb

import pytest

from chimera.delivery.rollout.judging import Subject, judge
from chimera.delivery.rollout.sequential import Evidence, Objective, Tolerance, Window, observe, patience

BOUNDS = (1.0, 5.0, 30.0)
OBJECTIVE, TOLERANCE = Objective(0.02, 0.05, 30.0), Tolerance(0.0, 0.0)
ERROR = 0.05


@cache
def _cumulated(n: int, p: float) -> list[float]:
    return list(accumulate(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)))


def binomial(chance: random.Random, n: int, p: float) -> int:
    return min(n, bisect_left(_cumulated(n, p), chance.random()))


def side(chance: random.Random, calls: int, fails: float, slow: float) -> Window:
    late = binomial(chance, calls, slow)
    return Window(calls, binomial(chance, calls, fails), (calls - late, late, 0, 0))


@dataclass(frozen=True, kw_only=True)
class World:
    """Rates of blue and green by agent and window, and calls: from none to `most` a side."""

    agents: int
    windows: int
    most: int
    fails: Callable[[int, int], tuple[float, float]]
    slow: Callable[[int, int], tuple[float, float]] = lambda agent, window: (0.05, 0.05)
    same: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """Who was condemned, the window in which, and green's calls of an agent until then, on average."""

    agents: frozenset[str]
    groups: frozenset[str]
    windows: int
    calls: float


def run(world: World, seed: int) -> Run:
    chance = random.Random(seed)
    known = [
        observe(Evidence(), side(chance, 200, world.fails(one, 0)[0], 0.05), Window(), OBJECTIVE, TOLERANCE, BOUNDS)
        for one in range(world.agents)
    ]
    for window in range(1, world.windows + 1):
        for one in range(world.agents):
            fails, slow = world.fails(one, window), world.slow(one, window)
            blue = side(chance, chance.randint(0, world.most), fails[0], slow[0])
            green = side(chance, chance.randint(0, world.most), fails[1], slow[1])
            known[one] = observe(known[one], blue, green, OBJECTIVE, TOLERANCE, BOUNDS)
        wave = [
            Subject(agent=f"a{one}", group="g" if world.same else f"g{one}", evidence=evidence)
            for one, evidence in enumerate(known)
        ]
        found = judge(wave, size=world.agents, groups=1 if world.same else world.agents, error=ERROR, least_calls=5)
        if not found.clean:
            break
    calls = sum(one.green.calls for one in known) / world.agents
    return Run(agents=frozenset(found.agents), groups=frozenset(found.groups), windows=window, calls=calls)


def runs(world: World, count: int) -> list[Run]:
    return [run(world, seed) for seed in range(count)]


def share(found: list[Run]) -> float:
    return sum(bool(one.agents or one.groups) for one in found) / len(found)


def steady(agent: int, window: int) -> tuple[float, float]:
    """Blue and green fail in two of a hundred calls: the worst case of the null hypothesis."""
    return 0.02, 0.02


def outages(agent: int, window: int) -> tuple[float, float]:
    """A provider that fails on both sides, for all agents, in every fourth window."""
    return (0.6, 0.6) if window % 4 == 0 else (0.02, 0.02)


@pytest.mark.parametrize("rates", [steady, outages])
@pytest.mark.parametrize("same", [False, True], ids=["each its own change", "one change"])
def test_a_wave_of_good_agents_is_condemned_no_more_often_than_was_said(
    rates: Callable[[int, int], tuple[float, float]], same: bool
) -> None:
    found = runs(World(agents=4, windows=16, most=20, fails=rates, same=same), 1000)
    assert share(found) <= ERROR / 2  # and in fact a fiftieth of it: e-values are careful


def test_one_look_after_each_window_is_what_a_test_made_for_one_look_cannot_bear() -> None:
    """The same runs under a test for one look (a difference of rates, in standard errors) err many times as often."""
    alarms = 0
    for seed in range(300):
        chance = random.Random(seed)
        calls = [0, 0]
        failed = [0, 0]
        for _ in range(100):
            for number in (0, 1):
                calls[number] += 20
                failed[number] += binomial(chance, 20, 0.1)
            mean = sum(failed) / sum(calls)
            spread = (mean * (1 - mean) * 2 / calls[0]) ** 0.5
            if spread and (failed[1] - failed[0]) / calls[0] > 1.645 * spread:
                alarms += 1
                break
    assert alarms / 300 > 4 * ERROR


def test_one_bad_agent_of_many_is_found_and_no_other() -> None:
    def one_bad(agent: int, window: int) -> tuple[float, float]:
        return (0.02, 0.3) if agent == 3 else (0.02, 0.02)

    found = runs(World(agents=10, windows=16, most=20, fails=one_bad), 300)
    assert sum("a3" in one.agents for one in found) / len(found) >= 0.98
    assert sum(bool(one.agents - {"a3"}) for one in found) / len(found) <= ERROR
    assert sum(one.calls for one in found) / len(found) <= 70


def test_a_green_that_fails_all_is_found_within_its_first_window() -> None:
    found = runs(World(agents=1, windows=8, most=12, fails=lambda agent, window: (0.02, 1.0)), 500)
    assert share(found) == 1.0
    assert sum(one.windows for one in found) / len(found) <= 2.0


def test_a_green_that_is_slower_is_found() -> None:
    def slower(agent: int, window: int) -> tuple[float, float]:
        return 0.05, 0.5

    found = runs(World(agents=1, windows=16, most=20, fails=steady, slow=slower), 300)
    assert share(found) >= 0.98


def test_agents_with_the_same_change_find_together_what_one_alone_does_not() -> None:
    def a_little_worse(agent: int, window: int) -> tuple[float, float]:
        return 0.02, 0.07

    alone = runs(World(agents=1, windows=6, most=20, fails=a_little_worse), 300)
    together = runs(World(agents=30, windows=6, most=20, fails=a_little_worse, same=True), 60)
    assert share(alone) <= 0.5
    assert share(together) >= 0.95


SHARES = ((0.1, 30), (0.5, 30), (0.9, 120))
"""Green's share of the calls, and for how many windows, as a rollout goes."""
PROMISED, ALLOWED = Objective(0.01, 0.05, 30.0), Tolerance(0.005, 0.02)
WAVES = 3


def shared(
    seed: int, calls: int, fails: Callable[[int], tuple[float, float]], agents: int = 1, same: bool = True
) -> bool:
    """Whether anybody is condemned of agents, with the `same` change or not, whose calls fall to either side."""
    chance, known, window = random.Random(seed), [Evidence()] * agents, 0
    for share, windows in SHARES:
        for _ in range(windows):
            window += 1
            for one in range(agents):
                blue, green = sides(chance, calls, share, fails(window))
                known[one] = observe(known[one], blue, green, PROMISED, ALLOWED, BOUNDS, alone=patience(share))
            wave = [
                Subject(agent=f"a{one}", group="g" if same else f"g{one}", evidence=evidence)
                for one, evidence in enumerate(known)
            ]
            if not judge(wave, size=agents, groups=1 if same else agents, error=ERROR / WAVES, least_calls=5).clean:
                return True
    return False


def sides(chance: random.Random, calls: int, share: float, fails: tuple[float, float]) -> tuple[Window, Window]:
    """A window's calls, about so many, each drawn to green by its share: blue's and green's."""
    total = chance.randint(0, 2 * calls)
    greens = binomial(chance, total, share)
    blues = total - greens
    return (
        Window(blues, binomial(chance, blues, fails[0]), (blues, 0, 0, 0)),
        Window(greens, binomial(chance, greens, fails[1]), (greens, 0, 0, 0)),
    )


def outage(rate: float) -> Callable[[int], tuple[float, float]]:
    """Both sides fail as often for half a minute, while green gets nine of ten calls."""
    return lambda window: (rate, rate) if 80 < window <= 110 else (0.002, 0.002)


@pytest.mark.parametrize(("calls", "rate"), [(1, 0.6), (4, 0.6), (16, 0.6), (16, 0.2)])
def test_an_outage_is_held_against_nobody_though_blue_has_few_calls_in_it(calls: int, rate: float) -> None:
    assert not any(shared(seed, calls, outage(rate)) for seed in range(40))


def test_an_outage_is_held_against_no_group() -> None:
    assert not any(shared(seed, 2, outage(0.3), agents=8) for seed in range(8))


def test_an_outage_is_held_against_none_of_many_busy_agents() -> None:
    assert not any(shared(seed, 16, outage(0.2), agents=10, same=False) for seed in range(12))


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
def test_a_green_that_misses_its_objective_as_blue_did_is_condemned_no_more_often(rate: float) -> None:
    assert not any(shared(seed, 1, lambda _: (rate, rate)) for seed in range(60))


def test_a_green_that_fails_often_is_found_though_blue_has_few_calls_left() -> None:
    assert sum(shared(seed, 1, lambda _: (0.002, 1.0)) for seed in range(40)) == 40
    assert sum(shared(seed, 4, lambda _: (0.002, 0.2)) for seed in range(40)) / 40 >= 0.9
