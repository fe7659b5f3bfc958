"""What conversations carry from call to call."""

from sqlalchemy import BigInteger, Column, Float, LargeBinary, String, Table

from chimera.adapters.storage.schema.base import metadata

session = Table(
    "session",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("session", String(128), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("updated", Float, nullable=False),
)
