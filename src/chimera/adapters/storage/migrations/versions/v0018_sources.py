"""Branches that the catalogue follows."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "git_source",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("due", sa.Float(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_git_source")),
    )
    op.create_index("ix_git_source_due", "git_source", ["due"], unique=False)
    source = (["tenant", "source"], ["git_source.tenant", "git_source.name"])
    op.create_table(
        "git_agent",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=False),
        sa.Column("folder", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(*source, name=op.f("fk_git_agent_tenant_source"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "agent", name=op.f("pk_git_agent")),
    )
    op.create_index("ix_git_agent_file", "git_agent", ["tenant", "source", "file"], unique=False)
    op.create_table(
        "git_pin",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("commit", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "agent", "sequence"],
            ["history.tenant", "history.agent", "history.sequence"],
            name=op.f("fk_git_pin_tenant_agent_sequence"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "agent", "sequence", name=op.f("pk_git_pin")),
    )
    op.create_table(
        "git_hook",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("source", sa.String(length=63), nullable=False),
        sa.Column("signature", sa.String(length=100), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(*source, name=op.f("fk_git_hook_tenant_source"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "source", "signature", name=op.f("pk_git_hook")),
    )
