"""The Idempotency-Key that a rollout was asked for with."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column with its index."""
    op.add_column("rollout", sa.Column("key", sa.String(length=64), nullable=True))
    op.create_index("uq_rollout_key", "rollout", ["tenant", "key"], unique=True)
