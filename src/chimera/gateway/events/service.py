"""Subscriptions for callers: made, changed, paused, resumed, rotated.

A receiver's address is judged as far as it can be before it is called; the rest is judged when it is. Filters are
checked, and a type that no event has is refused, since it is a slip of the pen.
"""

import difflib
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from chimera.events import filters
from chimera.events.catalogue import FACTS
from chimera.events.cloudevents import TYPE_PREFIX
from chimera.events.delivery.model import BUS, OWN, TASKS, Counts, Subscription, Target
from chimera.events.delivery.ports import JournalReader
from chimera.events.errors import InvalidSubscription, SubscriptionNotFound
from chimera.events.settings import EventSettings
from chimera.gateway.events import api
from chimera.gateway.events.ports import SubscriptionStore
from chimera.gateway.events.secrets import WebhookSecrets, check_reference
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id


class Subscriptions:
    """The subscriptions that one gateway's callers change."""

    def __init__(
        self,
        store: SubscriptionStore,
        journal: JournalReader,
        secrets: WebhookSecrets,
        clock: Clock,
        *,
        settings: EventSettings,
        fault_of: Callable[[str], str | None],
    ) -> None:
        """Keep them in `store`; `fault_of` says what is wrong with a receiver's address."""
        self._store = store
        self._journal = journal
        self._secrets = secrets
        self._clock = clock
        self._settings = settings
        self._fault_of = fault_of

    # -- looking -------------------------------------------------------------------------------------------------------

    async def get(self, tenant: str, name: str) -> api.SubscriptionAnswer:
        """One by its name. Raises `SubscriptionNotFound`."""
        found = await self._store.get(tenant, name)
        if found is None:
            raise SubscriptionNotFound(
                f"tenant {tenant} has no subscription {name[:63]!r}", next_step="see `chimera events list`"
            )
        return (await self.shown(tenant, [found]))[0]

    async def page(self, tenant: str, after: str, limit: int) -> tuple[list[api.SubscriptionAnswer], bool]:
        """By name, and whether there are more."""
        found = await self._store.page(tenant, after, limit + 1)
        return await self.shown(tenant, found[:limit]), len(found) > limit

    async def shown(self, tenant: str, several: Sequence[Subscription]) -> list[api.SubscriptionAnswer]:
        """How they stand."""
        if not several:
            return []
        counts = await self._store.counts(tenant, [one.id for one in several])
        last, _ = await self._journal.heads()
        key = self._secrets.key_id
        return [api.subscription_answer(one, counts.get(one.id, Counts()), last=last, key=key) for one in several]

    # -- changing ------------------------------------------------------------------------------------------------------

    async def create(self, tenant: str, body: api.SubscriptionBody, by: str) -> tuple[Subscription, str | None]:
        """A subscription and its secret, which is shown this once. Raises what is wrong with it."""
        if body.name in OWN:
            raise InvalidSubscription(f"{body.name} is the platform's own", next_step="take another name")
        self._check_url(body.url)
        if body.secret:
            check_reference(body.secret, tenant)
        now = self._clock.wall()
        made = Subscription(
            id=new_id("sub"),
            tenant=tenant,
            name=body.name,
            url=body.url,
            key=self._secrets.key_id,
            cursor=0,
            created=now,
            created_by=by,
            updated=now,
            filters=_filters(body.types, body.subjects, body.filters),
            mode=body.mode,
            secret=body.secret,
        )
        stored = await self._store.create(made, body.start, by, most=self._settings.subscriptions)
        return stored, self._secrets.shown(stored)

    async def patch(self, tenant: str, name: str, body: api.SubscriptionPatch, by: str) -> Subscription:
        """Change address, filters, form or secret."""
        fields: dict[str, object] = {}
        if body.url is not None:
            self._check_url(body.url)
            fields["url"] = body.url
        if body.secret:
            check_reference(body.secret, tenant)
        if body.secret is not None:
            fields["secret"] = body.secret
        if body.mode is not None:
            fields["mode"] = body.mode
        if not (body.types is None and body.subjects is None and body.filters is None):
            fields["filters"] = _filters(body.types or (), body.subjects or (), body.filters or [])

        def change(one: Subscription) -> Subscription:
            _check_own(one)
            return replace(one, **fields)

        return await self._store.change(tenant, name, change, what="updated", by=by)

    async def pause(self, tenant: str, name: str, by: str) -> Subscription:
        """Deliver nothing more until it is resumed; twice is once."""
        now = self._clock.wall()

        def change(one: Subscription) -> Subscription:
            return one if one.state == "paused" else replace(one, state="paused", why="asked", paused=now)

        return await self._store.change(tenant, name, change, what="paused", by=by)

    async def resume(self, tenant: str, name: str, body: api.ResumeBody, by: str) -> Subscription:
        """Go on, where it was or from another place. Raises `EventsGone` where the journal has not all from there."""

        def change(one: Subscription) -> Subscription:
            return replace(one, state="active", why="", paused=None)

        return await self._store.change(tenant, name, change, what="resumed", by=by, start=body.start)

    async def rotate(self, tenant: str, name: str, body: api.RotateBody, by: str) -> tuple[Subscription, str | None]:
        """Another secret, which is shown this once; the old one goes on signing beside it for a while.

        The old secret of a subscription whose key is another home's can't be made here, so it ends at once.
        """
        overlap = self._settings.secret_overlap if body.overlap is None else body.overlap
        until = self._clock.wall() + overlap if overlap else None
        key = self._secrets.key_id

        def change(one: Subscription) -> Subscription:
            _check_own(one)
            if one.secret:
                raise InvalidSubscription(
                    f"the secret of {name} is kept as {one.secret}", next_step="change it there: it is read again"
                )
            previous = until if one.key == key else None
            return replace(one, key=key, generation=one.generation + 1, previous_until=previous)

        stored = await self._store.change(tenant, name, change, what="rotated", by=by)
        return stored, self._secrets.shown(stored)

    async def delete(self, tenant: str, name: str, by: str) -> None:
        """Remove one with its deliveries and dead letters."""
        await self._store.delete(tenant, name, by)

    # -- tasks ---------------------------------------------------------------------------------------------------------

    def target(self, tenant: str, url: str, states: Sequence[str], secret: str) -> Target:
        """Where a task tells its states. Raises `InvalidSubscription`."""
        self._check_url(url)
        if secret:
            check_reference(secret, tenant)
        return Target(url=url, key=self._secrets.key_id, states=tuple(dict.fromkeys(states)), secret=secret)

    def secret_of(self, tenant: str, task: str, target: Target) -> str | None:
        """The secret of a task's webhook as its submitter is told it; None where it is referred to."""
        return None if target.secret else self._secrets.shown_of_task(tenant, task)

    def _check_url(self, url: str) -> None:
        if (fault := self._fault_of(url)) is not None:
            raise InvalidSubscription(fault, next_step="give a public https address")


