"""Rollouts and their members, the agents that they bring a change to.

A rollout that isn't over has `ended` null, and an index holds only those. `phases` and `strengths` count its members as
JSON, kept by whoever writes members, so that a list and a progress bar read one row. `wanted` and what goes with it is
written by people alone, everything else by the leader alone: neither overwrites the other. `key` is null unless the
rollout was asked for with an Idempotency-Key, whose digest it is.

`place` is a member's place in the order in which they are begun. `evidence` is what was seen of it so far: an array
whose fields may get more at its end, and no other meaning. The index of members by revision says to upkeep what is
still needed. A rollout that a resource of a cluster began names it (`namespace/name`) with the attempt that it is, and
members the resources that own them.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from chimera.adapters.storage.schema.base import metadata

rollout = Table(
    "rollout",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("title", Text, nullable=False),
    Column("by", String(512), nullable=False),
    Column("change", String(40)),
    Column("content", String(71), nullable=False),
    Column("key", String(64)),
    Column("resource", String(128)),
    Column("attempt", Integer),
    Column("state", String(16), nullable=False),
    Column("wanted", String(8), nullable=False),
    Column("asked_by", String(512), nullable=False),
    Column("asked", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("policy", LargeBinary, nullable=False),
    Column("agents", Integer, nullable=False),
    Column("waves", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("through", BigInteger, nullable=False),
    Column("phases", LargeBinary, nullable=False),
    Column("strengths", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("ended", Float),
    Column("version", Integer, nullable=False),
    Index("ix_rollout_active", "created", sqlite_where=text("ended IS NULL"), postgresql_where=text("ended IS NULL")),
    Index("ix_rollout_change", "tenant", "change"),
    Index("ix_rollout_ended", "ended"),
    Index("uq_rollout_key", "tenant", "key", unique=True),
    Index(
        "ix_rollout_resource",
        "tenant",
        "resource",
        sqlite_where=text("resource IS NOT NULL"),
        postgresql_where=text("resource IS NOT NULL"),
    ),
)

rollout_member = Table(
    "rollout_member",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("rollout", String(40), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("agent", String(63), nullable=False),
    Column("revision", String(71)),
    Column("before", String(71)),
    Column("group", String(64), nullable=False),
    Column("wave", Integer, nullable=False),
    Column("objective", LargeBinary, nullable=False),
    Column("cases", String(8), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("doubted", Integer, nullable=False),
    Column("strength", String(16)),
    Column("reason", Text, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("owner", String(128)),
    ForeignKeyConstraint(("tenant", "rollout"), ("rollout.tenant", "rollout.id"), ondelete="CASCADE"),
    Index("ix_rollout_member_agent", "tenant", "agent"),
    Index("ix_rollout_member_revision", "tenant", "revision"),
)
