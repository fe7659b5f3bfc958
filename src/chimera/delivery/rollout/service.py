"""The loop that rolls changes out, in one control plane at a time, under a lease.

A pass over a rollout reads its members and how their sides stand, adds what was seen since, decides (`plan`), writes
that in one transaction that checks the lease's token, and only then acts, by actions that check it too. So it may be
killed anywhere: what was written and not done is seen by the next pass as sides that don't stand as they should.

While no control plane is there, gateways go on with the weights that they have and note what they see. The next leader
reads that from the place on where the last one was, and decides as he would have.

Cost of a pass: a few statements for each rollout that isn't over, however many agents it has; about 10 µs for each of
them, and 0.03 to 0.2 ms for one that had calls on both sides since.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from chimera.delivery.rollout.beginning import members_of
from chimera.delivery.rollout.errors import NothingToRollOut
from chimera.delivery.rollout.model import ENDED, LEADER, MOVED, Item, Member, Policy, Rollout, Summary, Wanted
from chimera.delivery.rollout.plan import Actions, absorb, plan, refuse, spare
from chimera.delivery.rollout.ports import Definitions, RolloutStore
from chimera.delivery.sides.ports import Sides
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "rollouts"
TICK = 1.0
MOST_TURNS = 100
"""Readings of observations in one pass; what is left is read by the next."""


class RolloutService:
    """Begins rollouts, says how they are, and brings them on."""

    def __init__(
        self,
        store: RolloutStore,
        sides: Sides,
        definitions: Definitions,
        policy: Policy,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Roll out by `policy` where nothing else is said. `changed` is called after agents changed (a hint)."""
        self._store = store
        self._sides = sides
        self._definitions = definitions
        self.policy = policy
        self._changed = changed
        self._poked = asyncio.Event()

    # -- for people and for the pipeline ---------------------------------------------------------------------------

    async def start(
        self,
        tenant: str,
        items: Sequence[Item],
        *,
        title: str,
        by: str,
        change: str | None = None,
        content: str = "",
        key: str | None = None,
        resource: str | None = None,
        attempt: int | None = None,
        policy: Policy | None = None,
        held: Lease | None = None,
    ) -> Summary:
        """Begin a rollout; of a change or key that has one, or a resource's content under way, it is meant.

        Raises `NothingToRollOut`, `RolloutConflict`, and `LeaseLost` where `held` is given and another's by now.
        """
        if change is not None and (found := await self._store.of_change(tenant, change, content)) is not None:
            return found
        wanted = [one for one in items if one.revision != one.before]
        if not wanted:
            raise NothingToRollOut("all of it is live as it is", next_step="change a definition first")
        policy = policy or self.policy
        digests = sorted({digest for one in wanted for digest in (one.revision, one.before) if digest is not None})
        definitions = await self._definitions.definitions(tenant, digests)
        if missing := [one.agent for one in wanted if one.revision is not None and one.revision not in definitions]:
            raise NothingToRollOut(
                f"the revision of {missing[0]!r} is not stored any more", next_step="send the definitions again"
            )
        calls = await self._definitions.calls(tenant, [one.agent for one in wanted])
        now = await self._store.now()
        members = await asyncio.to_thread(members_of, wanted, definitions, calls, policy, now)
        made = Rollout(
            id=new_id("rollout"),
            tenant=tenant,
            title=title,
            by=by,
            policy=policy,
            waves=max(one.wave for one in members) + 1,
            agents=len(members),
            created=now,
            updated=now,
            change=change,
            content=content,
            key=key,
            resource=resource,
            attempt=attempt,
            through=await self._sides.observed(),
        )
        kept = await self._store.create(made, members, held=held)
        self._poked.set()
        return await self._store.get(tenant, kept.id)

    async def get(self, tenant: str, rollout: str) -> Summary:
        """How one is; raises `UnknownRollout`."""
        return await self._store.get(tenant, rollout)

    async def of_change(self, tenant: str, change: str, content: str) -> Summary | None:
        """How the one of a change is, if it was begun."""
        return await self._store.of_change(tenant, change, content)

    async def of_key(self, tenant: str, key: str) -> Summary | None:
        """How the one is that was begun with a key, if there is one."""
        return await self._store.of_key(tenant, key)

    async def of_resources(self, resources: Sequence[tuple[str, str]]) -> Sequence[Summary]:
        """The newest of each of these resources (tenant and `namespace/name`) that began one."""
        return await self._store.of_resources(resources)

    async def counts(self) -> dict[str, int]:
        """How many of those that are kept are in each state, over all tenants."""
        return await self._store.counts()

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Summary]:
        """A page, the newest first."""
        return await self._store.page(tenant, after, limit)

    async def members(self, tenant: str, rollout: str, after: int, limit: int) -> Sequence[Member]:
        """Some of its members, in the order in which they are begun."""
        return await self._store.members(tenant, rollout, after, limit)

    async def ask(
        self, tenant: str, rollout: str, wanted: Wanted, *, by: str, reason: str = "", held: Lease | None = None
    ) -> Summary:
        """Have it rest, go on or end; the next pass does so. Raises `LeaseLost` where `held` is another's by now."""
        found = await self._store.ask(tenant, rollout, wanted, by=by, reason=reason, held=held)
        self._poked.set()
        return found

    # -- the loop --------------------------------------------------------------------------------------------------

    async def while_held(self, leases: Leases, owner: str, life: float) -> None:
        """Work whenever this owner holds the lease; until cancelled."""
        await work_while_held(leases, LEASE, owner, life, self.run)

    async def run(self, held: Lease) -> None:
        """Work until cancelled."""
        while True:
            self._poked.clear()
            busy = await self.round(held)
            # What was asked here begins at once; what was asked of another control plane, with the next tick.
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if busy else TICK):
                    await self._poked.wait()

    async def round(self, held: Lease) -> bool:
        """One pass over each rollout that isn't over; whether any has gone on. One that fails stops no other."""
        try:
            active = await self._store.active()
        except ProblemError as error:
            log.warning("rollouts could not be looked for", extra={"problem": error.detail})
            return False
        busy = False
        for one in active:
            try:
                busy = await self.step(one, held) or busy
            except ProblemError as error:
                extra = {"rollout": one.id, "tenant": one.tenant, "problem": error.detail}
                log.warning("a pass over a rollout failed, and is made again", extra=extra)
                if error.code == "lease-lost":
                    raise
        return busy

    async def step(self, rollout: Rollout, held: Lease) -> bool:
        """One pass over a rollout; whether a member or the rollout has come into another phase or state."""
        stored = await self._store.members(rollout.tenant, rollout.id)
        moved = [one.agent for one in stored if one.phase in MOVED or one.phase == "rolling-back"]
        standing = await self._sides.look(rollout.tenant, moved)
        now = await self._store.now()
        members, through = await self._observed(rollout, stored)
        step = plan(replace(rollout, through=through), members, standing, now)
        changed = [new for old, new in zip(stored, step.members, strict=True) if new is not old and new != old]
        gone_on = step.rollout.state != rollout.state or any(
            new.phase != old.phase for old, new in zip(stored, step.members, strict=True)
        )
        if changed or step.rollout != replace(rollout, through=through) or through != rollout.through:
            await self._store.save(step.rollout, changed, told=step.told, lost=step.lost, held=held)
        if step.actions.any:
            await self._act(step.rollout, step.members, step.actions, held)
        return gone_on and step.rollout.state not in ENDED

    async def _observed(self, rollout: Rollout, members: Sequence[Member]) -> tuple[Sequence[Member], int]:
        through = rollout.through
        for _ in range(MOST_TURNS):
            found = await self._sides.observations(rollout.tenant, rollout.id, through)
            if found.seen:
                members = absorb(members, found.seen, rollout)
            if found.through == through:
                break
            through = found.through
        return members, through

    async def _act(self, rollout: Rollout, members: Sequence[Member], actions: Actions, held: Lease) -> None:
        """Bring sides to how they should stand: first what takes calls away from what is bad."""
        refused: dict[str, str] = {}
        tenant, policy = rollout.tenant, rollout.policy
        if actions.keep_blue:
            # Who can't be taken back was changed by somebody else meanwhile, and `look` says so.
            await self._sides.finish(
                tenant,
                blue=actions.keep_blue,
                rollout=rollout.id,
                change=rollout.change,
                keep=policy.hold_seconds,
                by=rollout.asked_by if rollout.wanted == "abort" else LEADER,
                held=held,
            )
        if actions.weights:
            await self._sides.set_weights(tenant, actions.weights, rollout=rollout.id, held=held)
        if actions.green:
            refused.update(await self._sides.set_green(tenant, actions.green, rollout=rollout.id, held=held))
        if actions.keep_green:
            refused.update(
                await self._sides.finish(
                    tenant,
                    green=actions.keep_green,
                    rollout=rollout.id,
                    change=rollout.change,
                    keep=policy.hold_seconds,
                    by=rollout.by,
                    held=held,
                    tolerate=spare(rollout, members),
                )
            )
        self._changed()
        if refused:
            lost = refuse(members, refused, await self._store.now())
            await self._store.save(rollout, lost, told=(), lost=lost, held=held)
