"""Subscriptions and dead letters as people change them (`SubscriptionStore`).

Whoever changes a subscription locks its row before the counter of changes, as the process that delivers does; only a
new one counts first, so that two at once don't both find the last room.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, and_, delete, func, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.reading import CHUNK
from chimera.adapters.storage.events.rows import (
    DEAD,
    DROPPED,
    PENDING,
    Changes,
    deliveries_of,
    letter_of,
    note,
    subscription_of,
    subscription_row,
    tell,
)
from chimera.adapters.storage.schema.journal import event, journal_head
from chimera.adapters.storage.schema.subscriptions import delivery, subscription
from chimera.events.delivery.model import OWN, Counts, Letter, Subscription
from chimera.events.errors import (
    EventsGone,
    InvalidSubscription,
    LetterNotFound,
    SubscriptionExists,
    SubscriptionNotFound,
    TooManySubscriptions,
)
from chimera.gateway.events.ports import BEGINNING, NOW, Changed, Start

_HTTP = subscription.c.kind == "http"


class SubscriptionStorage:
    """The subscriptions of one database."""

    def __init__(self, database: Database) -> None:
        """Compile the frequent statements for `database`."""
        self._database = database
        self._changes = Changes(database)

    # -- subscriptions -------------------------------------------------------------------------------------------------

    async def create(self, made: Subscription, start: Start, by: str, *, most: int) -> Subscription:
        """See `SubscriptionStore`."""

        def job(connection: Connection) -> Subscription:
            self._changes.count(connection)
            count = select(func.count()).select_from(subscription).where((subscription.c.tenant == made.tenant) & _HTTP)
            if connection.execute(count).scalar_one() >= most:
                raise TooManySubscriptions(
                    f"tenant {made.tenant} has {most} subscriptions, as many as it may have",
                    next_step="delete one, or raise the setting events.subscriptions",
                )
            stored = replace(made, cursor=_place(connection, start))
            insert = self._database.insert(subscription).values(subscription_row(stored)).on_conflict_do_nothing()
            if connection.execute(insert).rowcount != 1:
                raise SubscriptionExists(
                    f"there is a subscription {made.name}", next_step="take another name, or change that one"
                )
            tell(connection, "subscription.created", stored, stored.created, by)
            return stored

        return await self._database.write(job)

    async def get(self, tenant: str, name: str) -> Subscription | None:
        """See `SubscriptionStore`."""
        return await self._database.read(lambda connection: _find(connection, tenant, name))

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Subscription]:
        """See `SubscriptionStore`."""
        where = (subscription.c.tenant == tenant) & (subscription.c.name > after)
        query = select(subscription).where(where).order_by(subscription.c.name).limit(limit)
        return await self._database.read(
            lambda connection: [subscription_of(row) for row in connection.execute(query).mappings()]
        )

    async def change(
        self,
        tenant: str,
        name: str,
        change: Callable[[Subscription], Subscription],
        *,
        what: Changed,
        by: str,
        start: Start | None = None,
    ) -> Subscription:
        """See `SubscriptionStore`."""

        def job(connection: Connection) -> Subscription:
            before = _there(connection, tenant, name, lock=True)
            made = change(before)
            if made == before and start is None:
                return before
            if start is not None:
                made = replace(made, cursor=_place(connection, start), epoch=before.epoch + 1)
            elif made.state == "active" and before.state == "paused":
                _check_kept(connection, before.cursor)
            now = self._database.now(connection)
            made = replace(made, version=before.version + 1, updated=now)
            connection.execute(update(subscription).where(subscription.c.id == made.id).values(subscription_row(made)))
            self._changes.count(connection)
            tell(connection, f"subscription.{what}", made, now, by)
            return made

        return await self._database.write(job)

    async def delete(self, tenant: str, name: str, by: str) -> None:
        """See `SubscriptionStore`."""

        def job(connection: Connection) -> None:
            gone = _there(connection, tenant, name, lock=True)
            connection.execute(delete(delivery).where(deliveries_of(gone)))
            connection.execute(delete(subscription).where(subscription.c.id == gone.id))
            self._changes.count(connection)
            tell(connection, "subscription.deleted", gone, self._database.now(connection), by)

        await self._database.write(job)

    async def counts(self, tenant: str, subscriptions: Sequence[str]) -> Mapping[str, Counts]:
        """See `SubscriptionStore`."""
        query = (
            select(delivery.c.subscription, delivery.c.state, func.count())
            .where((delivery.c.tenant == tenant) & delivery.c.subscription.in_(subscriptions))
            .group_by(delivery.c.subscription, delivery.c.state)
        )

        def read(connection: Connection) -> dict[str, Counts]:
            found: dict[str, dict[str, int]] = {name: {} for name in subscriptions}
            for name, state, count in connection.execute(query):
                found[name][state] = count
            return {
                name: Counts(pending=some.get(PENDING, 0), letters=some.get(DEAD, 0)) for name, some in found.items()
            }

        return await self._database.read(read)

    # -- dead letters --------------------------------------------------------------------------------------------------

    async def letters(self, tenant: str, subscription: str | None, after: str, limit: int) -> Sequence[Letter]:
        """See `SubscriptionStore`."""
        query = _letters(tenant).where(delivery.c.letter > after).order_by(delivery.c.letter).limit(limit)
        if subscription is not None:
            query = query.where(_called(subscription))
        return await self._database.read(lambda connection: [_letter(row) for row in connection.execute(query)])

    async def letter(self, tenant: str, letter: str) -> Letter | None:
        """See `SubscriptionStore`."""
        query = _letters(tenant).where(delivery.c.letter == letter)

        def read(connection: Connection) -> Letter | None:
            row = connection.execute(query).one_or_none()
            return None if row is None else _letter(row)

        return await self._database.read(read)

    async def replay(self, tenant: str, letters: Sequence[str], by: str) -> int:
        """See `SubscriptionStore`."""

        def job(connection: Connection) -> int:
            now = self._database.now(connection)
            again = {"state": PENDING, "attempts": 0, "first": None, "due": now, "letter": None, "died": None}
            return self._settle(connection, tenant, letters, {**again, "expires": None}, "dead-letter:replay", by, now)

        return await self._database.write(job)

    async def drop(self, tenant: str, letters: Sequence[str], by: str) -> int:
        """See `SubscriptionStore`."""

        def job(connection: Connection) -> int:
            # The row stays until the cursor is behind it: whoever delivers next must not read it as new.
            now = self._database.now(connection)
            gone = {"state": DROPPED, "letter": None, "event": None, "target": None, "expires": now}
            return self._settle(connection, tenant, letters, gone, "dead-letter:drop", by, now)

        return await self._database.write(job)

    def _settle(
        self,
        connection: Connection,
        tenant: str,
        letters: Sequence[str],
        values: Mapping[str, Any],
        what: str,
        by: str,
        now: float,
    ) -> int:
        found: list[Any] = []
        mine = (delivery.c.tenant == tenant) & (delivery.c.state == DEAD)
        for start in range(0, len(letters), CHUNK):
            some = select(delivery.c.letter, delivery.c.subscription, delivery.c.seq).where(
                mine & delivery.c.letter.in_(letters[start : start + CHUNK])
            )
            found += connection.execute(some).all()
        if missing := sorted(set(letters) - {row.letter for row in found}):
            raise LetterNotFound(
                f"{len(missing)} of them are not there, {missing[0][:40]!r} first",
                next_step="list them with `chimera events dead-letters list`",
            )
        for name in sorted({row.subscription for row in found}):
            its = sorted(row.seq for row in found if row.subscription == name)
            row = connection.execute(_by_id(name)).mappings().one_or_none()
            if row is None:
                continue
            of = subscription_of(row)
            for start in range(0, len(its), CHUNK):
                here = deliveries_of(of) & delivery.c.seq.in_(its[start : start + CHUNK])
                connection.execute(update(delivery).where(here & (delivery.c.state == DEAD)).values(values))
            passed = deliveries_of(of) & (delivery.c.state == DROPPED) & (delivery.c.seq <= of.cursor)
            connection.execute(delete(delivery).where(passed))
            connection.execute(update(subscription).where(subscription.c.id == name).values(version=of.version + 1))
            resource = f"subscriptions/{_shown(of)}"
            note(connection, what, tenant, resource, now, by, {"events": len(its), "first": its[0], "last": its[-1]})
        self._changes.count(connection)
        return len(found)


def _find(connection: Connection, tenant: str, name: str, *, lock: bool = False) -> Subscription | None:
    here = (subscription.c.tenant == tenant) & (subscription.c.name == name)
    query = select(subscription).where(here)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else subscription_of(row)


def _there(connection: Connection, tenant: str, name: str, *, lock: bool = False) -> Subscription:
    found = _find(connection, tenant, name, lock=lock)
    if found is None:
        raise not_found(tenant, name)
    return found


def not_found(tenant: str, name: str) -> SubscriptionNotFound:
    """What is said of a subscription that isn't there."""
    return SubscriptionNotFound(
        f"tenant {tenant} has no subscription {name[:63]!r}", next_step="see `chimera events list`"
    )


