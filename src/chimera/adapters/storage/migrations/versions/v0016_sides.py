"""Two sides of an agent, what was seen of them, and which revision a session or a run is on."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make the tables and the columns."""
    op.create_table(
        "side",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("rollout", sa.String(length=40), nullable=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("until", sa.Float(), nullable=True),
        sa.Column("wanted", sa.Integer(), nullable=True),
        sa.Column("holding", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=100), nullable=False),
        sa.Column("framework", sa.String(length=16), nullable=False),
        sa.Column("cell", sa.String(length=120), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("protocols", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("min_instances", sa.Integer(), nullable=False),
        sa.Column("tokens_per_day", sa.BigInteger(), nullable=True),
        sa.Column("usd_per_day", sa.Float(), nullable=True),
        sa.Column("calls_per_minute", sa.Integer(), nullable=True),
        sa.Column("unservable", sa.Text(), nullable=True),
        sa.Column("subscriptions", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["cell"], ["cell.id"], name=op.f("fk_side_cell")),
        sa.ForeignKeyConstraint(
            ["revision", "tenant"], ["revision.digest", "revision.tenant"], name=op.f("fk_side_revision")
        ),
        sa.PrimaryKeyConstraint("tenant", "agent", "revision", name=op.f("pk_side")),
    )
    op.create_index("ix_side_revision", "side", ["revision", "tenant"], unique=False)
    op.create_index("ix_side_cell", "side", ["cell", "min_instances"], unique=False)
    op.create_index("ix_side_rollout", "side", ["tenant", "rollout"], unique=False)
    op.create_index(
        "ix_side_until",
        "side",
        ["until"],
        unique=False,
        sqlite_where=sa.text("until IS NOT NULL"),
        postgresql_where=sa.text("until IS NOT NULL"),
    )
    op.create_table(
        "observation",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("gateway", sa.String(length=40), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "place", name=op.f("pk_observation")),
    )
    op.create_index("ix_observation_at", "observation", ["at"], unique=False)
    op.add_column("session", sa.Column("revision", sa.String(length=71), nullable=True))
    op.add_column("run", sa.Column("revision", sa.String(length=71), nullable=True))
    op.add_column("history", sa.Column("change", sa.String(length=40), nullable=True))
    op.create_index(
        "ix_history_change",
        "history",
        ["tenant", "change"],
        unique=False,
        sqlite_where=sa.text("change IS NOT NULL"),
        postgresql_where=sa.text("change IS NOT NULL"),
    )
