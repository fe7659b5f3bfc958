"""A world in which rollouts happen: agents with two sides, calls on both by weight, leaders that are killed.

Nothing here waits: a tick of the world moves its clock, lets gateways load what they were told, lets calls end, and has
the leader of that moment make a pass. `Killed` is a kill -9: it is raised before or after one of the leader's effects,
and whoever was in the middle of something never goes on.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chimera.delivery.rollout.model import ENDED, Item, Policy, Summary
from chimera.delivery.rollout.ports import RolloutStore
from chimera.delivery.rollout.service import LEASE, RolloutService
from chimera.delivery.sides.model import WHOLE, Seen, Standing
from chimera.delivery.sides.rules import BUCKETS
from chimera.kernel.leases import Lease, Leases
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled
from chimera.testing.leases import MemoryLeases
from chimera.testing.rollouts import MemoryRolloutStore
from chimera.testing.sides import MemorySides

TENANT = "default"
QUICK = Policy(
    canary=1,
    waves=(0.5,),
    steps=(20.0, 60.0),
    step_seconds=20.0,
    bake_seconds=60.0,
    longest_bake=200.0,
    load_seconds=100.0,
    least_calls=20,
)
"""A policy by which a rollout takes some dozens of ticks."""
TICK = 10.0
EFFECTS = ("create", "save", "set_green", "set_weights", "finish")


class Killed(BaseException):
    """The process is gone. No handler of the code that is tested may catch it."""


@dataclass
class Killer:
    """Counts effects, and kills at one of them: `at` counts each twice, before and after it is done (-1: never)."""

    at: int = -1
    count: int = 0
    names: list[str] = field(default_factory=list)

    async def around(self, name: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        """Do an effect, or die before or after it."""
        self._next(f"before {name}")
        done = await effect()
        self._next(f"after {name}")
        return done

    def _next(self, name: str) -> None:
        number, self.count = self.count, self.count + 1
        self.names.append(name)
        if number == self.at:
            raise Killed(name)


class Deadly:
    """A store or sides whose effects may kill whoever asks for them."""

    def __init__(self, inner: Any, killer: Killer) -> None:
        """Pass everything on to `inner`."""
        self._inner = inner
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        """The method of that name, with the killer around it where it has an effect."""
        found = getattr(self._inner, name)
        if name not in EFFECTS:
            return found

        async def deadly(*arguments: Any, **options: Any) -> Any:
            return await self._killer.around(name, lambda: found(*arguments, **options))

        return deadly


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How much of an agent's calls fail on each side, and how many calls it has in a tick."""

    blue: float = 0.01
    green: float = 0.01
    calls: int = 20


class RolloutWorld:
    """Agents, calls, and control planes one after the other."""

    def __init__(
        self,
        agents: Sequence[str],
        *,
        seed: int = 0,
        rates: Callable[[str], Rates] = lambda agent: Rates(),
        store: RolloutStore | None = None,
        leases: Leases | None = None,
        policy: Policy = QUICK,
    ) -> None:
        """Have `agents` live; `store` and `leases` may be a database's."""
        self.clock = ManualClock()
        self.mirror = MemoryLeases(self.clock)
        self.leases: Leases = leases or self.mirror
        self.sides = MemorySides(self.clock, self.mirror)
        self.memory = MemoryRolloutStore(self.clock, self.mirror)
        self.store: RolloutStore = store or self.memory
        self.policy = policy
        self.rates = rates
        self.killer = Killer()
        self.held: Lease | None = None
        self.items: list[Item] = []
        self.loads = True
        self._random = random.Random(seed)
        self._leaders = 0
        for agent in agents:
            self.add(agent)
        self.service = self._new_service()

    def add(self, agent: str) -> None:
        """An agent with a live revision, and one that is to be."""
        old, new = compiled(agent), compiled(agent, model={"temperature": 0.5})
        for one in (old, new):
            self.memory.revisions[one.digest] = one.value
            self.sides.store(TENANT, agent, one.digest)
        self.sides.apply(TENANT, agent, old.digest)
        self.items.append(Item(agent=agent, revision=new.digest, before=old.digest))

    async def start(self, **more: Any) -> Summary:
        """Begin a rollout of all agents' new revisions."""
        told = {"title": "another model", "by": "user:ann", "change": "chg-1", "content": "c", **more}
        return await self.service.start(TENANT, self.items, **told)

    async def lead(self, owner: str | None = None) -> Lease:
        """A control plane becomes the leader, whoever was it before."""
        self._leaders += 1
        name = owner or f"cp-{self._leaders}"
        if self.held is not None:
            await self.leases.release(self.held)
        got = await self.leases.acquire(LEASE, name, 10_000.0)
        assert got is not None
        self.held = self.mirror.leases[LEASE] = got
        self.service = self._new_service()
        return got

    async def tick(self, *, led: bool = True) -> None:
        """Some seconds pass, calls end, and the leader, if there is one, makes a pass."""
        self.clock.advance(TICK)
        await self.serve()
        if led:
            assert self.held is not None
            await self.service.round(self.held)

    async def serve(self) -> None:
        """Gateways load green where blue is, and tell of a window of calls."""
        standing = await self.standing()
        seen: list[Seen] = []
        for agent, how in standing.items():
            if how.green is None:
                continue
            if self.loads:
                self.sides.load(TENANT, agent, 1, 1)
            seen += self._calls(agent, how)
        self.sides.see(TENANT, *seen)

    async def standing(self) -> dict[str, Standing]:
        """How all agents stand."""
        return dict(await self.sides.look(TENANT, [one.agent for one in self.items]))

    async def until_over(self, rollout: str, *, most: int = 200) -> Summary:
        """Tick until a rollout is over. A leader that is killed is followed by another."""
        for _ in range(most):
            found = await self.store.get(TENANT, rollout)
            if found.rollout.state in ENDED:
                return found
            try:
                await self.tick()
            except Killed:
                await self.lead()
        raise AssertionError(f"{rollout} is not over after {most} ticks: {await self.store.get(TENANT, rollout)}")

    async def all_at(self, *, new: bool) -> bool:
        """Whether all agents are live with their new revision (or their old one), and none has another side."""
        standing = await self.standing()
        return all(
            standing[one.agent].blue == (one.revision if new else one.before) and standing[one.agent].green is None
            for one in self.items
        )

    async def moved(self) -> set[str]:
        """The agents that are live with their new revision."""
        standing = await self.standing()
        return {one.agent for one in self.items if one.agent in standing and standing[one.agent].blue == one.revision}

    def _new_service(self) -> RolloutService:
        store: Any = Deadly(self.store, self.killer)
        sides: Any = Deadly(self.sides, self.killer)
        return RolloutService(store, sides, self.memory, self.policy)

    def _calls(self, agent: str, how: Standing) -> list[Seen]:
        rates = self.rates(agent)
        green = sum(self._random.random() < how.weight / WHOLE for _ in range(rates.calls))
        found = []
        for calls, share, is_green in ((rates.calls - green, rates.blue, False), (green, rates.green, True)):
            revision = how.green if is_green else how.blue
            if not calls or revision is None:
                continue
            failures = sum(self._random.random() < share for _ in range(calls))
            buckets = (calls, *(0,) * (BUCKETS - 1))
            found.append(
                Seen(
                    agent=agent,
                    revision=revision,
                    green=is_green,
                    window=0,
                    calls=calls,
                    failures=failures,
                    buckets=buckets,
                )
            )
        return found
