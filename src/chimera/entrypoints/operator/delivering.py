"""Agents that may not go live at once: into change requests and rollouts, and what is told of them meanwhile.

What to do is `carry`'s to say; here it gets what it looks at, and what it decides is done, once the Agents that go
together are all there (`gathering`).

A change and a rollout are each begun by one transaction of the database, and found there by the next look, whoever was
killed in between. While something is under way, two statements in some seconds ask whether anything of it has changed.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from chimera.adapters.storage.carrying import StoredCarriers
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.resources.carrying import Carriage, Governor, Ride, Told, Want, carries, carry
from chimera.adapters.substrates.knative.resources.kinds import Key
from chimera.adapters.substrates.knative.resources.plan import Phase, Place, owner_key
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.agents.catalogue import OwnedAgent, StagedItem
from chimera.delivery.carrying import NOBODY_WANTS, Carried
from chimera.delivery.rollout.model import Item
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Asker, Changes, Draft
from chimera.delivery.written import may_pass
from chimera.entrypoints.operator.gathering import Gathering, Group
from chimera.entrypoints.operator.loop import ACTOR
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

WATCH = 5.0
"""Seconds between two looks at what carries agents."""
RETRY = 30.0
"""Seconds until a change or a rollout that was refused as a whole is tried again."""
CHUNK = 1_000
_ASKER = Asker(actor=ACTOR, roles=frozenset())

Stage = Callable[[Sequence[Key]], Awaitable[list[StagedItem]]]
"""The compiled definitions of Agents, as they are now."""
Govern = Callable[[Key], Governor | None]
"""The Rollout that governs an Agent, if one does."""
_Just = tuple[Place, str, str | None, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """An Agent that was compiled and not applied: the digest of its definition, and the revision that it made."""

    digest: str
    tenant: str
    revision: str


class Deliveries:
    """What carries Agents, and what of them waits for that."""

    def __init__(
        self,
        catalogue: Catalogue,
        carriers: StoredCarriers,
        changes: Changes,
        rollouts: RolloutService,
        settings: OperatorSettings,
    ) -> None:
        """Nothing is held yet."""
        self._catalogue = catalogue
        self._carriers = carriers
        self._changes = changes
        self._rollouts = rollouts
        self._settings = settings
        self.held: dict[Key, Held] = {}
        self.leaving: dict[Place, OwnedAgent] = {}
        self.told: Mapping[Place, Told] = {}
        self._under_way: list[Carried] | None = None
        self._marks: frozenset[tuple[str, ...]] = frozenset()
        self._refused: dict[_Just, Carried | None] = {}
        self._gathering = Gathering(settings.gather)
        self._failed: dict[Group, tuple[float, str]] = {}
        self._lease: Lease | None = None

    def begin(self) -> None:
        """Forget all; what is under way the database says."""
        self.held, self.leaving, self.told = {}, {}, {}
        self._under_way, self._marks, self._refused = None, frozenset(), {}
        self._gathering, self._failed = Gathering(self._settings.gather), {}

    @property
    def digests(self) -> dict[Key, str]:
        """The digests of what is held."""
        return {key: one.digest for key, one in self.held.items()}

    def problem(self, tenant: str, resource: str) -> str:
        """Why a Rollout's agents could not be rolled out a moment ago."""
        return self._failed.get((tenant, resource), (0.0, ""))[1]

    async def free(self, wants: Sequence[Want], live: Mapping[Place, OwnedAgent]) -> set[Place]:
        """Those of these that may be applied, or deleted, at once."""
        decided = await self._decide(wants, live)
        return {want.place for want in decided.direct}

    async def settle(
        self, now: float, live: Mapping[Place, OwnedAgent], govern: Govern, stage: Stage, lease: Lease
    ) -> float | None:
        """Do what is due of all that is held; when to look again (None: when something changes)."""
        self._lease = lease
        if not self.held and not self.leaving and self._under_way == []:
            self.told, self._refused = {}, {}
            return None
        wants = self._wants(live, govern)
        decided = await self._decide(wants, live)
        self._refused = {just: self._refused[just] for just in map(_just, wants)}
        groups = {**{(tenant, ""): some for tenant, some in decided.changes.items()}, **decided.rollouts}
        self._failed = {key: one for key, one in self._failed.items() if one[0] > now}
        for want in decided.direct:
            self.held.pop(want.key, None)
            self.leaving.pop(want.place, None)
        for ride in decided.give_up:
            await self._give_up(ride)
        due = self._gathering.due(groups, now)
        begun = [await self._begin(key, groups[key], now, stage) for key, at in due.items() if at <= now]
        self.told = {**decided.told, **self._failures(groups)}
        if any(begun) or decided.direct:
            return now
        again = [at for at in due.values() if at > now]
        if self.held or self.leaving or self._under_way:
            again.append(now + WATCH)
        return min(again, default=None)

    # -- what is looked at ---------------------------------------------------------------------------------------------

    def _wants(self, live: Mapping[Place, OwnedAgent], govern: Govern) -> list[Want]:
        found = []
        for key, one in self.held.items():
            row = live.get((one.tenant, key[1]))
            before = None if row is None else row.revision
            found.append(Want(key=key, tenant=one.tenant, revision=one.revision, before=before, governor=govern(key)))
        return found + [departure(row) for row in self.leaving.values()]

    async def _decide(self, wants: Sequence[Want], live: Mapping[Place, OwnedAgent]) -> Carriage:
        under_way = await self._look()
        tenants = {want.tenant for want in wants} | {one.tenant for one in under_way}
        direct = {tenant: (await self._changes.policy(tenant)).policy.direct for tenant in sorted(tenants)}
        refused = await self._ended(wants)
        revisions = {place: row.revision for place, row in live.items()}
        return carry(wants, under_way, refused, revisions, direct)

    async def _look(self) -> list[Carried]:
        marks = await self._carriers.marks()
        if self._under_way is None or marks != self._marks:
            were = {mark[:2] for mark in self._marks}
            self._under_way, self._marks = await self._carriers.under_way(), marks
            if were - {(one.tenant, one.id) for one in self._under_way}:
                self._refused = {}  # something of it has ended
        return self._under_way

    async def _ended(self, wants: Sequence[Want]) -> dict[Place, Carried]:
        """The newest that ended of what carried just this, where it was refused; asked once for each want."""
        unknown: dict[str, list[Want]] = {}
        for want in wants:
            if _just(want) not in self._refused:
                unknown.setdefault(want.tenant, []).append(want)
        for tenant, asked in unknown.items():
            ended = await self._carriers.ended(tenant, [want.key[1] for want in asked])
            by_agent: dict[str, list[Carried]] = {}
            for one in ended:
                by_agent.setdefault(one.agent, []).append(one)
            for want in asked:
                mine = (one for one in by_agent.get(want.key[1], ()) if carries(one, want))
                self._refused[_just(want)] = next(mine, None)
        found = {want.place: self._refused[_just(want)] for want in wants}
        return {place: one for place, one in found.items() if one is not None and one.is_refused}

    # -- what is done --------------------------------------------------------------------------------------------------

    async def _begin(self, key: Group, wants: Sequence[Want], now: float, stage: Stage) -> bool:
        """Open a group's change or begin its rollout; whether it came to that. What is refused as a whole waits."""
        if key in self._failed:
            return False
        for want in wants:
            self._refused.pop(_just(want), None)  # what is begun may have ended before the next look
        self._under_way = None  # and it is looked for though nobody wants it by then, and nothing else is held
        try:
            await (self._start if key[1] else self._open)(key[0], wants, stage)
        except ProblemError as error:
            if may_pass(error):
                raise
            said = f"{error.detail}. Next: {error.next_step}." if error.next_step else error.detail
            self._failed[key] = (now + RETRY, said)
            log.warning("agents could not be delivered", extra={"tenant": key[0], "rollout": key[1], "error": said})
            return False
        self._gathering.begun(key)
        return True

    def _failures(self, groups: Mapping[Group, Sequence[Want]]) -> dict[Place, Told]:
        return {
            want.place: Told(phase=Phase.HELD, message=self._failed[key][1])
            for key in groups.keys() & self._failed.keys()
            for want in groups[key]
        }

    async def _open(self, tenant: str, wants: Sequence[Want], stage: Stage) -> None:
        batch, wants = await self._stage(tenant, wants, stage)
        if not wants:
            return
        draft = Draft(
            title=_title(wants),
            description="What resources of the cluster say. It gives way to a newer one when they say something else.",
            batch=batch,
            remove=tuple(want.key[1] for want in wants if want.revision is None),
            supersede=True,
            owners={want.key[1]: want.owner for want in wants},
        )
        made = await self._changes.open(tenant, _ASKER, draft, held=self._lease)
        log.info("a change was opened", extra={"tenant": tenant, "change": made.id, "agents": len(made.items)})

    async def _start(self, tenant: str, wants: Sequence[Want], stage: Stage) -> None:
        governor = wants[0].governor
        assert governor is not None, "the rule rolls out what a Rollout governs"
        _, wants = await self._stage(tenant, wants, stage)
        if not wants:
            return
        items = [
            Item(agent=want.key[1], revision=want.revision, before=want.before, owner=want.owner) for want in wants
        ]
        rows = sorted((one.agent, one.revision or "", one.before or "") for one in items)
        made = await self._rollouts.start(
            tenant,
            items,
            title=_title(wants),
            by=ACTOR,
            resource=governor.resource,
            attempt=governor.attempt,
            content="sha256:" + hashlib.sha256(msgspec.json.encode(rows)).hexdigest(),
            policy=governor.policy,
            held=self._lease,
        )
        extra = {"tenant": tenant, "rollout": made.rollout.id, "resource": governor.resource, "agents": len(items)}
        log.info("a rollout was begun", extra=extra)

    async def _stage(self, tenant: str, wants: Sequence[Want], stage: Stage) -> tuple[str | None, list[Want]]:
        """A batch with these definitions, which isn't committed (None where there are none), and what goes with it.

        That is less than was wanted where an Agent was changed meanwhile, which takes its time with thousands.
        """
        keys = [want.key for want in wants if want.revision is not None]
        if not keys:
            return None, list(wants)
        batch = await self._catalogue.open_batch(tenant)
        staged: set[str | None] = {None}
        for start in range(0, len(keys), CHUNK):
            items = await stage(keys[start : start + CHUNK])
            numbered = [msgspec.structs.replace(one, position=start + place) for place, one in enumerate(items)]
            await self._catalogue.stage(tenant, batch, numbered)
            staged.update(one.compiled.digest for one in items if one.compiled is not None)
        return batch, [want for want in wants if want.revision in staged]

    async def _give_up(self, ride: Ride) -> None:
        reason = NOBODY_WANTS
        try:
            if ride.way == "change":
                await self._changes.abort(ride.tenant, _ASKER, ride.id, reason, held=self._lease)
            else:
                await self._rollouts.ask(ride.tenant, ride.id, "abort", by=ACTOR, reason=reason, held=self._lease)
        except ProblemError as error:
            if error.code not in ("rollout-state", "wrong-state", "unknown-change", "unknown-rollout"):
                raise
            return  # it came to its end meanwhile
        log.info("given up", extra={"tenant": ride.tenant, ride.way: ride.id, "reason": reason})


def departure(row: OwnedAgent) -> Want:
    """That a resource's agent is to go, as the resource did."""
    return Want(key=owner_key(row), tenant=row.tenant, revision=None, before=row.revision)


def _just(want: Want) -> _Just:
    return want.place, want.owner, want.revision, want.before


def _title(wants: Sequence[Want]) -> str:
    first = wants[0].owner
    return f"Agent {first}" + (f" and {len(wants) - 1} more" if len(wants) > 1 else "")
