"""Leases: which process does a piece of work that only one may do at a time. They are the platform's own."""

from sqlalchemy import BigInteger, Column, Float, String, Table

from chimera.adapters.storage.schema.base import metadata

lease = Table(
    "lease",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
)
