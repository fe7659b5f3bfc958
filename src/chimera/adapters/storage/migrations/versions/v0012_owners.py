"""Which resource of a cluster an agent comes from, and the least hosts that a person wants of a cell."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column with its index, and the table."""
    op.add_column("agent", sa.Column("owner", sa.String(128), nullable=True))
    op.create_index(
        "ix_agent_owner",
        "agent",
        ["owner"],
        unique=False,
        sqlite_where=sa.text("owner IS NOT NULL"),
        postgresql_where=sa.text("owner IS NOT NULL"),
    )
    op.create_table(
        "cell_bound",
        sa.Column("cell", sa.String(length=120), nullable=False),
        sa.Column("least", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("cell", name=op.f("pk_cell_bound")),
    )
