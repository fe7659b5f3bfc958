"""Evidence of revisions: bills of materials and provenance."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "evidence",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.String(length=71), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("change", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision", "tenant"],
            ["revision.digest", "revision.tenant"],
            name=op.f("fk_evidence_revision"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "revision", "kind", "change", name=op.f("pk_evidence")),
    )
    op.create_index("ix_evidence_change", "evidence", ["tenant", "change", "kind", "version"], unique=False)
    op.create_index("ix_evidence_revision", "evidence", ["revision", "tenant"], unique=False)
