"""Keys, roles, policies and tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables, and a tenant for each that has agents."""
    op.create_table(
        "api_key",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=True),
        sa.Column("agents", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.Column("rotated", sa.Float(), nullable=True),
        sa.Column("previous", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", sa.Float(), nullable=True),
        sa.Column("last_used", sa.Float(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_api_key")),
    )
    op.create_index("ix_api_key_id", "api_key", ["id"], unique=True)
    op.create_index("ix_api_key_sequence", "api_key", ["sequence"], unique=False)
    op.create_table(
        "role_grant",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "principal", name=op.f("pk_role_grant")),
    )
    op.create_index("ix_role_grant_sequence", "role_grant", ["sequence"], unique=False)
    op.create_table(
        "policy",
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_policy")),
    )
    op.create_index("ix_policy_sequence", "policy", ["sequence"], unique=False)
    tenant = op.create_table(
        "tenant",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tenant")),
    )
    op.create_index("ix_tenant_sequence", "tenant", ["sequence"], unique=False)
    agents = sa.table("agent", sa.column("tenant", sa.String))
    known = {row.tenant for row in op.get_bind().execute(sa.select(agents.c.tenant).distinct())} | {"default"}
    row = {"status": "active", "created": 0.0, "updated": 0.0, "by": "system:migration", "sequence": 0}
    op.bulk_insert(tenant, [{**row, "name": name} for name in sorted(known)])
