"""What agents used of models: sums by agent, model and day."""

from sqlalchemy import BigInteger, Column, Float, String, Table

from chimera.adapters.storage.schema.base import metadata

usage = Table(
    "usage",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("usd", Float),
)
