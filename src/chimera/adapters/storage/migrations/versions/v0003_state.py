"""Sessions, shared state, runs and steps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Give sessions a person, a time to live and a size; make the tables."""
    op.add_column("session", sa.Column("created", sa.Float(), nullable=False, server_default="0"))
    op.add_column("session", sa.Column("incarnation", sa.String(length=16), nullable=False, server_default="0"))
    op.add_column("session", sa.Column("subject", sa.String(length=200), nullable=True))
    op.add_column("session", sa.Column("ttl", sa.Float(), nullable=True))
    op.add_column("session", sa.Column("expires", sa.Float(), nullable=True))
    op.add_column("session", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_session_expires", "session", ["expires"], unique=False)
    op.create_index("ix_session_tenant_subject", "session", ["tenant", "subject"], unique=False)
    op.create_table(
        "run",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("session", sa.String(length=128), nullable=True),
        sa.Column("subject", sa.String(length=200), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("keyed", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", name=op.f("pk_run")),
    )
    op.create_index("ix_run_expires", "run", ["expires"], unique=False)
    op.create_index("ix_run_tenant_agent_session", "run", ["tenant", "agent", "session"], unique=False)
    op.create_index("ix_run_tenant_subject", "run", ["tenant", "subject"], unique=False)
    op.create_table(
        "run_holder",
        sa.Column("holder", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("holder", name=op.f("pk_run_holder")),
    )
    op.create_table(
        "step",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=200), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("output", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", "step", name=op.f("pk_step")),
    )
    op.create_table(
        "stored_answer",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", "key", "digest", name=op.f("pk_stored_answer")),
    )
    op.create_index("ix_stored_answer_expires", "stored_answer", ["expires"], unique=False)
    op.create_table(
        "checkpoint",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("scope", sa.String(length=140), nullable=False),
        sa.Column("thread", sa.String(length=128), nullable=False),
        sa.Column("namespace", sa.String(length=400), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.Column("parent", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "agent", "scope", "thread", "namespace", "checkpoint", name=op.f("pk_checkpoint")
        ),
    )
    op.create_table(
        "checkpoint_write",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("scope", sa.String(length=140), nullable=False),
        sa.Column("thread", sa.String(length=128), nullable=False),
        sa.Column("namespace", sa.String(length=400), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant",
            "agent",
            "scope",
            "thread",
            "namespace",
            "checkpoint",
            "task",
            "idx",
            name=op.f("pk_checkpoint_write"),
        ),
    )
    op.create_table(
        "space",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("space", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("declared", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "space", name=op.f("pk_space")),
    )
    op.create_index("ix_space_expires", "space", ["expires"], unique=False)
    op.create_table(
        "space_entry",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("space", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "space", "key", name=op.f("pk_space_entry")),
    )
    op.create_index("ix_space_entry_expires", "space_entry", ["expires"], unique=False)
