"""Change requests and delivery policies."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_IN_FLIGHT = sa.text("ended IS NULL OR staged = 1")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "change_request",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("risk", sa.String(length=8), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("author_person", sa.String(length=512), nullable=False),
        sa.Column("repository", sa.Text(), nullable=True),
        sa.Column("commit", sa.String(length=64), nullable=True),
        sa.Column("content", sa.String(length=71), nullable=False),
        sa.Column("agents", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("staged", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_change_request")),
    )
    op.create_index(
        "ix_change_request_flight",
        "change_request",
        ["tenant", "id"],
        unique=False,
        sqlite_where=_IN_FLIGHT,
        postgresql_where=_IN_FLIGHT,
    )
    op.create_index("ix_change_request_ended", "change_request", ["ended"], unique=False)
    op.create_table(
        "change_item",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("change", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=True),
        sa.Column("before", sa.String(length=71), nullable=True),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("source", sa.String(length=64), nullable=False),
        *_of_change("change_item"),
        sa.PrimaryKeyConstraint("tenant", "change", "agent", name=op.f("pk_change_item")),
    )
    op.create_index("ix_change_item_agent", "change_item", ["tenant", "agent"], unique=False)
    op.create_index("ix_change_item_revision", "change_item", ["revision"], unique=False)
    op.create_table(
        "change_verdict",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("change", sa.String(length=40), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("check", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("agent", sa.String(length=63), nullable=True),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("next_step", sa.Text(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        *_of_change("change_verdict"),
        sa.PrimaryKeyConstraint("tenant", "change", "stage", "check", "number", name=op.f("pk_change_verdict")),
    )
    op.create_table(
        "change_approval",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("change", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("person", sa.String(length=512), nullable=False),
        sa.Column("decision", sa.String(length=8), nullable=False),
        sa.Column("content", sa.String(length=71), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        *_of_change("change_approval"),
        sa.PrimaryKeyConstraint("tenant", "change", "number", name=op.f("pk_change_approval")),
    )
    op.create_table(
        "delivery_policy",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("policy", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_delivery_policy")),
    )


def _of_change(table: str) -> tuple[sa.ForeignKeyConstraint]:
    name = op.f(f"fk_{table}_tenant_change")
    return (
        sa.ForeignKeyConstraint(
            ["tenant", "change"], ["change_request.tenant", "change_request.id"], name=name, ondelete="CASCADE"
        ),
    )
