"""Change requests as people and programs ask for them: open, amend, approve, reject, abort, emergency, policy.

What may be asked is decided by pure rules (`transitions`, `approvals`, `conflicts`); here they get what they need and
what they decide is written. Where somebody else wrote meanwhile, the rule is asked again about what there is then.
The pipeline, which does the rest, is told by `poke`; it would find out by itself.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from chimera.agents.catalogue import ChangedMeanwhile, UnknownBatch
from chimera.delivery import transitions
from chimera.delivery.approvals import Who
from chimera.delivery.errors import (
    DirectRefused,
    InvalidDeliveryPolicy,
    NoChange,
    OutOfReach,
    UnknownChange,
)
from chimera.delivery.freezes import check_freeze
from chimera.delivery.model import Change, ChangeItem, ChangeRow, Moved, Origin, Reason, Risk, Told, content_of
from chimera.delivery.policy import FREEZE_NAME, DeliveryPolicy, Freeze
from chimera.delivery.ports import ChangeStore, People, StoredDeliveryPolicy
from chimera.delivery.risk import assess
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease

_TRIES = 5
_BATCH, _CHANGE = "batch_", "chg_"
_NOBODY: Mapping[str, str] = MappingProxyType({})
Rule = Callable[[Change, DeliveryPolicy], Moved]


class Asker(Struct, frozen=True, kw_only=True):
    """Who asks, as it was authenticated; `agents` are those that its credential is for (None: all)."""

    actor: str
    roles: frozenset[str]
    agents: frozenset[str] | None = None


class Draft(Struct, frozen=True, kw_only=True):
    """A change to be opened: the definitions of `batch`, and agents to take out of service.

    `supersede` has older changes of the same author give way. `emergency` is a reason to take the emergency path.
    `owners` are the resources of a cluster that bring agents, by the agents' names.
    """

    title: str
    description: str = ""
    batch: str | None = None
    remove: tuple[str, ...] = ()
    supersede: bool = False
    emergency: str = ""
    origin: Origin = "api"
    commit: str | None = None
    repository: str | None = None
    contributors: tuple[str, ...] = ()
    owners: dict[str, str] = {}


class Changes:
    """The service. `poke` wakes the pipeline."""

    def __init__(self, store: ChangeStore, people: People, clock: Clock, poke: Callable[[], None]) -> None:
        """Keep changes in `store`."""
        self._store = store
        self._people = people
        self._clock = clock
        self._poke = poke

    # -- changes -------------------------------------------------------------------------------------------------------

    async def open(
        self, tenant: str, asker: Asker, draft: Draft, *, key: str | None = None, held: Lease | None = None
    ) -> Change:
        """Open a change. Asked again with the same batch or key, it is the change that was opened then.

        Raises `LeaseLost` where `held` is given and another's by now.
        """
        known = await self._opened_before(tenant, draft.batch, key)
        if known is not None:
            return known
        who = await self._who(asker)
        items = await self._items(tenant, asker, draft.batch, draft.remove, draft.owners)
        risk, reasons = await self._assess(tenant, items)
        now = self._clock.wall()
        change = Change(
            id=_id_of(draft.batch),
            tenant=tenant,
            title=draft.title,
            description=draft.description,
            author=who.actor,
            author_person=who.person,
            contributors=draft.contributors,
            origin=draft.origin,
            commit=draft.commit,
            repository=draft.repository,
            items=items,
            content=content_of(items),
            risk=risk,
            risk_reasons=reasons,
            state="open",
            created=now,
            updated=now,
            since=now,
        )
        opened = Moved(change=change, told=Told(fact="change.opened", by=who.actor, detail={"title": draft.title}))
        if draft.emergency:
            policy = (await self._store.policy(tenant)).policy
            taken = transitions.declare_emergency(change, policy, who, draft.emergency, now).change
            detail = {"title": draft.title, "emergency": draft.emergency}
            told = Told(fact="change.opened", by=who.actor, detail=detail)
            opened = Moved(change=replace(taken, version=change.version), told=told)
        made = await self._store.create(opened, batch=draft.batch, supersede=draft.supersede, key=key, held=held)
        self._poke()
        return made

    async def amend(
        self,
        tenant: str,
        asker: Asker,
        change: str,
        *,
        batch: str | None,
        remove: Sequence[str],
        key: str | None = None,
    ) -> Change:
        """Give a change other content; its approvals end with the old one.

        Asked again with the same key, it is the change as it has become.
        """
        who = await self._who(asker)
        before = await self.change(tenant, change)
        _check_reach(asker, before.names)
        if key is not None and before.amended == key:
            return before
        try:
            items = await self._items(tenant, asker, batch, remove)
            risk, reasons = await self._assess(tenant, items)
            moved = transitions.amend(before, items, risk, reasons, who, self._clock.wall())
            moved = replace(moved, change=replace(moved.change, amended=key or ""))
            made = await self._store.save(before, moved, batch=batch)
        except (UnknownBatch, ChangedMeanwhile):
            # Of two who ask at once with one key, the other may have been first.
            found = await self.change(tenant, change)
            if key is None or found.amended != key:
                raise
            return found
        self._poke()
        return made

    async def decide(
        self,
        tenant: str,
        asker: Asker,
        change: str,
        decision: Literal["approved", "rejected"],
        *,
        content: str,
        comment: str,
    ) -> Change:
        """Approve or reject the content that was looked at."""
        who = await self._who(asker)
        return await self._move(
            *(tenant, change, asker),
            lambda found, policy: transitions.decide(
                found, policy, who, decision, content, comment, self._clock.wall()
            ),
        )

    async def abort(self, tenant: str, asker: Asker, change: str, reason: str, *, held: Lease | None = None) -> Change:
        """Give a change up; where it is on its way into production, have it taken back.

        Raises `LeaseLost` where `held` is given and another's by now.
        """
        who = await self._who(asker)
        return await self._move(
            *(tenant, change, asker),
            lambda found, _: transitions.abort(found, who, reason, self._clock.wall()),
            held,
        )

    async def withdraw(self, tenant: str, asker: Asker, change: str, reason: str, *, held: Lease) -> Change:
        """End one's own change that production has nothing of, since something else is said by now.

        Raises `WrongState` where production has some of it, or it has ended, and `LeaseLost` where `held` is another's
        by now.
        """
        who = await self._who(asker)
        return await self._move(
            *(tenant, change, asker),
            lambda found, _: transitions.withdraw(found, who, reason, self._clock.wall()),
            held,
        )

    async def want(self, tenant: str, asker: Asker, change: str, wanted: Literal["go", "pause"], reason: str) -> Change:
        """Have a rollout pause, or go on."""
        who = await self._who(asker)
        return await self._move(
            tenant, change, asker, lambda found, _: transitions.want(found, wanted, who, reason, self._clock.wall())
        )

    async def declare_emergency(self, tenant: str, asker: Asker, change: str, reason: str) -> Change:
        """Send a change on the emergency path."""
        who = await self._who(asker)
        return await self._move(
            *(tenant, change, asker),
            lambda found, policy: transitions.declare_emergency(found, policy, who, reason, self._clock.wall()),
        )

    async def review(
        self, tenant: str, asker: Asker, change: str, decision: Literal["approved", "rejected"], comment: str
    ) -> Change:
        """Say what one thinks of a change that took the emergency path."""
        who = await self._who(asker)
        return await self._move(
            *(tenant, change, asker),
            lambda found, policy: transitions.review(found, policy, who, decision, comment, self._clock.wall()),
        )

    async def change(self, tenant: str, change: str) -> Change:
        """A change with all that belongs to it."""
        found = await self._store.change(tenant, change)
        if found is None:
            raise UnknownChange(f"there is no change {change[:100]!r}", next_step="see `chimera change list`")
        return found

    async def page(
        self, tenant: str, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[ChangeRow]:
        """Changes, the newest first."""
        return await self._store.page(tenant, state=state, agent=agent, after=after, limit=limit)

    async def in_flight_of(self, tenant: str, author: str) -> list[ChangeRow]:
        """The changes in flight that `author` opened, the newest first."""
        return await self._store.in_flight_of(tenant, author)

    async def counts(self) -> dict[str, int]:
        """How many changes are in each state of those in flight, over all tenants."""
        return await self._store.counts()

    async def contents(self, tenant: str, batch: str | None, remove: Sequence[str]) -> list[ChangeItem]:
        """What a batch, and agents that are to be taken out, would change."""
        items = [] if batch is None else await self._store.batch(tenant, batch)
        if twice := sorted({item.agent for item in items} & set(remove)):
            raise NoChange(
                f"agent {twice[0]} is both changed and taken out", next_step="say one of the two for each agent"
            )
        live = await self._store.live(tenant, tuple(remove))
        out = (ChangeItem(agent=name, revision=None, before=live[name].revision) for name in sorted(live))
        return [*items, *out]

    # -- policy --------------------------------------------------------------------------------------------------------

    async def policy(self, tenant: str) -> StoredDeliveryPolicy:
        """The tenant's delivery policy."""
        return await self._store.policy(tenant)

    async def put_policy(
        self, tenant: str, asker: Asker, policy: DeliveryPolicy, *, expect: int | None
    ) -> StoredDeliveryPolicy:
        """Put the tenant's delivery policy."""
        for freeze in policy.freezes:
            check_freeze(freeze)
        names = [freeze.name for freeze in policy.freezes]
        if len(set(names)) != len(names):
            raise InvalidDeliveryPolicy("two freezes have the same name", next_step="give each a name of its own")
        await self._store.put_policy(tenant, policy, expect=expect, by=asker.actor)
        self._poke()
        return await self._store.policy(tenant)

    async def put_freeze(self, tenant: str, asker: Asker, freeze: Freeze) -> StoredDeliveryPolicy:
        """Add a freeze window, in place of one of the same name."""
        return await self._with_freezes(tenant, asker, freeze.name, (freeze,))

    async def drop_freeze(self, tenant: str, asker: Asker, name: str) -> StoredDeliveryPolicy:
        """Remove a freeze window; nothing where there is none of this name. Raises where none can have it."""
        if re.fullmatch(FREEZE_NAME, name, re.ASCII) is None:
            raise InvalidDeliveryPolicy(
                f"{name[:70]!r} is no name of a freeze", next_step="see `chimera change freeze list`"
            )
        return await self._with_freezes(tenant, asker, name, ())

    async def check_direct(self, tenant: str) -> None:
        """Raise `DirectRefused` where agents of the tenant are changed by change requests alone."""
        if not (await self._store.policy(tenant)).policy.direct:
            raise DirectRefused(
                f"the delivery policy of tenant {tenant} takes no direct changes",
                next_step="open a change: `chimera change open PATHS` (`chimera apply` does so by itself)",
            )

    async def check_rollback(self, tenant: str, roles: frozenset[str]) -> None:
        """Raise `DirectRefused` where whoever has these roles may not choose what to go back to.

        The revision before is the way out of a change that was wrong, and is open at any time. Any other one, though it
        was approved once, is the emergency path where agents are changed by change requests alone.
        """
        policy = (await self._store.policy(tenant)).policy
        if policy.direct or roles & frozenset(policy.emergency_roles):
            return
        raise DirectRefused(
            f"the delivery policy of tenant {tenant} takes no direct changes, and to choose the revision is one",
            next_step="go back to the one before (without `--to`), open a change (`chimera change open`), or ask "
            f"somebody with the role {' or '.join(policy.emergency_roles) or '(the policy names none)'}",
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _move(self, tenant: str, change: str, asker: Asker, rule: Rule, held: Lease | None = None) -> Change:
        for tried in range(1, _TRIES + 1):
            found = await self.change(tenant, change)
            _check_reach(asker, found.names)
            policy = (await self._store.policy(tenant)).policy
            try:
                made = await self._store.save(found, rule(found, policy), held=held)
            except ChangedMeanwhile:
                if tried == _TRIES:
                    raise
                continue
            self._poke()
            return made
        raise AssertionError("the loop returns or raises")

    async def _with_freezes(
        self, tenant: str, asker: Asker, name: str, instead: tuple[Freeze, ...]
    ) -> StoredDeliveryPolicy:
        for tried in range(1, _TRIES + 1):
            stored = await self._store.policy(tenant)
            others = tuple(one for one in stored.policy.freezes if one.name != name)
            if not instead and len(others) == len(stored.policy.freezes):
                return stored
            policy = replace(stored.policy, freezes=(*others, *instead))
            try:
                return await self.put_policy(tenant, asker, policy, expect=stored.version)
            except ChangedMeanwhile:
                if tried == _TRIES:
                    raise
        raise AssertionError("the loop returns or raises")

    async def _opened_before(self, tenant: str, batch: str | None, key: str | None) -> Change | None:
        if key is not None and (found := await self._store.of_key(tenant, key)) is not None:
            return found
        return None if batch is None else await self._store.change(tenant, _id_of(batch))

    async def _items(
        self,
        tenant: str,
        asker: Asker,
        batch: str | None,
        remove: Sequence[str],
        owners: Mapping[str, str] = _NOBODY,
    ) -> tuple[ChangeItem, ...]:
        items = await self.contents(tenant, batch, remove)
        if not items:
            raise NoChange("all of it is live as it is", next_step="nothing is to be done")
        _check_reach(asker, [item.agent for item in items])
        owned = (replace(item, owner=owners.get(item.agent)) for item in items)
        return tuple(sorted(owned, key=lambda item: item.agent))

    async def _assess(self, tenant: str, items: Sequence[ChangeItem]) -> tuple[Risk, tuple[Reason, ...]]:
        revisions = await self._store.revisions(tenant, items)
        return await asyncio.to_thread(assess, revisions)

    async def _who(self, asker: Asker) -> Who:
        return Who(actor=asker.actor, person=await self._people.person_of(asker.actor), roles=asker.roles)


def _id_of(batch: str | None) -> str:
    """The id of the change that a batch becomes: made of the batch's, so that asking twice opens one."""
    if batch is None or not batch.startswith(_BATCH):
        return new_id(_CHANGE.rstrip("_"))
    return _CHANGE + batch.removeprefix(_BATCH)


def _check_reach(asker: Asker, names: Sequence[str]) -> None:
    if asker.agents is not None and (beyond := sorted(set(names) - asker.agents)):
        raise OutOfReach(
            f"{asker.actor} is for other agents than {beyond[0]}", next_step="use a credential that reaches all of them"
        )
