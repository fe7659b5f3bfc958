"""Where rollouts are kept, and what is asked of definitions. Calls are moved by `chimera.delivery.sides`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.rollout.model import Member, Rollout, Summary, Wanted
from chimera.delivery.rollout.plan import Event
from chimera.kernel.leases import Lease


class RolloutStore(Protocol):
    """The database's side of rollouts. Each method is one transaction."""

    async def now(self) -> float:
        """Seconds since the epoch by the clock that all control planes share."""

    async def create(self, rollout: Rollout, members: Sequence[Member], *, held: Lease | None = None) -> Rollout:
        """Keep a new rollout with its members, and tell it.

        Of the same change and content, or the same key, it is the one that is there; so of the same resource, attempt
        and content, unless that is over: what was live once may be wanted again. Raises `RolloutConflict` where an
        agent is in another one that isn't over, and `LeaseLost` where whoever begins it does so under a lease that is
        another's by now.
        """

    async def active(self) -> Sequence[Rollout]:
        """All that aren't over, of all tenants, by age."""

    async def get(self, tenant: str, rollout: str) -> Summary:
        """One of them; raises `UnknownRollout`."""

    async def of_change(self, tenant: str, change: str, content: str) -> Summary | None:
        """The one of a change with this content, if it was begun."""

    async def of_key(self, tenant: str, key: str) -> Summary | None:
        """The one that was begun with this key, if there is one."""

    async def of_resources(self, resources: Sequence[tuple[str, str]]) -> Sequence[Summary]:
        """The newest of each of these resources (tenant and `namespace/name`) that began one."""

    async def counts(self) -> dict[str, int]:
        """How many of those that are kept are in each state, over all tenants."""

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Summary]:
        """A page, the newest first; `after` is the id of the last one seen."""

    async def members(self, tenant: str, rollout: str, after: int = -1, limit: int | None = None) -> Sequence[Member]:
        """Its members in the order of their waves, from the place after `after`."""

    async def save(
        self, rollout: Rollout, changed: Sequence[Member], *, told: Sequence[Event], lost: Sequence[Member], held: Lease
    ) -> None:
        """Keep what a pass decided, with what is to be told of it. What people want is left as it is.

        Raises `LeaseLost` where another process does this now, and `ChangedMeanwhile` where the pass would make all of
        it live and people want something else by now. Then nothing of it is kept.
        """

    async def ask(
        self, tenant: str, rollout: str, wanted: Wanted, *, by: str, reason: str, held: Lease | None = None
    ) -> Summary:
        """Say what people want of it; raises `UnknownRollout`, and `RolloutState` where it is too late for that.

        Raises `LeaseLost` where `held` is given and another's by now.
        """


class Definitions(Protocol):
    """What is known of the agents of a rollout."""

    async def definitions(self, tenant: str, digests: Sequence[str]) -> Mapping[str, CanonicalDefinition]:
        """Revisions by digest; those that aren't there are left out."""

    async def calls(self, tenant: str, agents: Sequence[str]) -> Mapping[str, int]:
        """About how many calls of models these agents had in the last days; those without are left out."""
