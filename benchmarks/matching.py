"""Whom an event starts, asked of the index over what 12,000 agents subscribe to, on one core.

Each agent has one subscription: a tenth to a type of its own, a tenth to the beginning of types, the others to one of
twenty types, half of those about one subject. "Each asked" is the same without the index: the filters of all 12,000.

    python -m benchmarks.matching            prints the rows
"""

import random
import time
from collections.abc import Callable, Sequence

from benchmarks.figures import Measured
from benchmarks.stats import percentile
from chimera.agents.subscriptions import TakenEvents, filters_of
from chimera.events import filters
from chimera.gateway.eventing.happening import Happening
from chimera.gateway.eventing.index import AgentIndex
from chimera.platform.model import Route

AGENTS, EVENTS, SEED, TENANT = 12_000, 20_000, 7, "acme"
KINDS = 20


def measure(agents: int = AGENTS, events: int = EVENTS) -> dict[str, Measured]:
    """The rows."""
    chance = random.Random(SEED)
    routes = [_route(chance, number) for number in range(agents)]
    index = AgentIndex()
    began = time.perf_counter()
    for route in routes:
        index.take(route)
    built = time.perf_counter() - began
    asked = [_event(chance, agents, number) for number in range(events)]
    found = _timed(lambda event: index.receivers(event), asked)
    nobody = _timed(lambda event: index.wanted(event), [_unwanted(number) for number in range(events)])
    each = [(filters_of(one.subscriptions[0]), one) for one in routes]
    plain = _timed(
        lambda event: [one for wanted, one in each if filters.passes(wanted, event.attributes)], asked[: events // 500]
    )
    note = f"{agents:,} subscriptions"
    return {
        "match_build": Measured(value=built * 1_000, note=f"{note}; milliseconds, all put in"),
        "match": Measured(value=len(found) / sum(found), note=f"{note}; events a second"),
        "match_p99": Measured(value=percentile(found, 0.99) * 1_000, note=f"{note}; milliseconds"),
        "match_nobody": Measured(value=len(nobody) / sum(nobody), note=f"{note}; events a second that nobody wants"),
        "match_each": Measured(value=len(plain) / sum(plain), note=f"{note}; events a second, each asked"),
    }


def _timed(ask: Callable[[Happening], object], asked: Sequence[Happening]) -> list[float]:
    taken = []
    clock = time.perf_counter
    for one in asked:
        began = clock()
        ask(one)
        taken.append(clock() - began)
    return taken


def _route(chance: random.Random, number: int) -> Route:
    kind = number % 10
    subjects: tuple[str, ...] = ()
    if kind == 0:
        types: tuple[str, ...] = (f"com.example.own.{number}",)
    elif kind == 1:
        types = (f"com.example.group{number % 50}.*",)
    else:
        types = (f"com.example.kind{chance.randrange(KINDS)}",)
        subjects = (f"orders/{number}",) if kind % 2 else ()
    taken = TakenEvents(name="s", types=types, subjects=subjects, sources=("shop*",))
    return Route(
        tenant=TENANT,
        agent=f"agent-{number:05}",
        revision="r",
        cell="c",
        framework="function",
        sequence=number,
        protocols=("events",),
        subscriptions=(taken,),
    )


def _event(chance: random.Random, agents: int, number: int) -> Happening:
    kinds = (
        f"com.example.own.{number % agents // 10 * 10}",
        f"com.example.group{number % 50}.made",
        f"com.example.kind{number % KINDS}",
    )
    return _happening(kinds[number % 3], f"orders/{chance.randrange(agents)}", number)


def _unwanted(number: int) -> Happening:
    return _happening("chimera.session.updated", f"agents/a/sessions/{number}", number)


def _happening(type_: str, subject: str, number: int) -> Happening:
    attributes = {"specversion": "1.0", "id": str(number), "source": "shop/1", "type": type_, "subject": subject}
    return Happening(tenant=TENANT, attributes=attributes)


if __name__ == "__main__":
    for name, measured in measure().items():
        print(f"{name:16} {measured.value:14,.3f}  {measured.note}")
