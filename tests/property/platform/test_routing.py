"""Properties of rendezvous hashing with bounded load."""

import math

from hypothesis import given
from hypothesis import strategies as st

from chimera.platform import routing

HOSTS = st.sets(st.text("abcdefgh0123", min_size=1, max_size=8), min_size=1, max_size=12)
KEYS = st.text(min_size=1, max_size=20)
LOADS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=6), st.integers(0, 40), min_size=1, max_size=10)


@given(KEYS, HOSTS)
def test_the_order_of_hosts_is_the_keys_own(key: str, hosts: set[str]) -> None:
    assert routing.ranked(key, hosts) == routing.ranked(key, sorted(hosts))
    assert set(routing.ranked(key, hosts)) == hosts


@given(KEYS, HOSTS, st.text("xyz", min_size=1, max_size=8))
def test_a_host_that_comes_or_goes_moves_only_what_it_wins(key: str, hosts: set[str], other: str) -> None:
    before, after = routing.ranked(key, hosts), routing.ranked(key, hosts | {other})
    assert [host for host in after if host != other] == [host for host in before if host != other]
    assert after[0] in (before[0], other)


@given(KEYS, LOADS, st.integers(1, 100))
def test_nobody_gets_more_than_the_bound(key: str, loads: dict[str, int], most: int) -> None:
    chosen = routing.choose(key, loads, most=most)
    if chosen is None:
        assert all(load >= min(most, routing.capacity(sum(loads.values()) + 1, len(loads))) for load in loads.values())
        return
    assert loads[chosen] + 1 <= max(1, math.ceil(routing.BOUND * (sum(loads.values()) + 1) / len(loads)))
    assert loads[chosen] < most


@given(KEYS, LOADS)
def test_somebody_always_takes_the_call_while_hosts_have_room(key: str, loads: dict[str, int]) -> None:
    assert routing.choose(key, loads, most=10**6) is not None


@given(KEYS, HOSTS)
def test_an_idle_cell_sends_an_agent_to_its_first_host(key: str, hosts: set[str]) -> None:
    assert routing.choose(key, dict.fromkeys(hosts, 0), most=10) == routing.ranked(key, hosts)[0]


def test_agents_spread_evenly() -> None:
    hosts = [f"host-{n}" for n in range(8)]
    first = [routing.ranked(f"agent-{n}", hosts)[0] for n in range(4_000)]
    counts = [first.count(host) for host in hosts]
    assert min(counts) > 400
    assert max(counts) < 600


def test_no_hosts_no_choice() -> None:
    assert routing.choose("agent", {}, most=10) is None


WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 100), max_size=5)


@given(KEYS, WEIGHTS)
def test_a_call_tries_every_side_that_has_weight_once(call: str, weights: dict[str, int]) -> None:
    order = routing.sides(call, weights)
    assert sorted(order) == sorted(side for side, weight in weights.items() if weight)
    assert order == routing.sides(call, dict(reversed(weights.items()))), "the same in every gateway"


@given(KEYS, WEIGHTS, st.text("xyz", min_size=1, max_size=4), st.integers(1, 100))
def test_more_weight_of_one_side_moves_calls_to_it_alone(
    call: str, weights: dict[str, int], grown: str, weight: int
) -> None:
    before = routing.sides(call, {**weights, grown: weight})
    after = routing.sides(call, {**weights, grown: weight + 10})
    assert [side for side in before if side != grown] == [side for side in after if side != grown]
    assert after.index(grown) <= before.index(grown)


def test_calls_are_drawn_by_weight() -> None:
    first = [routing.sides(f"call-{number}", {"blue": 90, "green": 10})[0] for number in range(20_000)]
    assert 0.09 < first.count("green") / len(first) < 0.11
