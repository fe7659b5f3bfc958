"""Change requests on their way to production, and the tenants' delivery policies.

A change that is in flight has `ended` null, and an index holds only those, so that the pipeline's look costs what is in
flight and not what ever was. `record` is the rest of it as JSON, which nothing searches. The index of items by agent
finds changes that touch an agent; the one by revision says to upkeep which revisions a change still needs. The one by
`updated` is for whoever signs statements, and asks every few seconds which changes are newer than a time. `owner` names
the resource of a cluster that an item comes from. `key` is null unless the change was asked for with an
Idempotency-Key, whose digest it is.
"""

from sqlalchemy import Column, Float, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Table, Text, text

from chimera.adapters.storage.schema.base import metadata

change = Table(
    "change_request",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("risk", String(8), nullable=False),
    Column("title", Text, nullable=False),
    Column("author", String(128), nullable=False),
    Column("author_person", String(512), nullable=False),
    Column("repository", Text),
    Column("commit", String(64)),
    Column("content", String(71), nullable=False),
    Column("key", String(64)),
    Column("agents", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("ended", Float),
    Column("staged", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index(
        "ix_change_request_flight",
        "tenant",
        "id",
        sqlite_where=text("ended IS NULL OR staged = 1"),
        postgresql_where=text("ended IS NULL OR staged = 1"),
    ),
    Index("ix_change_request_ended", "ended"),
    Index("ix_change_request_updated", "updated"),
    Index("uq_change_request_key", "tenant", "key", unique=True),
)

change_item = Table(
    "change_item",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("change", String(40), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("revision", String(71)),
    Column("before", String(71)),
    Column("file", Text),
    Column("source", String(64), nullable=False),
    Column("owner", String(128)),
    ForeignKeyConstraint(("tenant", "change"), ("change_request.tenant", "change_request.id"), ondelete="CASCADE"),
    Index("ix_change_item_agent", "tenant", "agent"),
    Index("ix_change_item_revision", "revision"),
)

change_verdict = Table(
    "change_verdict",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("change", String(40), primary_key=True),
    Column("stage", String(16), primary_key=True),
    Column("check", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("agent", String(63)),
    Column("outcome", String(8), nullable=False),
    Column("detail", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(("tenant", "change"), ("change_request.tenant", "change_request.id"), ondelete="CASCADE"),
)

change_approval = Table(
    "change_approval",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("change", String(40), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("by", String(128), nullable=False),
    Column("person", String(512), nullable=False),
    Column("decision", String(8), nullable=False),
    Column("content", String(71), nullable=False),
    Column("at", Float, nullable=False),
    Column("roles", Text, nullable=False),
    Column("comment", Text, nullable=False),
    ForeignKeyConstraint(("tenant", "change"), ("change_request.tenant", "change_request.id"), ondelete="CASCADE"),
)

delivery_policy = Table(
    "delivery_policy",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("policy", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Column("by", String(128), nullable=False),
)