def _check_own(one: Subscription) -> None:
    """The platform's own subscriptions can be paused, resumed and deleted, no more."""
    if one.kind == BUS:
        raise InvalidSubscription(
            f"{one.name} brings events to the agents that subscribed",
            next_step="change `subscriptions` of the agents' definitions",
        )
    if one.kind == TASKS:
        raise InvalidSubscription(
            f"{one.name} tells the states of tasks, each to the webhook that it was submitted with",
            next_step="submit tasks with another webhook",
        )


def _filters(types: Sequence[str], subjects: Sequence[str], more: list[filters.Filter]) -> list[filters.Filter]:
    made = [*filters.plain([known_type(one) for one in types], subjects), *more]
    filters.check(made)
    return made


def known_type(text: str) -> str:
    """What a type begins with, with the platform's prefix. Raises `InvalidSubscription` where no type does."""
    whole = text if text.startswith(TYPE_PREFIX) else TYPE_PREFIX + text
    if not any(f"{TYPE_PREFIX}{name}".startswith(whole) for name in FACTS):
        near = difflib.get_close_matches(whole.removeprefix(TYPE_PREFIX), FACTS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `chimera events types`"
        raise InvalidSubscription(f"no event's type begins with {text[:60]!r}", next_step=hint)
    return whole
