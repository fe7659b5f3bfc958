"""What simulations of deliveries stand on: a store in memory, receivers and a bus that a test scripts, virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from chimera.events import signing
from chimera.events.delivery.deliverer import Deliverer
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.feed import Feed
from chimera.events.delivery.model import Outcome
from chimera.events.settings import EventSettings
from chimera.kernel.leases import Lease
from chimera.testing.events import DELIVERED, FixedSecrets, MemoryEvents
from chimera.testing.virtual_time import LoopClock, run

SETTINGS = EventSettings(attempts=4, give_up=1_000.0, backoff=1.0, backoff_cap=60.0)
Answer = Callable[[str, int], Awaitable[Outcome]]


class Receivers:
    """A `Push`: remembers what arrived, as (receiver, place), and answers as it is told."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, int]] = []
        self.asked: list[tuple[float, str, int]] = []
        self.at_once: dict[str, int] = {}
        self.most: dict[str, int] = {}

        async def take(receiver: str, seq: int) -> Outcome:
            return DELIVERED

        self.answer: Answer = take

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        name = url.removeprefix("https://").partition(".")[0]
        seq = int(msgspec.json.decode(body)["sequence"])
        assert headers[signing.HEADER_ID] == f"evt_{seq}"
        assert headers[signing.HEADER_SIGNATURE].startswith("v1,")
        self.asked.append((asyncio.get_running_loop().time(), name, seq))
        self.at_once[name] = self.at_once.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self.at_once[name])
        try:
            outcome = await self.answer(name, seq)
        finally:
            self.at_once[name] -= 1
        if outcome.result == "delivered":
            self.arrived.append((name, seq))
        return outcome

    def of(self, name: str) -> list[int]:
        return [seq for one, seq in self.arrived if one == name]


class ScriptedBus:
    """A `Bus` that wants some types, and answers as it is told."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.asked: list[int] = []
        self.outcomes: dict[int, list[Outcome]] = {}
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1

    def wants(self, entry: Entry) -> bool:
        assert self.refreshed
        return entry.fact.type.startswith("task.")

    async def aclose(self) -> None:
        pass

    async def publish(self, entry: Entry) -> Outcome:
        seq = entry.fact.seq
        self.asked.append(seq)
        outcome = self.outcomes[seq].pop(0) if self.outcomes.get(seq) else DELIVERED
        if outcome.result == "delivered":
            self.published.append(seq)
        return outcome


class World:
    """A store, receivers, and one deliverer that can be killed and started again."""

    def __init__(self, settings: EventSettings = SETTINGS) -> None:
        self.store = MemoryEvents()
        self.receivers = Receivers()
        self.settings = settings
        self.suspended: set[str] = set()
        self.told: list[str] = []
        self.bus = ScriptedBus()
        self.token = 0
        self.deliverer: Deliverer
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self) -> "World":
        self.token += 1
        self.store.token = self.token
        lease = Lease(name="delivery", owner="me", token=self.token, expires=0.0)
        feed = Feed(self.store, source="", poll=self.settings.poll, batch=self.settings.batch)
        self.deliverer = Deliverer(
            self.store,
            self.store,
            feed,
            self.receivers,
            FixedSecrets(),
            LoopClock(),
            key="k",
            settings=self.settings,
            chance=lambda: 0.5,
            bus=self.bus,
            suspended=self.suspended.__contains__,
            told=self.told.append,
        )
        self._tasks = [asyncio.create_task(feed.run()), asyncio.create_task(self.deliverer.run(lease))]
        return self

    async def kill(self) -> None:
        """As `kill -9`: nothing of it is written any more."""
        self.store.token = -1
        await self.stop()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def simulate(main: Callable[[World], Awaitable[None]], settings: EventSettings = SETTINGS) -> None:
    async def whole() -> None:
        world = World(settings)
        try:
            await main(world)
        finally:
            await world.stop()

    run(whole())
