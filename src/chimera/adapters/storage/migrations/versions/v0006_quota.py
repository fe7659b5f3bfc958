"""Budgets leased to gateways, calls a minute, and the gateways that are alive."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables, and the row that grants and settlements lock."""
    op.create_table(
        "budget_slice",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("gateway", sa.String(length=40), nullable=False),
        sa.Column("granted_tokens", sa.BigInteger(), nullable=False),
        sa.Column("granted_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("used_tokens", sa.BigInteger(), nullable=False),
        sa.Column("used_nano_usd", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "agent", "day", "gateway", name=op.f("pk_budget_slice")),
    )
    op.create_index("ix_budget_slice_day", "budget_slice", ["day"], unique=False)
    op.create_table(
        "gateway_alive",
        sa.Column("gateway", sa.String(length=40), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", name=op.f("pk_gateway_alive")),
    )
    op.add_column("agent", sa.Column("calls_per_minute", sa.Integer(), nullable=True))
    op.execute("INSERT INTO counter (name, value) VALUES ('quota', 0)")
