"""The Idempotency-Key that a change was asked for with."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the column with its index."""
    op.add_column("change_request", sa.Column("key", sa.String(length=64), nullable=True))
    op.create_index("uq_change_request_key", "change_request", ["tenant", "key"], unique=True)
