"""What a route to a revision needs: the same columns for the live one of an agent and for those beside it."""

from typing import Any

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, String, Text


def route_columns() -> list[Column[Any]]:
    """Columns of one table; another gets its own."""
    return [
        Column("framework", String(16), nullable=False),
        Column("cell", String(120), nullable=False),
        Column("description", Text, nullable=False),
        Column("tags", Text, nullable=False),
        Column("protocols", Text, nullable=False),
        Column("model", String(128), nullable=False),
        Column("concurrency", Integer, nullable=False),
        Column("min_instances", Integer, nullable=False),
        Column("tokens_per_day", BigInteger),
        Column("usd_per_day", Float),
        Column("calls_per_minute", Integer),
        Column("unservable", Text),
        Column("subscriptions", LargeBinary),
    ]
