"""The sides of agents beside the live one, and what was seen of calls on them.

A row of `side` is a revision that an agent has beside its live one, with all that a route needs, as the table `agent`
has it for the live one. Its `role` is `green` (it is to be live; at most one), `kept` (it was live, and is kept warm
until `until`; at most one) or `withdrawn` (it was taken back, and gets no call; `cancelled` says that calls of it are
ended too). `wanted` and `holding` are what was loaded ahead (`chimera.delivery.sides.model.Standing`).

A change of a row counts up the `sequence` of its agent, so that gateways read it with the agent.

A row of `taken_back` is what became of a rollback that was asked for with an Idempotency-Key, whose digest `key` is. It
is written with the rollback and given again to the same key, so that a rollback whose answer was lost is done once.

A row of `observation` is what one gateway saw in one window, of all agents of a tenant that are rolled out; its place
is given under a lock of the counter of the same name, so that places are in the order of commits.
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
from chimera.adapters.storage.schema.routes import route_columns

GREEN, KEPT, WITHDRAWN = "green", "kept", "withdrawn"

side = Table(
    "side",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("revision", String(71), primary_key=True),
    Column("role", String(10), nullable=False),
    Column("rollout", String(40)),
    Column("weight", Integer, nullable=False),
    Column("since", Float, nullable=False),
    Column("until", Float),
    Column("wanted", Integer),
    Column("holding", Integer, nullable=False),
    Column("problem", Text),
    Column("cancelled", Integer, nullable=False),
    Column("version", String(100), nullable=False),
    *route_columns(),
    ForeignKeyConstraint(("revision", "tenant"), ("revision.digest", "revision.tenant")),
    ForeignKeyConstraint(("cell",), ("cell.id",)),
    Index("ix_side_revision", "revision", "tenant"),
    Index("ix_side_cell", "cell", "min_instances"),
    Index("ix_side_rollout", "tenant", "rollout"),
    Index("ix_side_until", "until", sqlite_where=text("until IS NOT NULL"), postgresql_where=text("until IS NOT NULL")),
)

taken_back = Table(
    "taken_back",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("done", LargeBinary, nullable=False),
    Column("expires", Float, nullable=False),
    Index("ix_taken_back_expires", "expires"),
)

observation = Table(
    "observation",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("gateway", String(40), nullable=False),
    Column("at", Float, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("ix_observation_at", "at"),
)
