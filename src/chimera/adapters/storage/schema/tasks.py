"""Long work, queued durably: tasks, and the workers that have taken some.

The queue is the rows whose `lane` is not null, in an index of their own: a lane is an agent's tasks of one priority,
and the index finds the next lane, and the front of a lane, by one seek each. Waiting tasks are found by when they are
due, unfinished ones by their deadline and their worker, finished ones by when they are removed. Each index holds only
rows of its kind, so that a hundred thousand finished tasks cost the queue nothing.

A worker has one row, so that it says that it lives by one write, however many tasks it has.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table, text

from chimera.adapters.storage.schema.base import metadata

task = Table(
    "task",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("task", String(40), primary_key=True),
    Column("agent", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("due", Float),
    Column("max_attempts", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("worker", String(40), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("cancelling", Integer, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("expires", Float),
    Column("session", String(128)),
    Column("subject", String(200)),
    Column("actor", String(128), nullable=False),
    Column("history", LargeBinary, nullable=False),
    Column("problem", LargeBinary),
    Column("lane", String(80)),
    Column("key", LargeBinary),
    Column("digest", LargeBinary, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("progress", LargeBinary),
    Column("progressed", Float, nullable=False),
    Column("result", LargeBinary),
    Column("origin", LargeBinary),
    Index(
        "ix_task_queue",
        "tenant",
        "lane",
        "task",
        sqlite_where=text("lane IS NOT NULL"),
        postgresql_where=text("lane IS NOT NULL"),
    ),
    Index("ix_task_due", "due", sqlite_where=text("due IS NOT NULL"), postgresql_where=text("due IS NOT NULL")),
    Index(
        "ix_task_deadline",
        "deadline",
        sqlite_where=text("finished IS NULL"),
        postgresql_where=text("finished IS NULL"),
    ),
    Index("ix_task_worker", "worker", sqlite_where=text("worker <> ''"), postgresql_where=text("worker <> ''")),
    Index(
        "ix_task_expires",
        "expires",
        sqlite_where=text("expires IS NOT NULL"),
        postgresql_where=text("expires IS NOT NULL"),
    ),
    Index(
        "ix_task_key",
        "tenant",
        "key",
        unique=True,
        sqlite_where=text("key IS NOT NULL"),
        postgresql_where=text("key IS NOT NULL"),
    ),
    Index("ix_task_tenant_agent_task", "tenant", "agent", "task"),
    Index(
        "ix_task_tenant_subject",
        "tenant",
        "subject",
        sqlite_where=text("subject IS NOT NULL"),
        postgresql_where=text("subject IS NOT NULL"),
    ),
)

task_worker = Table(
    "task_worker",
    metadata,
    Column("worker", String(40), primary_key=True),
    Column("expires", Float, nullable=False),
)
