"""Whose the agents are that changes and rollouts carry, and which resource of a cluster a rollout belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the columns, and the index of rollouts by resource."""
    op.add_column("change_item", sa.Column("owner", sa.String(128), nullable=True))
    op.add_column("rollout_member", sa.Column("owner", sa.String(128), nullable=True))
    op.add_column("rollout", sa.Column("resource", sa.String(128), nullable=True))
    op.add_column("rollout", sa.Column("attempt", sa.Integer(), nullable=True))
    op.create_index(
        "ix_rollout_resource",
        "rollout",
        ["tenant", "resource"],
        unique=False,
        sqlite_where=sa.text("resource IS NOT NULL"),
        postgresql_where=sa.text("resource IS NOT NULL"),
    )
