"""The first schema: catalogue, cells, bundles, batches, sessions, usage."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batch",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=True),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_batch")),
    )
    op.create_index("ix_batch_key", "batch", ["tenant", "key"], unique=True)
    op.create_table(
        "bundle",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("requirements", sa.String(length=71), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "tenant", name=op.f("pk_bundle")),
    )
    op.create_table(
        "cell",
        sa.Column("id", sa.String(length=120), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("runtime_class", sa.LargeBinary(), nullable=False),
        sa.Column("target", sa.Float(), nullable=False),
        sa.Column("idle_timeout", sa.Float(), nullable=False),
        sa.Column("max_hosts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cell")),
    )
    op.create_table(
        "counter",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counter")),
    )
    op.create_table(
        "history",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "agent", "sequence", name=op.f("pk_history")),
    )
    op.create_table(
        "revision",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("version", sa.String(length=100), nullable=False),
        sa.Column("canonical", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "tenant", name=op.f("pk_revision")),
    )
    op.create_table(
        "session",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("session", sa.String(length=128), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "agent", "session", name=op.f("pk_session")),
    )
    op.create_table(
        "usage",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("usd", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "agent", "model", "day", name=op.f("pk_usage")),
    )
    op.create_table(
        "agent",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=False),
        sa.Column("version", sa.String(length=100), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
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
        sa.Column("unservable", sa.Text(), nullable=True),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("compiler", sa.String(length=16), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["cell"], ["cell.id"], name=op.f("fk_agent_cell")),
        sa.ForeignKeyConstraint(
            ["revision", "tenant"], ["revision.digest", "revision.tenant"], name=op.f("fk_agent_revision_tenant")
        ),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_agent")),
    )
    op.create_index("ix_agent_cell", "agent", ["cell", "min_instances"], unique=False)
    op.create_index("ix_agent_revision", "agent", ["revision", "tenant"], unique=False)
    op.create_index("ix_agent_sequence", "agent", ["sequence"], unique=False)
    op.create_table(
        "batch_item",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("batch", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=True),
        sa.Column("revision", sa.String(length=71), nullable=True),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("facts", sa.LargeBinary(), nullable=True),
        sa.Column("problem", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant", "batch"],
            ["batch.tenant", "batch.id"],
            name=op.f("fk_batch_item_tenant_batch"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "batch", "position", name=op.f("pk_batch_item")),
    )
    op.execute("INSERT INTO counter (name, value) VALUES ('sequence', 0)")
