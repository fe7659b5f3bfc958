"""The store of rollouts in memory: the shipped fake that passes the same conformance suite as the database's."""

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from chimera.adapters.storage.leases import LeaseLost
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.rollout.errors import RolloutConflict, RolloutState, UnknownRollout
from chimera.delivery.rollout.model import ENDED, OVER, Member, Rollout, Summary, Wanted, counted
from chimera.delivery.rollout.plan import Event, check_wanted
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera.testing.leases import MemoryLeases


class MemoryRolloutStore:
    """A `RolloutStore`, and `Definitions` of revisions that a test puts into `revisions`.

    `told` notes what was recorded: rollout and event.
    """

    def __init__(self, clock: Clock, leases: MemoryLeases) -> None:
        """Start empty; `leases` say who may write."""
        self._clock = clock
        self._leases = leases
        self._rollouts: dict[str, Rollout] = {}
        self._members: dict[str, dict[str, Member]] = {}
        self.revisions: dict[str, CanonicalDefinition] = {}
        self.busy: dict[str, int] = {}
        self.told: list[tuple[str, str]] = []

    async def now(self) -> float:
        """See `RolloutStore`."""
        return self._clock.wall()

    async def create(self, rollout: Rollout, members: Sequence[Member], *, held: Lease | None = None) -> Rollout:
        """See `RolloutStore`."""
        if held is not None:
            self._check(held)
        for one in self._rollouts.values():
            if rollout.change is not None and (one.tenant, one.change, one.content) == (
                rollout.tenant,
                rollout.change,
                rollout.content,
            ):
                return one
            if rollout.key is not None and (one.tenant, one.key) == (rollout.tenant, rollout.key):
                return one
            same = (one.tenant, one.resource, one.attempt, one.content) == (
                *(rollout.tenant, rollout.resource),
                *(rollout.attempt, rollout.content),
            )
            if rollout.resource is not None and same and one.state not in ENDED:
                return one
        names = {one.agent for one in members}
        for one in self._rollouts.values():
            taken = {member.agent for member in self._members[one.id].values() if member.phase not in OVER}
            if one.tenant == rollout.tenant and one.state not in ENDED and taken & names:
                raise RolloutConflict(
                    f"rollout {one.id} has {min(taken & names)!r}", next_step="wait for it, or abort it"
                )
        self._rollouts[rollout.id] = rollout
        self._members[rollout.id] = {one.agent: one for one in members}
        self.told.append((rollout.id, "started"))
        return rollout

    async def active(self) -> Sequence[Rollout]:
        """See `RolloutStore`."""
        return [one for one in self._rollouts.values() if one.state not in ENDED]

    async def get(self, tenant: str, rollout: str) -> Summary:
        """See `RolloutStore`."""
        found = self._rollouts.get(rollout)
        if found is None or found.tenant != tenant:
            raise UnknownRollout(f"there is no rollout {rollout!r}", next_step="list them with `chimera rollout list`")
        return counted(found, list(self._members[rollout].values()))

    async def of_change(self, tenant: str, change: str, content: str) -> Summary | None:
        """See `RolloutStore`."""
        for one in self._rollouts.values():
            if (one.tenant, one.change, one.content) == (tenant, change, content):
                return await self.get(tenant, one.id)
        return None

    async def of_key(self, tenant: str, key: str) -> Summary | None:
        """See `RolloutStore`."""
        for one in self._rollouts.values():
            if (one.tenant, one.key) == (tenant, key):
                return await self.get(tenant, one.id)
        return None

    async def of_resources(self, resources: Sequence[tuple[str, str]]) -> Sequence[Summary]:
        """See `RolloutStore`."""
        newest: dict[tuple[str, str | None], str] = {}
        for one in self._rollouts.values():
            key = (one.tenant, one.resource)
            if key in resources:
                newest[key] = max(newest.get(key, ""), one.id)
        return [await self.get(tenant, name) for (tenant, _), name in newest.items()]

    async def counts(self) -> dict[str, int]:
        """See `RolloutStore`."""
        return dict(Counter(one.state for one in self._rollouts.values()))

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Summary]:
        """See `RolloutStore`."""
        names = sorted((one.id for one in self._rollouts.values() if one.tenant == tenant), reverse=True)
        page = [name for name in names if not after or name < after][:limit]
        return [await self.get(tenant, name) for name in page]

    async def members(self, tenant: str, rollout: str, after: int = -1, limit: int | None = None) -> Sequence[Member]:
        """See `RolloutStore`."""
        found = list(self._members.get(rollout, {}).values())[after + 1 :]
        return found if limit is None else found[:limit]

    async def save(
        self, rollout: Rollout, changed: Sequence[Member], *, told: Sequence[Event], lost: Sequence[Member], held: Lease
    ) -> None:
        """See `RolloutStore`."""
        self._check(held)
        stored = self._rollouts[rollout.id]
        check_wanted(rollout, stored)
        self._rollouts[rollout.id] = replace(
            rollout,
            wanted=stored.wanted,
            asked_by=stored.asked_by,
            asked=stored.asked,
            updated=self._clock.wall(),
            version=stored.version + 1,
        )
        self._members[rollout.id].update({one.agent: one for one in changed})
        self.told += [(rollout.id, event) for event in told]
        if lost:
            self.told.append((rollout.id, "lost"))

    async def ask(
        self, tenant: str, rollout: str, wanted: Wanted, *, by: str, reason: str, held: Lease | None = None
    ) -> Summary:
        """See `RolloutStore`."""
        if held is not None:
            self._check(held)
        found = (await self.get(tenant, rollout)).rollout
        if found.state not in ("running", "paused"):
            raise RolloutState(f"rollout {rollout} is {found.state}", next_step="see `chimera rollout show`")
        if found.wanted == "abort" and wanted != "abort":
            raise RolloutState(f"rollout {rollout} is being aborted", next_step="wait for its end")
        self._rollouts[rollout] = replace(
            found, wanted=wanted, asked_by=by, asked=reason, updated=self._clock.wall(), version=found.version + 1
        )
        return await self.get(tenant, rollout)

    def _check(self, held: Lease) -> None:
        current = self._leases.leases.get(held.name)
        if current is None or current.token != held.token:
            raise LeaseLost(f"the lease {held.name!r} is another's", next_step="nothing: the other one goes on")

    # -- Definitions ---------------------------------------------------------------------------------------------------

    async def definitions(self, tenant: str, digests: Sequence[str]) -> Mapping[str, CanonicalDefinition]:
        """See `Definitions`."""
        return {digest: self.revisions[digest] for digest in digests if digest in self.revisions}

    async def calls(self, tenant: str, agents: Sequence[str]) -> Mapping[str, int]:
        """See `Definitions`."""
        return {agent: self.busy[agent] for agent in agents if agent in self.busy}
