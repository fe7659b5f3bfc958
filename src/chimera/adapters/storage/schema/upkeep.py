"""What became of each kind of rows that upkeep removes, and when it is looked through next."""

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, Text

from chimera.adapters.storage.schema.base import metadata

upkeep = Table(
    "upkeep",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("due", Float, nullable=False),
    Column("finished", Float),
    Column("seconds", Float, nullable=False),
    Column("removed", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("problem", Text),
    Column("rows", BigInteger),
    Column("bytes", BigInteger),
    Column("oldest", Float),
)
