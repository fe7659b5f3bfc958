"""Rollouts and their members."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "rollout",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("by", sa.String(length=512), nullable=False),
        sa.Column("change", sa.String(length=40), nullable=True),
        sa.Column("content", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wanted", sa.String(length=8), nullable=False),
        sa.Column("asked_by", sa.String(length=512), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("policy", sa.LargeBinary(), nullable=False),
        sa.Column("agents", sa.Integer(), nullable=False),
        sa.Column("waves", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.Column("phases", sa.LargeBinary(), nullable=False),
        sa.Column("strengths", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_rollout")),
    )
    op.create_index(
        "ix_rollout_active",
        "rollout",
        ["created"],
        unique=False,
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_index("ix_rollout_change", "rollout", ["tenant", "change"], unique=False)
    op.create_index("ix_rollout_ended", "rollout", ["ended"], unique=False)
    op.create_table(
        "rollout_member",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("rollout", sa.String(length=40), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=True),
        sa.Column("before", sa.String(length=71), nullable=True),
        sa.Column("group", sa.String(length=64), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("objective", sa.LargeBinary(), nullable=False),
        sa.Column("cases", sa.String(length=8), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("doubted", sa.Integer(), nullable=False),
        sa.Column("strength", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "rollout"],
            ["rollout.tenant", "rollout.id"],
            name=op.f("fk_rollout_member_tenant_rollout"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "rollout", "place", name=op.f("pk_rollout_member")),
    )
    op.create_index("ix_rollout_member_agent", "rollout_member", ["tenant", "agent"], unique=False)
    op.create_index("ix_rollout_member_revision", "rollout_member", ["tenant", "revision"], unique=False)