def _by_id(name: str) -> Any:
    return select(subscription).where(subscription.c.id == name).with_for_update()


def _place(connection: Connection, start: Start) -> int:
    last = int(connection.execute(select(journal_head.c.event_seq)).scalar_one())
    if start == NOW:
        return last
    if start == BEGINNING:
        first = connection.execute(select(func.min(event.c.seq))).scalar()
        return last if first is None else int(first) - 1
    assert isinstance(start, int)
    if start > last:
        raise InvalidSubscription(
            f"the journal's last place is {last}, and {start} is behind it", next_step='give a lower one, or "now"'
        )
    _check_kept(connection, start)
    return start


def _check_kept(connection: Connection, after: int) -> None:
    """Raise `EventsGone` where the journal has not all events behind a place."""
    last = int(connection.execute(select(journal_head.c.event_seq)).scalar_one())
    first = connection.execute(select(func.min(event.c.seq))).scalar()
    oldest = last + 1 if first is None else int(first)
    if after + 1 < oldest:
        raise EventsGone(
            f"events up to place {oldest - 1} are kept no longer, and it stands at {after}",
            next_step='go on with `from`: "beginning" (all that is kept), "now", or a place',
        )


def _letters(tenant: str) -> Any:
    the_same = (subscription.c.tenant == delivery.c.tenant) & (subscription.c.id == delivery.c.subscription)
    joined = delivery.join(subscription, the_same)
    where = and_(delivery.c.tenant == tenant, delivery.c.letter.is_not(None), delivery.c.state == DEAD)
    return select(delivery, subscription.c.name, subscription.c.kind).select_from(joined).where(where)


def _called(name: str) -> Any:
    if name in OWN:
        return subscription.c.kind == name
    return subscription.c.name == name


def _letter(row: Any) -> Letter:
    return letter_of(row, row.kind if row.kind in OWN else row.name)


def _shown(one: Subscription) -> str:
    return one.kind if one.kind in OWN else one.name
