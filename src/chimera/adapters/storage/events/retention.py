"""What of the journal's events nobody needs any more, and what of deliveries has had its time.

Whoever removes rows of the table `event` asks `unneeded_events(connection, now, hold)` first, inside the write job that
removes them, and removes the oldest ones without a gap: every event up to a place, and that place is at most the
answer. Readers rely on both: a subscription finds all that it has not had, and a stream that resumes at a place either
finds everything behind it or is told that it can't (410).

An active subscription needs every event behind its cursor, and those of its pending deliveries. So does a paused one,
for `hold` seconds (`events.paused_hold`); after that it is told what it missed when it is resumed. Dead letters hold
their events themselves and need nothing of the journal.
"""

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from chimera.adapters.storage.removing import delete_first, delete_keys
from chimera.adapters.storage.schema.journal import journal_head
from chimera.adapters.storage.schema.subscriptions import delivery, subscription, task_webhook

_THE_SAME = (subscription.c.tenant == delivery.c.tenant) & (subscription.c.id == delivery.c.subscription)


def unneeded_events(connection: Connection, now: float, hold: float) -> int:
    """The place up to which no subscription needs any event; the journal's last place where there is none."""
    needs = _needs(now, hold)
    behind = connection.execute(select(func.min(subscription.c.cursor)).where(needs)).scalar()
    waiting = (
        select(func.min(delivery.c.seq))
        .select_from(delivery.join(subscription, _THE_SAME))
        .where(and_(needs, delivery.c.state == "pending", delivery.c.event.is_(None)))
    )
    first = connection.execute(waiting).scalar()
    last = int(connection.execute(select(journal_head.c.event_seq)).scalar_one())
    return min(last, last if behind is None else int(behind), last if first is None else int(first) - 1)


def expire_letters(connection: Connection, now: float, limit: int) -> int:
    """Remove dead letters whose time is over (`events.letter_keep`), `limit` at most; how many rows that were.

    None is removed, nor what a person dropped, before its subscription's cursor has passed it: it would be read again.
    """
    passed = or_(subscription.c.id.is_(None), subscription.c.cursor >= delivery.c.seq)
    old = (
        select(delivery.c.tenant, delivery.c.subscription, delivery.c.seq)
        .select_from(delivery.outerjoin(subscription, _THE_SAME))
        .where(and_(delivery.c.expires <= now, delivery.c.state != "pending", passed))
    )
    rows = connection.execute(old.order_by(delivery.c.expires).limit(limit)).all()
    key = (delivery.c.tenant, delivery.c.subscription, delivery.c.seq)
    return delete_keys(connection, key, rows, delivery.c.state != "pending") if rows else 0


def expire_webhooks(connection: Connection, now: float, limit: int, hold: float) -> int:
    """Remove webhooks of removed tasks of which nothing will be told any more, `limit` at most; how many rows."""
    return delete_first(connection, task_webhook, is_told(now, hold), task_webhook.c.gone, limit)


def is_told(now: float, hold: float) -> ColumnElement[bool]:
    """Whether a webhook's task is gone, and all that would tell of it is beyond its end, or paused for too long."""
    c = subscription.c
    telling = (c.tenant == task_webhook.c.tenant) & (c.kind == "tasks") & (c.cursor < task_webhook.c.gone)
    return task_webhook.c.gone.is_not(None) & ~exists().where(telling & _needs(now, hold))


def _needs(now: float, hold: float) -> ColumnElement[bool]:
    return or_(subscription.c.state == "active", subscription.c.paused > now - hold)
