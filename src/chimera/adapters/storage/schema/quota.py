"""What agents used of models, the slices of their budgets that gateways hold, and the gateways that are alive.

A `day` of use is a day (UTC) as 2026-01-31, or a month as 2026-01, once upkeep has added its days up.
"""

from sqlalchemy import BigInteger, Column, Float, Index, String, Table

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
    Index("ix_usage_day", "day"),
)

budget_slice = Table(
    "budget_slice",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("gateway", String(40), primary_key=True),
    Column("granted_tokens", BigInteger, nullable=False),
    Column("granted_nano_usd", BigInteger, nullable=False),
    Column("used_tokens", BigInteger, nullable=False),
    Column("used_nano_usd", BigInteger, nullable=False),
    Index("ix_budget_slice_day", "day"),
)

gateway_alive = Table(
    "gateway_alive",
    metadata,
    Column("gateway", String(40), primary_key=True),
    Column("expires", Float, nullable=False),
)
