"""The journal: facts and entries of the audit log, in the order in which their transactions committed.

`journal_head` has one row: the last places given, and the hash that the next entry of the audit log is linked to.
Whoever appends locks it until his transaction ends, so places have no gaps, and a reader that has seen place n finds
nothing below n later. Facts and entries live across tenants in one order each; the tenant is a column of theirs.
"""

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, String, Table

from chimera.adapters.storage.schema.base import metadata

journal_head = Table(
    "journal_head",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("event_seq", BigInteger, nullable=False),
    Column("audit_seq", BigInteger, nullable=False),
    Column("audit_hash", LargeBinary, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(40), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("type", String(128), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("at", Float, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("traceparent", String(64)),
    Column("causes", LargeBinary),
    Index("ix_event_tenant_seq", "tenant", "seq"),
)

audit_entry = Table(
    "audit_entry",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(63), nullable=False),
    Column("at", Float, nullable=False),
    Column("actor", String(512), nullable=False),
    Column("action", String(128), nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index("ix_audit_entry_tenant_seq", "tenant", "seq"),
)
