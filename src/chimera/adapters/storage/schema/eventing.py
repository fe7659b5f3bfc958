"""Events that start agents: what became of those that no agent took, and the messages that agents send each other.

A dead letter of an agent holds the event as it came, so that it can be replayed when nothing else has it any more; so
it has a table beside `delivery`, whose dead letters are facts of the journal. `replays` counts how often a letter of
the same event was sent again, which gives each attempt at it a task of its own.

A message's `content` is what one agent said to another, as JSON with whom it answers and where its own reply goes. The
event that tells of it names it and holds nothing of it. `subject` is the person whom the conversation is for.
"""

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, String, Table, text

from chimera.adapters.storage.schema.base import metadata

agent_letter = Table(
    "agent_letter",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("letter", String(40), primary_key=True),
    Column("agent", String(63), nullable=False),
    Column("subscription", String(63), nullable=False),
    Column("task", String(40)),
    Column("attempts", Integer, nullable=False),
    Column("replays", Integer, nullable=False),
    Column("first", Float),
    Column("died", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("reason", String(200), nullable=False),
    Column("event", LargeBinary, nullable=False),
    Index("ix_agent_letter_expires", "expires"),
)

message = Table(
    "message",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("message", String(40), primary_key=True),
    Column("sender", String(63), nullable=False),
    Column("receiver", String(63), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("subject", String(200)),
    Index("ix_message_expires", "expires"),
    Index(
        "ix_message_tenant_subject",
        "tenant",
        "subject",
        sqlite_where=text("subject IS NOT NULL"),
        postgresql_where=text("subject IS NOT NULL"),
    ),
)
