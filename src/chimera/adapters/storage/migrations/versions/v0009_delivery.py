"""Subscriptions to facts, dead letters, webhooks of tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "subscription",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("filters", sa.LargeBinary(), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("why", sa.String(length=16), nullable=False),
        sa.Column("paused", sa.Float(), nullable=True),
        sa.Column("secret", sa.String(length=160), nullable=False),
        sa.Column("key", sa.String(length=12), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("previous_until", sa.Float(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("delivered", sa.Float(), nullable=True),
        sa.Column("failed", sa.Float(), nullable=True),
        sa.Column("failure", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_subscription")),
    )
    op.create_index("ix_subscription_tenant_name", "subscription", ["tenant", "name"], unique=True)
    op.create_index("ix_subscription_id", "subscription", ["id"], unique=True)
    op.create_index("ix_subscription_key", "subscription", ["key"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("subscription", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first", sa.Float(), nullable=True),
        sa.Column("due", sa.Float(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=True),
        sa.Column("target", sa.LargeBinary(), nullable=True),
        sa.Column("letter", sa.String(length=40), nullable=True),
        sa.Column("died", sa.Float(), nullable=True),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("event", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "subscription", "seq", name=op.f("pk_delivery")),
    )
    _index("ix_delivery_tenant_letter", ["tenant", "letter"], "letter IS NOT NULL", unique=True)
    _index("ix_delivery_expires", ["expires"], "expires IS NOT NULL")
    op.create_table(
        "task_webhook",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("task", sa.String(length=40), nullable=False),
        sa.Column("target", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "task", name=op.f("pk_task_webhook")),
    )


def _index(name: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, "delivery", columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
