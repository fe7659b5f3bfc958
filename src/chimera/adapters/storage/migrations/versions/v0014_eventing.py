"""Events that start agents: what agents subscribe to, what led to facts and tasks, dead letters of agents, messages."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("agent", sa.Column("subscriptions", sa.LargeBinary(), nullable=True))
    op.add_column("agent", sa.Column("events_since", sa.BigInteger(), nullable=True))
    op.add_column("event", sa.Column("causes", sa.LargeBinary(), nullable=True))
    op.add_column("task", sa.Column("origin", sa.LargeBinary(), nullable=True))
    op.create_table(
        "agent_letter",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("letter", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("subscription", sa.String(length=63), nullable=False),
        sa.Column("task", sa.String(length=40), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.Column("first", sa.Float(), nullable=True),
        sa.Column("died", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "letter", name=op.f("pk_agent_letter")),
    )
    op.create_index("ix_agent_letter_expires", "agent_letter", ["expires"], unique=False)
    op.create_table(
        "message",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("message", sa.String(length=40), nullable=False),
        sa.Column("sender", sa.String(length=63), nullable=False),
        sa.Column("receiver", sa.String(length=63), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "message", name=op.f("pk_message")),
    )
    op.create_index("ix_message_expires", "message", ["expires"], unique=False)
    op.create_index(
        "ix_message_tenant_subject",
        "message",
        ["tenant", "subject"],
        unique=False,
        sqlite_where=sa.text("subject IS NOT NULL"),
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
