"""Runs of agents' own tests with their results, and environments."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the tables and their indexes."""
    op.create_table(
        "environment",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("closed", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_environment")),
    )
    op.create_table(
        "trial_run",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("agents", sa.Integer(), nullable=False),
        sa.Column("untested", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("candidates", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", name=op.f("pk_trial_run")),
    )
    op.create_index("uq_trial_run_tenant_key", "trial_run", ["tenant", "key"], unique=True)
    unfinished = sa.text("expires IS NULL")
    op.create_index(
        "ix_trial_run_unfinished", "trial_run", ["run"], sqlite_where=unfinished, postgresql_where=unfinished
    )
    op.create_index("ix_trial_run_expires", "trial_run", ["expires"])
    op.create_table(
        "trial_result",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("case", sa.String(length=500), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", "agent", "case", name=op.f("pk_trial_result")),
    )
