"""Sessions, shared state, runs and steps."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
