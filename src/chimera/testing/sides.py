"""The sides of agents in memory: the shipped fake that passes the same conformance suite as the database."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from chimera.adapters.storage.leases import LeaseLost
from chimera.delivery.sides.model import WHOLE, Green, Observations, Seen, Standing
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.testing.leases import MemoryLeases


class MemorySides:
    """A `Sides` over agents that a test makes live (`apply`), with what it says of loading and of calls.

    `stored` are the revisions there are, by tenant and agent; `live` those that are live; `owned` the resources that
    own agents and alone change them. `withdrawn` and `cancelled` note what was taken back, and what calls were ended;
    `back_by` who took back.
    """

    def __init__(self, clock: Clock, leases: MemoryLeases) -> None:
        """Start without agents; `leases` say who may write."""
        self._clock = clock
        self._leases = leases
        self.stored: dict[tuple[str, str], set[str]] = {}
        self.live: dict[tuple[str, str], str] = {}
        self.owned: dict[tuple[str, str], str] = {}
        self.changes: list[tuple[str, str, str | None, str | None]] = []
        self.withdrawn: dict[tuple[str, str], set[str]] = {}
        self.cancelled: list[tuple[str, str, str]] = []
        self.back_by: set[str] = set()
        self._green: dict[tuple[str, str], Standing] = {}
        self._kept: dict[tuple[str, str], tuple[str, float]] = {}
        self._taken: dict[tuple[str, str, str], str] = {}
        self._windows: list[tuple[tuple[str, str, Seen], ...]] = []

    # -- what a test says ---------------------------------------------------------------------------------------------

    def store(self, tenant: str, agent: str, revision: str) -> None:
        """A revision is stored."""
        self.stored.setdefault((tenant, agent), set()).add(revision)

    def apply(self, tenant: str, agent: str, revision: str | None) -> None:
        """Somebody makes a revision live directly, or takes the agent out of service."""
        if revision is not None:
            self.store(tenant, agent, revision)
        self._point((tenant, agent), revision, None)

    def roll_back(self, tenant: str, agent: str) -> None:
        """Somebody takes back the agent's green side."""
        side = self._green.pop((tenant, agent))
        assert side.green is not None and side.rollout is not None
        self._withdraw((tenant, agent), side.green, side.rollout)

    def load(self, tenant: str, agent: str, wanted: int, holding: int, problem: str | None = None) -> None:
        """Somebody looked where blue is loaded, and loaded green there."""
        key = (tenant, agent)
        self._green[key] = replace(self._green[key], wanted=wanted, holding=holding, problem=problem)

    def see(self, tenant: str, *seen: Seen) -> int:
        """A window ends with these calls; its place."""
        place = len(self._windows) + 1
        window = []
        for one in seen:
            side = self._green.get((tenant, one.agent))
            if side is not None and side.rollout is not None:
                window.append((tenant, side.rollout, replace(one, window=place)))
        self._windows.append(tuple(window))
        return place

    # -- Sides --------------------------------------------------------------------------------------------------------

    async def look(self, tenant: str, agents: Sequence[str]) -> Mapping[str, Standing]:
        """See `Sides`."""
        found: dict[str, Standing] = {}
        for agent in agents:
            key = (tenant, agent)
            blue, green = self.live.get(key), self._green.get(key)
            if blue is None and green is None:
                continue
            kept, until = self._kept.get(key, (None, 0.0))
            if until <= self._clock.wall():
                kept, until = None, 0.0
            standing = green or Standing(agent=agent, blue=blue)
            found[agent] = replace(standing, blue=blue, kept=kept, kept_until=until)
        return found

    async def set_green(self, tenant: str, greens: Sequence[Green], *, rollout: str, held: Lease) -> Mapping[str, str]:
        """See `Sides`."""
        self._check(held)
        refused: dict[str, str] = {}
        for one in greens:
            key = (tenant, one.agent)
            live, side = self.live.get(key), self._green.get(key)
            if live is not None and self.owned.get(key) != one.owner:
                refused[one.agent] = "it belongs to another owner"
            elif one.revision is not None and one.revision not in self.stored.get(key, ()):
                refused[one.agent] = "its revision isn't stored"
            elif live not in (one.before, one.revision):
                refused[one.agent] = "it was changed meanwhile"
            elif side is not None and (side.rollout, side.green) != (rollout, one.revision):
                refused[one.agent] = f"rollout {side.rollout} is at it"
            elif side is None and one.revision is not None and live != one.revision:
                if self._taken.get((*key, one.revision)) == rollout:
                    refused[one.agent] = "this revision was taken back"
                    continue
                self._green[key] = Standing(agent=one.agent, blue=live, green=one.revision, rollout=rollout)
        return refused

    async def set_weights(self, tenant: str, weights: Mapping[str, int], *, rollout: str, held: Lease) -> None:
        """See `Sides`."""
        self._check(held)
        for agent, weight in weights.items():
            if not 0 <= weight <= WHOLE:
                raise ValueError(f"{weight} is no weight in basis points")
            side = self._green.get((tenant, agent))
            if side is not None and side.rollout == rollout:
                self._green[tenant, agent] = replace(side, weight=weight)

    async def finish(
        self,
        tenant: str,
        *,
        green: Sequence[Green] = (),
        blue: Sequence[Green] = (),
        rollout: str,
        change: str | None = None,
        keep: float,
        by: str,
        held: Lease,
        now: bool = False,
        tolerate: int | None = None,
    ) -> Mapping[str, str]:
        """See `Sides`."""
        self._check(held)
        late = {one.agent: why for one in green if (why := self._refusal(tenant, one, rollout, wins=True)) is not None}
        moving = () if tolerate is not None and len(late) > tolerate else green
        for one in moving:
            key = (tenant, one.agent)
            live = self.live.get(key)
            if one.agent in late:
                continue
            if live != one.revision:
                self._make_live(key, one, one.revision, change)
                if live is not None and one.revision is not None:
                    self._kept[key] = (live, self._clock.wall() + keep)
            self._green.pop(key, None)
        for one in blue:
            key = (tenant, one.agent)
            if (why := self._refusal(tenant, one, rollout, wins=False)) is not None:
                late[one.agent] = why
                continue
            had_green, live = key in self._green, self.live.get(key)
            if live != one.before:
                self._make_live(key, one, one.before, change)
            self._green.pop(key, None)
            if one.revision is not None and (had_green or live != one.before):
                self._withdraw(key, one.revision, rollout)
                self.back_by.add(by)
                if now:
                    self.cancelled.append((*key, one.revision))
        return late

    async def observations(self, tenant: str, rollout: str, after: int, limit: int = 100) -> Observations:
        """See `Sides`."""
        through = min(len(self._windows), after + limit)
        rows = [row for window in self._windows[after:through] for row in window]
        seen = tuple(one for whose, of, one in rows if (whose, of) == (tenant, rollout))
        return Observations(seen=seen, through=through)

    async def observed(self) -> int:
        """See `Sides`."""
        return len(self._windows)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _point(self, key: tuple[str, str], revision: str | None, change: str | None) -> None:
        self._green.pop(key, None)
        self._kept.pop(key, None)
        if revision is None:
            self.live.pop(key, None)
            self.owned.pop(key, None)
        else:
            self.live[key] = revision
            self.withdrawn.get(key, set()).discard(revision)
            self._taken.pop((*key, revision), None)
        self.changes.append((*key, revision, change))

    def _refusal(self, tenant: str, one: Green, rollout: str, *, wins: bool) -> str | None:
        """Why an agent's sides can't end so."""
        key = (tenant, one.agent)
        to = one.revision if wins else one.before
        side, live = self._green.get(key), self.live.get(key)
        if side is not None and side.rollout != rollout:
            return f"rollout {side.rollout} is at it"
        if live not in (one.before, one.revision):
            return "it was changed meanwhile"
        if wins and side is None and to is not None and live != to:
            return "it was taken back meanwhile"
        if live is not None and live != to and self.owned.get(key) != one.owner:
            return "it belongs to another owner"
        if to is not None and to not in self.stored.get(key, ()):
            return "its revision isn't stored"
        return None

    def _make_live(self, key: tuple[str, str], one: Green, revision: str | None, change: str | None) -> None:
        self._point(key, revision, change)
        if revision is not None and one.owner is not None:
            self.owned[key] = one.owner

    def _withdraw(self, key: tuple[str, str], revision: str, rollout: str) -> None:
        self.withdrawn.setdefault(key, set()).add(revision)
        self._taken[*key, revision] = rollout

    def _check(self, held: Lease) -> None:
        current = self._leases.leases.get(held.name)
        if current is None or current.token != held.token:
            raise LeaseLost(f"the lease {held.name!r} is another's", next_step="nothing: the other one goes on")
