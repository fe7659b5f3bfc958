"""How far deliveries are, as the one process writes it down that makes them (`DeliveryStore`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, delete, func, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.bus import BusRows, adoptable
from chimera.adapters.storage.events.reading import CHUNK
from chimera.adapters.storage.events.rows import (
    DEAD,
    PENDING,
    PENDING_ROW,
    Changes,
    deliveries_of,
    delivery_row,
    row_of,
    subscription_of,
    target_of,
    tell,
)
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.subscriptions import delivery, subscription, task_webhook
from chimera.events.delivery.model import Kept, Progress, Subscription, Target, Why
from chimera.kernel.leases import Lease

BY = "system:gateway"


class DeliveryStorage:
    """Deliveries on one database."""

    def __init__(self, database: Database, *, letters: int, letter_keep: float) -> None:
        """Pause a subscription with `letters` dead letters; keep those for `letter_keep` seconds."""
        self._database = database
        self._letters = letters
        self._keep = letter_keep
        self._changes = Changes(database)
        self._bus = BusRows(database)
        self._put = database.prepared_insert(delivery, database.upsert(delivery, ("tenant", "subscription", "seq")))
        its = (delivery.c.tenant == bindparam("the_tenant")) & (
            delivery.c.subscription == bindparam("the_subscription")
        )
        one = its & (delivery.c.seq == bindparam("the_seq")) & (delivery.c.state == PENDING)
        self._drop = database.prepared(delete(delivery).where(one))
        c = subscription.c
        new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("cursor", "delivered", "failed", "failure")}
        self._advance = database.prepared(update(subscription).where(c.id == bindparam("the_id")).values(**new))
        task = (task_webhook.c.tenant == bindparam("the_tenant")) & (task_webhook.c.task == bindparam("the_task"))
        self._forget = database.prepared(delete(task_webhook).where(task))

    async def adopt(self, key: str) -> None:
        """See `DeliveryStore`."""

        def there(connection: Connection) -> bool:
            found = select(subscription.c.id).where(adoptable(key, self._database.now(connection))).limit(1)
            return connection.execute(found).one_or_none() is not None

        if await self._database.read(there):
            await self._database.write(
                lambda connection: self._bus.adopt(connection, key, self._database.now(connection))
            )

    async def subscriptions(self, key: str) -> Sequence[Subscription]:
        """See `DeliveryStore`."""
        query = select(subscription).where(subscription.c.key == key).order_by(subscription.c.id)
        return await self._database.read(
            lambda connection: [subscription_of(row) for row in connection.execute(query).mappings()]
        )

    async def kept(self, subscription: Subscription, cursor: int) -> Kept:
        """See `DeliveryStore`."""
        its = deliveries_of(subscription)
        pending = select(*PENDING_ROW).where(its & (delivery.c.state == PENDING)).order_by(delivery.c.seq)
        over = select(delivery.c.seq).where(its & (delivery.c.state != PENDING) & (delivery.c.seq > cursor))

        def read(connection: Connection) -> Kept:
            rows = [row_of(row) for row in connection.execute(pending)]
            return Kept(rows=rows, over=frozenset(connection.execute(over).scalars()))

        return await self._database.read(read)

    async def targets(self, tasks: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Target]:
        """See `DeliveryStore`."""
        by_tenant: dict[str, list[str]] = {}
        for tenant, task in tasks:
            by_tenant.setdefault(tenant, []).append(task)
        if not by_tenant:
            return {}

        def read(connection: Connection) -> dict[tuple[str, str], Target]:
            found: dict[tuple[str, str], Target] = {}
            c = task_webhook.c
            for tenant, names in by_tenant.items():
                for start in range(0, len(names), CHUNK):
                    some = select(c.task, c.target).where(
                        (c.tenant == tenant) & c.task.in_(names[start : start + CHUNK])
                    )
                    for row in connection.execute(some):
                        target = target_of(row.target)
                        assert target is not None
                        found[tenant, row.task] = target
            return found

        return await self._database.read(read)

    async def save(self, progress: Sequence[Progress], lease: Lease) -> None:
        """See `DeliveryStore`."""
        await self._database.write(lambda connection: self._save(connection, progress, lease))

    def _save(self, connection: Connection, progress: Sequence[Progress], lease: Lease) -> None:
        check_lease(connection, lease)
        stored = self._locked(connection, [one.subscription for one in progress])
        moved, puts, drops, tasks = [], [], [], []
        for one in progress:
            there = stored.get(one.subscription)
            if there is None or there.epoch != one.epoch:
                continue
            moved.append(
                {
                    "the_id": one.subscription,
                    "new_cursor": max(one.cursor, there.cursor),
                    "new_delivered": one.delivered if one.delivered is not None else there.delivered,
                    "new_failed": one.failed if one.failed is not None else there.failed,
                    "new_failure": one.failure if one.failed is not None else there.failure,
                }
            )
            puts += [delivery_row(one.subscription, row, self._keep) for row in one.put]
            named = {"the_tenant": there.tenant, "the_subscription": there.id}
            drops += [{**named, "the_seq": seq} for seq in one.drop]
            tasks += [{"the_tenant": tenant, "the_task": task} for tenant, task in one.tasks]
        for statement, rows in (
            (self._advance, moved),
            (self._put, puts),
            (self._drop, drops),
            (self._forget, tasks),
        ):
            if rows:
                statement.run_many(connection, rows)
        for one in progress:
            there = stored.get(one.subscription)
            if there is not None and there.epoch == one.epoch and there.state == "active":
                self._pause(connection, there, one)

    def _locked(self, connection: Connection, ids: Sequence[str]) -> dict[str, Subscription]:
        found: dict[str, Subscription] = {}
        for start in range(0, len(ids), CHUNK):
            some = select(subscription).where(subscription.c.id.in_(ids[start : start + CHUNK]))
            rows = connection.execute(some.order_by(subscription.c.id).with_for_update()).mappings()
            found |= {row["id"]: subscription_of(row) for row in rows}
        return found

    def _pause(self, connection: Connection, there: Subscription, one: Progress) -> None:
        why: Why = one.pause
        if not why and any(row.letter is not None for row in one.put) and there.kind == "http":
            dead = deliveries_of(there) & (delivery.c.state == DEAD)
            if connection.execute(select(func.count()).select_from(delivery).where(dead)).scalar_one() >= self._letters:
                why = "letters"
        if not why:
            return
        self._changes.count(connection)
        now = self._database.now(connection)
        values = {"state": "paused", "why": why, "paused": now, "updated": now, "version": there.version + 1}
        connection.execute(update(subscription).where(subscription.c.id == there.id).values(values))
        paused = replace(there, **values)
        tell(connection, "subscription.paused", paused, now, BY)
