"""Branches that the catalogue follows: the sources, the agents of each with what they should be, and pins.

A pin says which commit made a revision live. It belongs to an entry of the history, and goes with it. An agent has one
source. `git_hook` holds the signatures of webhooks that were taken, so that each is taken once.
"""

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, String, Table, Text

from chimera.adapters.storage.schema.base import metadata

git_source = Table(
    "git_source",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("name", String(63), primary_key=True),
    Column("spec", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("due", Float, nullable=False),
    Column("version", Integer, nullable=False),
    Index("ix_git_source_due", "due"),
)

git_agent = Table(
    "git_agent",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("source", String(63), nullable=False),
    Column("file", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("revision", String(71), nullable=False),
    Column("folder", Text),
    ForeignKeyConstraint(("tenant", "source"), ("git_source.tenant", "git_source.name"), ondelete="CASCADE"),
    Index("ix_git_agent_file", "tenant", "source", "file"),
)

git_pin = Table(
    "git_pin",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("source", String(63), nullable=False),
    Column("repository", Text, nullable=False),
    Column("commit", String(40), nullable=False),
    ForeignKeyConstraint(
        ("tenant", "agent", "sequence"), ("history.tenant", "history.agent", "history.sequence"), ondelete="CASCADE"
    ),
)

git_hook = Table(
    "git_hook",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("source", String(63), primary_key=True),
    Column("signature", String(100), primary_key=True),
    Column("at", Float, nullable=False),
    ForeignKeyConstraint(("tenant", "source"), ("git_source.tenant", "git_source.name"), ondelete="CASCADE"),
)
