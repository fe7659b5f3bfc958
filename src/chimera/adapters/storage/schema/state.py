"""What outlives a call: sessions, unfinished and answered runs with their steps, checkpoints, answers, and spaces.

All that belongs to a run goes with it, and all that belongs to a session with that, each found by the start of a key.
A checkpoint's `scope` is the session or run that it belongs to, `thread` the name that its graph gives it there.
`bytes` are sizes as they were stored, so that limits need not read what they limit. `expires` is when a row counts as
gone (seconds since the epoch); it is removed by retention some time after. `revision` is the agent's revision that a
session or run is on; null where a release without sides wrote it.
"""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Table

from chimera.adapters.storage.schema.base import metadata

session = Table(
    "session",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("session", String(128), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("updated", Float, nullable=False),
    Column("created", Float, nullable=False, server_default="0"),
    Column("incarnation", String(16), nullable=False, server_default="0"),
    Column("subject", String(200)),
    Column("ttl", Float),
    Column("expires", Float),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("revision", String(71)),
    Index("ix_session_tenant_subject", "tenant", "subject"),
    Index("ix_session_expires", "expires"),
)

run = Table(
    "run",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("agent", String(63), nullable=False),
    Column("session", String(128)),
    Column("subject", String(200)),
    Column("status", String(16), nullable=False),
    Column("keyed", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("base", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("holder", String(64), nullable=False),
    Column("steps", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("answer", LargeBinary),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("revision", String(71)),
    Index("ix_run_tenant_agent_session", "tenant", "agent", "session"),
    Index("ix_run_tenant_subject", "tenant", "subject"),
    Index("ix_run_expires", "expires"),
)

run_holder = Table(
    "run_holder",
    metadata,
    Column("holder", String(64), primary_key=True),
    Column("until", Float, nullable=False),
)

step = Table(
    "step",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("step", String(200), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("output", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),
)

stored_answer = Table(
    "stored_answer",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("answer", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Index("ix_stored_answer_expires", "expires"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("scope", String(140), primary_key=True),
    Column("thread", String(128), primary_key=True),
    Column("namespace", String(400), primary_key=True),
    Column("checkpoint", String(64), primary_key=True),
    Column("parent", String(64)),
    Column("kind", String(32), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("run", String(64), nullable=False),
    Column("at", Float, nullable=False),
)

checkpoint_write = Table(
    "checkpoint_write",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("agent", String(63), primary_key=True),
    Column("scope", String(140), primary_key=True),
    Column("thread", String(128), primary_key=True),
    Column("namespace", String(400), primary_key=True),
    Column("checkpoint", String(64), primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("channel", String(200), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("path", String(400), nullable=False),
)

space = Table(
    "space",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("space", String(128), primary_key=True),
    Column("owner", String(80), nullable=False),
    Column("declared", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("expires", Float),
    Index("ix_space_expires", "expires"),
)

space_entry = Table(
    "space_entry",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("space", String(128), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("by", String(128), nullable=False),
    Column("updated", Float, nullable=False),
    Column("expires", Float),
    Index("ix_space_entry_expires", "expires"),
)
