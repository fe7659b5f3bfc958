from hypothesis import given
from hypothesis import strategies as st

from chimera_host import memory

BASE = 80 * 1024**2
costs = st.builds(
    memory.Costs,
    base=st.just(BASE),
    each=st.floats(memory.FLOOR, memory.CEILING),
    loaded=st.integers(0, 20_000),
)


def test_the_cost_of_an_agent_is_the_growth_by_the_number():
    found = memory.estimate(memory.Costs(base=BASE), resident=BASE + 1000 * 20_000, loaded=1000)
    assert found.each == 20_000 and found.loaded == 1000


@given(costs, st.integers(0, 2**34), st.integers(0, 20_000))
def test_the_estimate_stays_sane_and_learns_only_from_more(before, resident, loaded):
    after = memory.estimate(before, resident=resident, loaded=loaded)
    assert memory.FLOOR <= after.each <= memory.CEILING
    if loaded <= before.loaded or loaded < memory.MIN_SAMPLE:
        assert after == before


@given(costs, st.integers(BASE, 2**34))
def test_what_fits_really_fits(found, limit):
    fits = memory.capacity(found, limit)
    assert fits >= 1
    assert fits == 1 or found.base + fits * found.each <= limit


@given(costs)
def test_a_host_smaller_than_its_base_still_runs_one(found):
    assert memory.capacity(found, BASE // 2) == 1


@given(st.lists(st.tuples(st.integers(-(2**20), 2**30), st.sets(st.sampled_from("abcd"))), max_size=30))
def test_at_most_one_agent_is_named_and_it_ran(steps):
    growth = memory.Growth()
    charged = dict.fromkeys("abcd", 0.0)
    for grown, running in steps:
        growth.charge(grown, running)
        if grown > 0:
            for agent in running:
                charged[agent] += grown / len(running)
    named = growth.heaviest()
    assert len(named) <= 1
    for agent in named:
        assert charged[agent] == max(charged.values()) > 0


def test_growth_remembers_a_bounded_number():
    growth = memory.Growth(keep=10)
    growth.charge(2**30, ["leak"])
    for n in range(1000):
        growth.charge(1, [f"agent-{n}"])
    assert growth.heaviest() == ("leak",)
    assert len(growth._charged) <= 11


def test_the_process_is_measured():
    before = memory.resident_bytes()
    held = b"x" * (64 * 1024**2)
    assert memory.resident_bytes() - before > 48 * 1024**2
    del held
