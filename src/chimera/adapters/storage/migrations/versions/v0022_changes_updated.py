"""Changes by when they were changed last: whoever signs statements asks for the newest every few seconds."""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_change_request_updated", "change_request", ["updated"])
