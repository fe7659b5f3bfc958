"""The loop over Agents: what resources want, carried into the catalogue by the path of `chimera apply`.

An Agent is compiled when its definition's digest isn't the one that the catalogue has, by the same code and into the
same tables as a file. What it costs in steady state: one number read in `poll`, one watch. What is kept of 12,000: the
bytes of their specs, a digest each, and the rows of the catalogue that they own.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.resources.carrying import Governor, Want
from chimera.adapters.substrates.knative.resources.claims import Claim
from chimera.adapters.substrates.knative.resources.composing import Json, compose, digest_of
from chimera.adapters.substrates.knative.resources.kinds import AGENTS, Definition, Key
from chimera.adapters.substrates.knative.resources.plan import (
    Outcome,
    Phase,
    Place,
    Plan,
    Verdict,
    Wanted,
    applied_elsewhere,
    owner_key,
    plan,
    still,
)
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.resources.status import agent_status, document
from chimera.agents.api import Item
from chimera.agents.catalogue import OwnedAgent, StagedItem, compiler_id
from chimera.agents.errors import Fault
from chimera.agents.intake import Taken, take_in
from chimera.entrypoints.operator.claiming import Claims
from chimera.entrypoints.operator.delivering import Deliveries, Held, departure
from chimera.entrypoints.operator.governing import Group, Rollouts
from chimera.entrypoints.operator.loop import ACTOR, Loop, moment_of
from chimera.entrypoints.operator.writing import StatusWriter
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 5_000
STATUSES = 500
"""Statuses that one pass writes before it looks again: a change of an Agent shouldn't wait for 12,000 of them."""
MOST_FAULTS = 20
CODE = (
    "A resource can't bring code: specification.source names a folder, which stays where the file was. Apply this "
    "agent with `chimera apply`, or build its code into an image and name that as specification.runtime."
)


