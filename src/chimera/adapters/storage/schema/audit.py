"""Signed checkpoints of the audit log, and how far its entries may go.

A checkpoint's `document` is all of it as JSON (`chimera.immune.audit.checkpoint.Checkpoint`); `size` and `at` are there
to find it. `archived` says that the entries up to it are written to the archive, and so may be removed when their time
is over.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, LargeBinary, Table

from chimera.adapters.storage.schema.base import metadata

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("document", LargeBinary, nullable=False),
)
