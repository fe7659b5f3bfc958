"""Whose tasks are taken next: a pure rule over what is queued, how much room there is, and whose turn it was.

Tasks queue in lanes, one for each tenant, priority and agent that has any queued. A look at the queue sees the lanes of
some tenants in turn (`Survey`); from those `choose` takes so:

- tenants take turns, one task each, for as long as there is room: however many tasks one has, it gets no more turns;
- of a tenant the highest priority that can go comes first: what it calls urgent is the tenant's own affair;
- within that priority its agents take turns, and the turn goes on from look to look where it stopped;
- an agent that has as many calls as its tasks may take, or that rests, is passed over and holds nobody up.

So a flood of one agent's tasks costs another's one turn, and a flood of a tenant's costs other tenants one turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from chimera.gateway.tasks.model import agent_of

TENANTS, LANES, TOP = 32, 256, 32
"""Of one look: the most tenants, the most lanes of each behind its turn, and the most from its top."""

Room = Callable[[str, str], int]
"""How many more tasks of a tenant's agent may be taken now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """Take up to `count` tasks from the front of a lane."""

    tenant: str
    lane: str
    count: int


@dataclass(kw_only=True, slots=True)
class Turns:
    """Whose turn it was last: the tenant, and the lane of each tenant."""

    tenant: str = ""
    lanes: dict[str, str] = field(default_factory=dict)

    def forget(self, tenants: Sequence[str]) -> None:
        """Keep nothing of tenants that have nothing queued, so that this stays as small as the queue."""
        kept = set(tenants)
        for tenant in [tenant for tenant in self.lanes if tenant not in kept]:
            del self.lanes[tenant]


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a look saw: for each tenant, in turn, its lanes in any order."""

    lanes: Mapping[str, Sequence[str]]


def choose(survey: Survey, *, free: int, room: Room, turns: Turns) -> tuple[list[Want], Turns]:
    """What to take with room for `free` tasks, and whose turn it was after that.

    Costs a step for each lane seen and one for each task taken.
    """
    waiting = {
        tenant: _Lanes(tenant, lanes, turns.lanes.get(tenant, ""), room) for tenant, lanes in survey.lanes.items()
    }
    taken: dict[tuple[str, str], int] = {}
    last_tenant, last = turns.tenant, dict(turns.lanes)
    while free > 0 and waiting:
        for tenant in list(waiting):
            lane = waiting[tenant].next()
            if lane is None:
                del waiting[tenant]
                continue
            taken[tenant, lane] = taken.get((tenant, lane), 0) + 1
            last_tenant, last[tenant] = tenant, lane
            free -= 1
            if free == 0:
                break
    wants = [Want(tenant=tenant, lane=lane, count=count) for (tenant, lane), count in taken.items()]
    return wants, Turns(tenant=last_tenant, lanes=last)


class _Lanes:
    """A tenant's lanes, in their turn."""

    def __init__(self, tenant: str, lanes: Sequence[str], last: str, room: Room) -> None:
        self._room: dict[str, int] = {}
        groups: dict[str, list[str]] = {}
        for lane in sorted(set(lanes)):
            agent = agent_of(lane)
            if agent not in self._room:
                self._room[agent] = room(tenant, agent)
            groups.setdefault(lane[:3], []).append(lane)
        # Of one priority those come first that are behind the lane whose turn it was.
        self._groups = [
            [lane for lane in group if lane > last] + [lane for lane in group if lane <= last]
            for _, group in sorted(groups.items())
        ]
        self._at = 0

    def next(self) -> str | None:
        """The lane whose turn it is; None where no agent has room."""
        while self._groups:
            group = self._groups[0]
            while group:
                self._at %= len(group)
                lane = group[self._at]
                agent = agent_of(lane)
                if self._room[agent] > 0:
                    self._room[agent] -= 1
                    self._at += 1
                    return lane
                del group[self._at]
            del self._groups[0]
            self._at = 0
        return None