class AgentLoop(Loop):
    """Agents, with the templates of their namespaces."""

    kind = "agents"

    def __init__(
        self,
        api: Kubernetes,
        catalogue: Catalogue,
        clock: Clock,
        settings: OperatorSettings,
        templates: Following[Definition],
        claims: Claims,
        deliveries: Deliveries,
        rollouts: Rollouts,
    ) -> None:
        """Nothing is followed yet."""
        super().__init__(catalogue, clock, settings)
        self.agents: Following[Definition] = Following(api, AGENTS, namespace=None, selector="")
        self.agents.on_change(self._changed)
        self.writer = StatusWriter(api, AGENTS, self.agents, clock, settings.statuses_per_second)
        self._templates = templates
        self._claims = claims
        claims.on_change(self._claims_changed)
        rollouts.on_change(self.poke)
        self._parsed: dict[Key, tuple[str, Json]] = {}
        self._wanted: dict[Key, Wanted] = {}
        self._rows: dict[Place, OwnedAgent] = {}
        self._verdicts: dict[Key, Verdict] = {}
        self._missing: Mapping[Place, float] = {}
        self._seen: set[Key] = set()
        self._deliveries = deliveries
        self._rollouts = rollouts
        self.phases: dict[str, int] = {}
        self.staying: frozenset[Place] = frozenset()

    # -- what is known -------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """See `Loop`."""
        await self._claims.known()
        await self._templates.synced.wait()
        await self._rollouts.rollouts.synced.wait()
        await self.agents.synced.wait()
        self._deliveries.begin()
        self._rollouts.groups = None
        self._verdicts, self._missing, self._seen = {}, {}, set()
        self._rows = {}

    async def follow(self) -> None:
        """See `Loop`."""
        if self._sequence < 0:
            await self._read_all()
            return
        after = self._sequence
        while True:
            page = await self.catalogue.changed_agents(after, PAGE)
            for row in page:
                place = (row.tenant, row.name)
                if row.live and row.owner is not None:
                    self._rows[place] = row
                else:
                    self._rows.pop(place, None)
            self._forget_conflicts({(row.tenant, row.name) for row in page})
            if len(page) < PAGE:
                return
            after = page[-1].sequence

    async def _read_all(self) -> None:
        rows: dict[Place, OwnedAgent] = {}
        after = ("", "")
        while page := await self.catalogue.owned_agents(after, PAGE):
            rows.update(((row.tenant, row.name), row) for row in page)
            after = (page[-1].tenant, page[-1].name)
        self._rows = rows

    def _forget_conflicts(self, changed: set[Place]) -> None:
        for key, verdict in list(self._verdicts.items()):
            wanted = self._wanted.get(key)
            if wanted is None or (verdict.phase is Phase.CONFLICT and (wanted.tenant or "", key[1]) in changed):
                del self._verdicts[key]

    def templates_changed(self, changed: Iterable[Definition]) -> None:
        """Agents of these templates' namespaces may be other agents now."""
        namespaces = {one.metadata.namespace for one in changed}
        for key in [key for key in self._wanted if key[0] in namespaces]:
            self._wanted[key] = self._want(self.agents.objects[key])
        self.poke()

    def _changed(self, changed: Iterable[Definition]) -> None:
        news = False
        for one in changed:
            is_there = one.key in self.agents.objects
            if is_there and self.writer.wrote(one.key, one.metadata.resource_version):
                continue
            news = True
            gone = not is_there or one.metadata.deletion_timestamp is not None
            if gone or self._claims.of(one.key[0]) is Claim.THEIRS:
                self._wanted.pop(one.key, None)
            elif one.key not in self._wanted or self._wanted[one.key].version != one.metadata.edition:
                self._wanted[one.key] = self._want(one)
        if news:
            self.poke()

    def _claims_changed(self) -> None:
        """Agents of some namespaces may be another installation's now, or ours."""
        for key, one in self.agents.objects.items():
            known, claim = self._wanted.get(key), self._claims.of(key[0])
            if claim is Claim.THEIRS:
                # It goes as one whose resource was gone when we started: a label is written, and corrected, by hand.
                self._seen.discard(key)
                self._wanted.pop(key, None)
            elif one.metadata.deletion_timestamp is None:
                refused = self._claims.refusal(key[0]) if claim is Claim.NOBODYS else ""
                if known is None or known.refused != refused:
                    self._wanted[key] = self._want(one)
        self.poke()

    def _want(self, one: Definition) -> Wanted:
        namespace, name = one.key
        refused = self._claims.refusal(namespace) if self._claims.of(namespace) is Claim.NOBODYS else ""
        return Wanted(
            key=one.key,
            digest=digest_of(bytes(one.spec), name, self._templates_of(namespace)),
            tenant=None if refused else self.settings.tenant_of(namespace),
            created=one.metadata.creation_timestamp or "",
            version=one.metadata.edition,
            refused=refused,
        )

    def _templates_of(self, namespace: str) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key, one in self._templates.objects.items():
            if key[0] != namespace or one.metadata.deletion_timestamp is not None:
                continue
            known = self._parsed.get(key)
            if known is None or known[0] != one.metadata.resource_version:
                known = self._parsed[key] = (one.metadata.resource_version, msgspec.json.decode(one.spec))
            found[key[1]] = known[1]
        return found

    # -- a pass --------------------------------------------------------------------------------------------------------

    async def look(self, held: Lease) -> float | None:
        """See `Loop`."""
        now = self.clock.monotonic()
        decided = self._plan(now)
        self._missing = decided.missing
        self._seen.update(self._wanted)
        changed = bool(decided.apply or decided.delete)
        for tenant, rows in _by_tenant(decided.delete, lambda row: row.tenant).items():
            await self._delete(tenant, rows, held)
        tenants = {key: self._wanted[key].tenant or "" for key in decided.apply if key in self._wanted}
        for tenant, keys in _by_tenant(tuple(tenants), tenants.__getitem__).items():
            await self._apply(tenant, keys, held)
        if decided.more:
            return now  # to be live comes before to be told so
        if changed:
            decided = self._plan(now)
        waiting = self._deliveries.held
        self._deliveries.held = {key: waiting[key] for key in decided.held}
        self._deliveries.leaving = dict(decided.leaving)
        wanted = dict(self._wanted)  # as this was decided: some of it goes, or changes, while what is held is settled
        carried = await self._deliveries.settle(now, self._rows, self._governor, self._stage, held)
        self._tell_of_staying()
        outcomes = {**decided.outcomes, **self._carried(wanted, decided.held)}
        outcomes = {key: outcome for key, outcome in outcomes.items() if key in self._wanted}
        self._count(outcomes)
        self._group()
        owners = {owner_key(row) for row in self._rows.values()}
        self._seen &= owners | self._wanted.keys()
        more = await self._tell(outcomes, wanted)
        if more or decided.more or decided.apply:
            return now
        due = [time for time in (decided.look_again, carried, self.writer.look_again()) if time is not None]
        return min(due) if due else None

    def _plan(self, now: float) -> Plan:
        for key, one in list(self._deliveries.held.items()):
            row = self._rows.get((one.tenant, key[1]))
            if row is not None and row.revision == one.revision:
                del self._deliveries.held[key]  # it is live; an apply writes down from which definition
        return plan(
            self._wanted,
            self._rows,
            self._verdicts,
            self._missing,
            self._seen,
            now,
            compiler=compiler_id(),
            grace=self.settings.grace,
            limit=self.settings.batch,
            held=self._deliveries.digests,
            leaving=self._deliveries.leaving,
        )

    async def _delete(self, tenant: str, rows: Sequence[OwnedAgent], held: Lease) -> None:
        free = await self._deliveries.free([departure(row) for row in rows], self._rows)
        self._deliveries.leaving.update({place: row for row in rows if (place := (tenant, row.name)) not in free})
        rows = [row for row in rows if (tenant, row.name) in free]
        if not rows:
            return
        owners = {row.name: row.owner for row in rows if row.owner is not None}
        names = sorted(owners)
        deleted, _ = await self.catalogue.delete_agents(tenant, names, by=ACTOR, owners=owners, held=held)
        for name in names:
            self._rows.pop((tenant, name), None)
        log.info("agents deleted, as their resources were", extra={"tenant": tenant, "agents": deleted})

    async def _apply(self, tenant: str, keys: Sequence[Key], held: Lease) -> None:
        # What went while others were applied is left out; what changed is taken as it is now.
        keys = [key for key in keys if key in self._wanted and self._wanted[key].tenant == tenant]
        digests = {key: self._wanted[key].digest for key in keys}
        specs = [(key, self.agents.objects[key].spec, self._templates_of(key[0])) for key in keys]
        taken = await asyncio.to_thread(_compile, specs, digests, tenant)
        for key, result in zip(keys, taken.results, strict=True):
            if result.faults:
                self._verdicts[key] = _verdict(digests[key], result.faults, self.agents.objects.get(key))
            else:
                self._verdicts.pop(key, None)
        good = {key: one for key, one in zip(keys, taken.staged, strict=True) if one.compiled is not None}
        good = await self._at_once(tenant, good)
        if not good:
            return
        owners = {key[1]: "/".join(key) for key in good}
        done = await self.catalogue.apply(
            tenant, list(good.values()), keep_going=True, expect=None, by=ACTOR, owners=owners, held=held
        )
        for key in good:
            if key[1] in done.owned:
                self._verdicts[key] = applied_elsewhere(key, digests[key])
        for row in await self.catalogue.agents_named(tenant, [key[1] for key in good]):
            if row.owner is not None:
                self._rows[row.tenant, row.name] = row
        counts = {"new": done.created, "changed": done.updated, "unchanged": done.unchanged, "refused": done.refused}
        log.info("agents applied from resources", extra={"tenant": tenant, **counts})

    async def _at_once(self, tenant: str, good: Mapping[Key, StagedItem]) -> dict[Key, StagedItem]:
        """Those that may be applied now; the others are held."""
        wants: dict[Key, Want] = {}
        for key, one in good.items():
            row, revision = self._rows.get((tenant, key[1])), one.compiled.digest if one.compiled else ""
            before = None if row is None else row.revision
            if revision != before:  # what is live as it is changes nothing
                governor = self._governor(key)
                wants[key] = Want(key=key, tenant=tenant, revision=revision, before=before, governor=governor)
        free = await self._deliveries.free(list(wants.values()), self._rows) if wants else set()
        later = {key: want for key, want in wants.items() if want.place not in free}
        for row in await self.catalogue.agents_named(tenant, [key[1] for key in later]) if later else ():
            for key in [key for key, want in later.items() if key[1] == row.name and row.owner != want.owner]:
                self._verdicts[key] = applied_elsewhere(key, good[key].source)
                del later[key]
        for key, want in later.items():
            held = Held(digest=good[key].source, tenant=tenant, revision=want.revision or "")
            self._deliveries.held[key] = held
        return {key: one for key, one in good.items() if key not in later and key not in self._verdicts}

    def _governor(self, key: Key) -> Governor | None:
        one = self.agents.objects.get(key)
        return None if one is None else self._rollouts.governor_of(key, one.metadata.labels)

    async def _stage(self, keys: Sequence[Key]) -> list[StagedItem]:
        """Those of these Agents that are held, compiled again."""
        held = {key: self._deliveries.held[key] for key in keys if key in self._deliveries.held}
        digests = {key: one.digest for key, one in held.items() if self._is_as_held(key, one)}
        if not digests:
            return []
        specs = [(key, self.agents.objects[key].spec, self._templates_of(key[0])) for key in digests]
        tenant = next(iter(held.values())).tenant
        taken = await asyncio.to_thread(_compile, specs, digests, tenant)
        return [one for one in taken.staged if one.compiled is not None]

    def _is_as_held(self, key: Key, one: Held) -> bool:
        return key in self.agents.objects and key in self._wanted and self._wanted[key].digest == one.digest

    def _carried(self, wanted: Mapping[Key, Wanted], held: Iterable[Key]) -> dict[Key, Outcome]:
        """What to tell of Agents that something else brings to production."""
        found: dict[Key, Outcome] = {}
        for key in held:
            place = (wanted[key].tenant or "", key[1])
            told = self._deliveries.told.get(place)
            if told is None:
                continue  # it is being gathered
            row = self._rows.get(place)
            found[key] = Outcome(
                phase=told.phase,
                message=still(told.message, row),
                row=row,
                change=told.id if told.way == "change" else "",
                rollout=told.id if told.way == "rollout" else "",
            )
        return found

    def _tell_of_staying(self) -> None:
        """Log agents that stay in service, refused to be taken out: no resource is left to say so."""
        told = ((place, self._deliveries.told.get(place)) for place in self._deliveries.leaving)
        staying = {place: one for place, one in told if one is not None and one.phase is Phase.REFUSED}
        for tenant, name in sorted(staying.keys() - self.staying):
            why = staying[tenant, name].message
            log.warning(
                "an agent stays, whose resource is gone", extra={"tenant": tenant, "agent": name, "reason": why}
            )
        self.staying = frozenset(staying)

    def _group(self) -> None:
        """Count the Agents of each Rollout, for who tells of those."""
        found: dict[str, Group] = {}
        if self._rollouts.rollouts.objects:
            for key, want in self._wanted.items():
                governor = self._governor(key) if want.tenant and not want.refused else None
                if governor is None:
                    continue
                group = found.setdefault(governor.resource, Group())
                group.selected += 1
                if key in self._deliveries.held:
                    told = self._deliveries.told.get((want.tenant or "", key[1]))
                    phase = Phase.HELD if told is None else told.phase
                    group.waiting += phase is Phase.HELD
                    group.refused += phase is Phase.REFUSED
                    group.problem = group.problem or self._deliveries.problem(want.tenant or "", governor.resource)
        if found != self._rollouts.groups:
            self._rollouts.counted(found)

    async def _tell(self, outcomes: Mapping[Key, Outcome], wanted: Mapping[Key, Wanted]) -> bool:
        """Write statuses that differ; whether there are more.

        What is `wanted` otherwise by now is told of by the pass that its change begins: this one knows nothing of it.
        """
        now, moment = self.clock.monotonic(), moment_of(self.clock)
        self.writer.keep(self.agents.objects)
        found: list[tuple[Key, Json]] = []
        for key, outcome in outcomes.items():
            one, want = self.agents.objects.get(key), wanted[key]
            if one is None or self._wanted.get(key) != want:
                continue
            status = agent_status(outcome, one.metadata.generation, one.status, want.tenant, moment)
            if status == one.status or not self.writer.may(key, now):
                continue
            if len(found) == STATUSES:
                await self.writer.write(found)
                return True
            found.append((key, document(AGENTS, one.metadata, status)))
        await self.writer.write(found)
        return False

    def _count(self, outcomes: Mapping[Key, Outcome]) -> None:
        counts: dict[str, int] = {}
        for outcome in outcomes.values():
            counts[outcome.phase.value] = counts.get(outcome.phase.value, 0) + 1
        self.phases = counts


def _compile(
    specs: Sequence[tuple[Key, msgspec.Raw, Mapping[str, Json]]], digests: Mapping[Key, str], tenant: str
) -> Taken:
    items = [
        Item(
            source=digests[key],
            file=f"Agent {'/'.join(key)}",
            definition=compose(msgspec.json.decode(spec), key[1], templates),
        )
        for key, spec, templates in specs
    ]
    return take_in(items, tenant=tenant, first=0, bundles={})


def _verdict(digest: str, faults: Sequence[Fault], one: Definition | None) -> Verdict:
    if any(fault.path == "specification.source" for fault in faults):
        return Verdict(digest=digest, phase=Phase.NEEDS_CODE, message=CODE)
    shown = [str(msgspec.structs.replace(fault, file=None)) for fault in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        shown.append(f"and {len(faults) - MOST_FAULTS} more")
    return Verdict(digest=digest, phase=Phase.INVALID, message="\n".join(shown))


def _by_tenant(items: Sequence[T], tenant_of: Callable[[T], str]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for one in items:
        found.setdefault(tenant_of(one), []).append(one)
    return found
