"""The loop over Rollouts: what each asks of the rollout that it began, and its status.

Rollouts are begun with their Agents' definitions, by the loop over Agents (`delivering`). Here one statement reads the
newest rollout of each resource, when something changed and, while one is under way, every other second. Numbers alone
are written every ten seconds at most.
"""

import logging
from collections.abc import Mapping

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.resources.claims import Claim
from chimera.adapters.substrates.knative.resources.kinds import ROLLOUTS, Key, Rollout
from chimera.adapters.substrates.knative.resources.rollouts import (
    Seen,
    asked_of,
    rollout_status,
    without_numbers,
)
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.resources.status import document
from chimera.delivery.rollout.model import ENDED, Summary, Wanted
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Changes
from chimera.entrypoints.operator.claiming import Claims
from chimera.entrypoints.operator.governing import Group, Rollouts
from chimera.entrypoints.operator.loop import ACTOR, Loop, moment_of
from chimera.entrypoints.operator.writing import StatusWriter
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

WATCH = 2.0
POLICIES = 10.0
"""Seconds between two looks while nothing is under way: a tenant's policy may be another."""
NUMBERS = 10.0
_NOTHING = Group()


class RolloutLoop(Loop):
    """Rollouts of all namespaces."""

    kind = "rollouts"

    def __init__(
        self,
        api: Kubernetes,
        catalogue: Catalogue,
        clock: Clock,
        settings: OperatorSettings,
        claims: Claims,
        rollouts: Rollouts,
        service: RolloutService,
        changes: Changes,
    ) -> None:
        """Nothing is followed yet."""
        super().__init__(catalogue, clock, settings)
        self._claims = claims
        self._rollouts = rollouts
        self._service = service
        self._changes = changes
        self._numbers: dict[Key, float] = {}
        self.phases: dict[str, int] = {}
        rollouts.rollouts.on_change(self.poke)
        rollouts.on_count(self.poke)
        claims.on_change(self.poke)
        self.writer = StatusWriter(api, ROLLOUTS, rollouts.rollouts, clock, settings.statuses_per_second)

    async def begin(self) -> None:
        """See `Loop`."""
        await self._claims.known()
        await self._rollouts.rollouts.synced.wait()
        self._numbers = {}

    async def follow(self) -> None:
        """What changed in the catalogue is looked at with the rest."""

    async def look(self, held: Lease) -> float | None:
        """See `Loop`."""
        now, moment = self.clock.monotonic(), moment_of(self.clock)
        ours = {
            key: one
            for key, one in self._rollouts.rollouts.objects.items()
            if self._claims.of(key[0]) is not Claim.THEIRS and one.metadata.deletion_timestamp is None
        }
        self.writer.keep(ours)
        self._numbers = {key: at for key, at in self._numbers.items() if key in ours}
        groups = self._rollouts.groups
        if not ours or groups is None:
            self.phases = {}
            return None  # the loop over Agents says when it has counted them
        newest = await self._newest(ours, held)
        direct = await self._direct(ours)
        counts: dict[str, int] = {}
        again = [now + (WATCH if any(one.rollout.state not in ENDED for one in newest.values()) else POLICIES)]
        found = []
        for key, one in ours.items():
            tenant = self.settings.tenant_of(key[0])
            seen = self._seen(key, tenant, newest.get(key), direct, groups)
            status = rollout_status(seen, one.spec.state, one.metadata.generation, one.status, tenant, moment)
            counts[status.phase] = counts.get(status.phase, 0) + 1
            if status == one.status or not self.writer.may(key, now):
                continue
            due = self._numbers.get(key, float("-inf")) + NUMBERS
            if now < due and without_numbers(status) == without_numbers(one.status):
                again.append(due)
                continue
            self._numbers[key] = now
            found.append((key, document(ROLLOUTS, one.metadata, status)))
        self.phases = counts
        await self.writer.write(found)
        if (later := self.writer.look_again()) is not None:
            again.append(later)
        return min(again)

    async def _newest(self, ours: dict[Key, Rollout], held: Lease) -> dict[Key, Summary]:
        """The newest rollout of each, asked to be as its resource wants it."""
        tenants = {key: tenant for key in ours if (tenant := self.settings.tenant_of(key[0])) is not None}
        places = {(tenant, "/".join(key)): key for key, tenant in tenants.items()}
        found = {}
        for one in await self._service.of_resources(list(places)):
            key = places[one.rollout.tenant, one.rollout.resource or ""]
            ours_alone = self._claims.of(key[0]) is Claim.OURS
            wanted = asked_of(ours[key].spec.state, one, ACTOR) if ours_alone else None
            found[key] = one if wanted is None else await self._ask(one, wanted, key, held)
        return found

    async def _ask(self, one: Summary, wanted: Wanted, key: Key, held: Lease) -> Summary:
        reason = f"spec.state of the Rollout {'/'.join(key)}"
        tenant, name = one.rollout.tenant, one.rollout.id
        try:
            return await self._service.ask(tenant, name, wanted, by=ACTOR, reason=reason, held=held)
        except ProblemError as error:
            if error.code != "rollout-state":
                raise
            return await self._service.get(tenant, name)  # it came too late

    async def _direct(self, ours: dict[Key, Rollout]) -> dict[str, bool]:
        tenants = {tenant for key in ours if (tenant := self.settings.tenant_of(key[0])) is not None}
        return {tenant: (await self._changes.policy(tenant)).policy.direct for tenant in sorted(tenants)}

    def _seen(
        self,
        key: Key,
        tenant: str | None,
        newest: Summary | None,
        direct: dict[str, bool],
        groups: Mapping[str, Group],
    ) -> Seen:
        group = groups.get("/".join(key), _NOTHING)
        governor = self._rollouts.governor(key)
        nobodys = self._claims.of(key[0]) is Claim.NOBODYS
        return Seen(
            selected=group.selected,
            waiting=group.waiting,
            refused=group.refused,
            newest=newest,
            direct=direct.get(tenant or "", True),
            refusal=self._claims.refusal(key[0]) if nobodys else "",
            no_tenant="" if tenant is not None else f"The namespace {key[0]} has no tenant (operator.tenants).",
            invalid=governor.problem if governor is not None else "",
            problem=group.problem,
        )
