"""What carries agents that come from resources of a cluster to production: a change request, or a rollout.

A resource says what is to be live, and says so until it says something else. So whoever carries it asks first: is
something on its way with just this, or has it been refused? `Carried` is one agent of one change or rollout.
"""

from typing import Literal

from msgspec import Struct

from chimera.delivery.model import IN_FLIGHT, MOVING
from chimera.delivery.rollout.model import ENDED

Way = Literal["change", "rollout"]
NOBODY_WANTS = "no resource wants this any more"
"""The reason with which what carries agents is given up: that refuses nothing."""


class Carried(Struct, frozen=True, kw_only=True):
    """One agent that a change or a rollout carries, or carried.

    `owner` is the resource that brings it, `revision` what it becomes (None: it goes), `before` what was live then.
    `id`, `state`, `reason` and `at` are those of the change or rollout, `phase` the agent's in the rollout. `resource`
    is the Rollout that began it, and `attempt` that one's. `wanted` is what people want of it.
    """

    tenant: str
    agent: str
    owner: str
    revision: str | None
    before: str | None
    way: Way
    id: str
    state: str
    at: float
    reason: str = ""
    wanted: str = ""
    phase: str = ""
    resource: str | None = None
    attempt: int | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether it may still become live by this."""
        return self.state in IN_FLIGHT if self.way == "change" else self.state not in ENDED

    @property
    def is_moving(self) -> bool:
        """Whether production has some of it: then nothing takes its place before it is over."""
        return self.is_under_way and (self.way == "rollout" or self.state in MOVING)

    @property
    def is_refused(self) -> bool:
        """Whether it came to an end that people or the platform meant: it isn't tried again by itself."""
        if self.is_under_way or self.state == "superseded" or self.reason.endswith(NOBODY_WANTS):
            return False
        return self.state != "done" or self.phase in ("rolled-back", "skipped")
