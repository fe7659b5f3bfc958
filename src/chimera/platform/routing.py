"""Which host of a cell takes an agent's call: rendezvous hashing with bounded load.

Each pair of an agent and a host has a score that never changes, and an agent goes to the host with its highest score.
So an agent lives on few hosts, which keep it loaded, and a host that comes or goes moves only the agents that it wins
or had. A popular agent would drown its host, so no host gets more than `BOUND` times the mean: whoever is full passes
the call to the next in the agent's own order (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded
Loads", 2016).

While a cell changes over, its hosts are of two sides, and each call is drawn to one by weight first, by a hash of the
call: the same weights for an agent with two calls as for one with thousands.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

BOUND = 1.25
TWO_64 = 2.0**64


def score(key: str, host: str) -> int:
    """How much `host` is meant for `key`: 64 bits, the same in every process."""
    return int.from_bytes(blake2b(f"{host}\0{key}".encode(), digest_size=8).digest(), "big")


def sides(call: str, weights: Mapping[str, int]) -> list[str]:
    """The sides in the order in which `call` is to try them: each is first with the probability that its weight says.

    Weighted rendezvous hashing; a side without weight isn't tried.
    """
    drawn = {side: -math.log((score(call, side) + 1) / TWO_64) / weight for side, weight in weights.items() if weight}
    return sorted(drawn, key=lambda side: (drawn[side], side))


def ranked(key: str, hosts: Collection[str]) -> list[str]:
    """`hosts` in the order in which `key` prefers them."""
    return sorted(hosts, key=lambda host: (score(key, host), host), reverse=True)


def capacity(total: int, hosts: int, bound: float = BOUND) -> int:
    """The most calls one of `hosts` hosts may have when there are `total` with the one to be placed."""
    return max(1, math.ceil(bound * total / hosts))


def choose(key: str, loads: Mapping[str, int], *, most: int, bound: float = BOUND) -> str | None:
    """The host that takes a call of `key`; `loads` are calls in flight by host, none may have more than `most`.

    None where every host is full.
    """
    hosts: Sequence[str]
    if len(loads) == 1:
        hosts = tuple(loads)
    elif loads:
        hosts = ranked(key, loads)
    else:
        return None
    limit = min(most, capacity(sum(loads.values()) + 1, len(loads), bound))
    return next((host for host in hosts if loads[host] < limit), None)
