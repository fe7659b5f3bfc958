"""Runs of agents' own tests with their results, and the environments that are made for tests and for staging."""

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, String, Table, Text

from chimera.adapters.storage.schema.base import metadata

environment = Table(
    "environment",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("key", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("closed", Float),
)
trial_run = Table(
    "trial_run",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("by", String(128), nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("expires", Float),
    Column("agents", Integer, nullable=False),
    Column("untested", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("passed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("problem", Text),
    Column("candidates", LargeBinary, nullable=False),
    Index("uq_trial_run_tenant_key", "tenant", "key", unique=True),
)
Index(
    "ix_trial_run_unfinished",
    trial_run.c.run,
    sqlite_where=trial_run.c.expires.is_(None),
    postgresql_where=trial_run.c.expires.is_(None),
)
Index("ix_trial_run_expires", trial_run.c.expires)
trial_result = Table(
    "trial_result",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("case", String(500), primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("data", LargeBinary, nullable=False),
)
