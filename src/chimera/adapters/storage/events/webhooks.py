"""The webhooks of tasks: a row for each until its last fact is on its way, and a tenant's subscription that tells them.

The subscription is the platform's own, one for each tenant and signing key, made with the first webhook. Its name can't
be anybody's, since a colon is in it.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.rows import Changes, encoded_target, subscription_row
from chimera.adapters.storage.removing import Keys, is_one_of
from chimera.adapters.storage.schema.journal import journal_head
from chimera.adapters.storage.schema.subscriptions import subscription, task_webhook
from chimera.events.delivery.model import TASKS, Subscription
from chimera.gateway.tasks.model import Submission
from chimera.kernel.ids import new_id

BY = "system:gateway"


class WebhookRows:
    """The statements that keep webhooks, compiled for a database."""

    def __init__(self, database: Database) -> None:
        """Compile them."""
        self._changes = Changes(database)
        self._put = database.prepared_insert(task_webhook)
        self._subscribe = database.prepared_insert(subscription, database.insert(subscription).on_conflict_do_nothing())

    def put(self, connection: Connection, tasks: Sequence[Submission], now: float) -> None:
        """Keep the webhooks of tasks that are being accepted, which each have one."""
        rows, wanted = [], set()
        for one in tasks:
            assert one.webhook is not None
            rows.append({"tenant": one.tenant, "task": one.task, "target": encoded_target(one.webhook), "gone": None})
            wanted.add((one.tenant, one.webhook.key))
        if not rows:
            return
        self._put.run_many(connection, rows)
        # Whatever is told of these tasks comes behind this place: it is recorded in this transaction, or later.
        last = int(connection.execute(select(journal_head.c.event_seq)).scalar_one())
        for tenant, key in sorted(wanted):
            made = Subscription(
                id=new_id("sub"),
                tenant=tenant,
                name=f"{TASKS}:{key}",
                kind="tasks",
                url="",
                key=key,
                cursor=last,
                created=now,
                created_by=BY,
                updated=now,
            )
            if self._subscribe.run(connection, **subscription_row(made)) == 1:
                self._changes.count(connection)

    def forget(self, connection: Connection, tenant: str, tasks: Sequence[str]) -> None:
        """Tell nothing more of tasks that are erased."""
        its = (task_webhook.c.tenant == tenant) & task_webhook.c.task.in_(tasks)
        connection.execute(delete(task_webhook).where(its))


def leave_webhooks(connection: Connection, tasks: Keys) -> None:
    """Note that `tasks` (tenants and ids) are gone: what the journal tells of them it has told up to now."""
    last = select(journal_head.c.event_seq).scalar_subquery()
    its = is_one_of(connection, (task_webhook.c.tenant, task_webhook.c.task), tasks)
    connection.execute(update(task_webhook).where(its).values(gone=last))
