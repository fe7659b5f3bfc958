"""Conditions: what each home last said of its cells and of itself."""

from sqlalchemy import Column, Float, String, Table, Text

from chimera.adapters.storage.schema.base import metadata

condition_record = Table(
    "condition_record",
    metadata,
    Column("place", String(128), primary_key=True),
    Column("tenant", String(63), primary_key=True),
    Column("subject", String(256), primary_key=True),
    Column("conditions", Text, nullable=False),
    Column("changed", Float, nullable=False),
)
