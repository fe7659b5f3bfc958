"""Subscriptions to facts, what could not be delivered yet or at all, and the webhooks of tasks.

A subscription's `cursor` says how far it is in the journal: every event up to it that the subscription wants was
delivered or has a row in `delivery`. A row is `pending` (it is tried again, or waits behind one of its subject), `dead`
(a dead letter, which holds its event, so that the journal need not) or `dropped` (by a person, while the cursor was
still before it). `version` counts a subscription's changes, `epoch` those that move its cursor.

A webhook's row goes once the end of its task is on its way, or dead. Where that never happens, it is `gone` with its
task: the place up to which the journal may tell of the task.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, text

from chimera.adapters.storage.schema.base import metadata

subscription = Table(
    "subscription",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("url", String(2048), nullable=False),
    Column("filters", LargeBinary, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("state", String(8), nullable=False),
    Column("why", String(16), nullable=False),
    Column("paused", Float),
    Column("secret", String(160), nullable=False),
    Column("key", String(12), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("previous_until", Float),
    Column("version", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("updated", Float, nullable=False),
    Column("delivered", Float),
    Column("failed", Float),
    Column("failure", String(200)),
    Index("ix_subscription_tenant_name", "tenant", "name", unique=True),
    Index("ix_subscription_id", "id", unique=True),
    Index("ix_subscription_key", "key"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("subscription", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first", Float),
    Column("due", Float),
    Column("status", Integer),
    Column("reason", String(200)),
    Column("target", LargeBinary),
    Column("letter", String(40)),
    Column("died", Float),
    Column("expires", Float),
    Column("event", LargeBinary),
    Index(
        "ix_delivery_tenant_letter",
        "tenant",
        "letter",
        unique=True,
        sqlite_where=text("letter IS NOT NULL"),
        postgresql_where=text("letter IS NOT NULL"),
    ),
    Index(
        "ix_delivery_expires",
        "expires",
        sqlite_where=text("expires IS NOT NULL"),
        postgresql_where=text("expires IS NOT NULL"),
    ),
)

task_webhook = Table(
    "task_webhook",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("task", String(40), primary_key=True),
    Column("target", LargeBinary, nullable=False),
    Column("gone", BigInteger),
    Index(
        "ix_task_webhook_gone",
        "gone",
        sqlite_where=text("gone IS NOT NULL"),
        postgresql_where=text("gone IS NOT NULL"),
    ),
)
