"""A tenant's bus: the platform's own subscription by which events reach the agents that they start.

It is made in the transaction that applies the tenant's first agent that takes events, or keeps the first message to one
that is not live yet, with the journal's last place, so that no event between the agent and it is missed. Who applies
has no key that deliveries belong to: it is nobody's until a process that delivers adopts it, as it does one whose key
no process delivers under any more.
"""

from sqlalchemy import ColumnElement, Connection, and_, exists, or_, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.rows import Changes, subscription_row
from chimera.adapters.storage.schema.leases import lease
from chimera.adapters.storage.schema.subscriptions import subscription
from chimera.events.delivery.model import BUS, Subscription
from chimera.kernel.ids import new_id

BY = "system:control-plane"
NAME = f"{BUS}:"
"""Its name, which nobody else's can be: a colon is in it."""


def lease_name(key: str) -> str:
    """The lease under which one process delivers what belongs to a key."""
    return f"delivery-{key}"


class BusRows:
    """The statements that make buses and take them over, compiled for a database."""

    def __init__(self, database: Database) -> None:
        """Compile them."""
        self._changes = Changes(database)
        self._make = database.prepared_insert(subscription, database.insert(subscription).on_conflict_do_nothing())

    def open(self, connection: Connection, tenant: str, after: int, now: float) -> None:
        """See to it that the tenant has one, which begins behind a place of the journal."""
        mine = (subscription.c.tenant == tenant) & (subscription.c.name == NAME)
        if connection.execute(select(subscription.c.id).where(mine)).one_or_none() is not None:
            return
        made = Subscription(
            id=new_id("sub"),
            tenant=tenant,
            name=NAME,
            kind=BUS,
            url="",
            key="",
            cursor=after,
            created=now,
            created_by=BY,
            updated=now,
        )
        if self._make.run(connection, **subscription_row(made)) == 1:
            self._changes.count(connection)

    def adopt(self, connection: Connection, key: str, now: float) -> int:
        """Take over those that nobody delivers; how many that were."""
        changed = update(subscription).where(adoptable(key, now))
        return connection.execute(changed.values(key=key, version=subscription.c.version + 1)).rowcount


def adoptable(key: str, now: float) -> ColumnElement[bool]:
    """The condition of a bus that nobody delivers, and that is not the key's own."""
    held = exists().where(and_(lease.c.name == "delivery-" + subscription.c.key, lease.c.expires > now))
    nobodys = or_(subscription.c.key == "", ~held)
    return (subscription.c.kind == BUS) & (subscription.c.key != key) & nobodys
