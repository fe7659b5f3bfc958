"""Keys, grants of roles, policies and tenants.

Each row has the `sequence` of its last change, from one counter for all four, which is how gateways follow them. Lists
are texts joined by spaces: no scope, role or agent's name holds one. What is taken away leaves its row, without roles
or text, for gateways that follow.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, Text

from chimera.adapters.storage.schema.base import metadata

api_key = Table(
    "api_key",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("roles", Text, nullable=False),
    Column("scopes", Text),
    Column("agents", Text),
    Column("created", Float, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Column("rotated", Float),
    Column("previous", LargeBinary),
    Column("previous_until", Float),
    Column("last_used", Float),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_api_key_id", "id", unique=True),
    Index("ix_api_key_sequence", "sequence"),
)

role_grant = Table(
    "role_grant",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("principal", String(128), primary_key=True),
    Column("roles", Text, nullable=False),
    Column("updated", Float, nullable=False),
    Column("by", String(128), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_role_grant_sequence", "sequence"),
)

policy = Table(
    "policy",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("text", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Column("by", String(128), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_policy_sequence", "sequence"),
)

tenant = Table(
    "tenant",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("by", String(128), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("ix_tenant_sequence", "sequence"),
)
