"""Evidence of revisions: bills of materials and signed statements of provenance.

`data` is deflated: a bill has 15 to 30 KB, most of which are the packages of a runtime that thousands share. `change`
is empty where no change request brought the revision; `version` is the change's when it was signed. What is said of a
revision goes with it.
"""

from sqlalchemy import Column, Float, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Table

from chimera.adapters.storage.schema.base import metadata

evidence = Table(
    "evidence",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("revision", String(71), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("change", String(40), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(("revision", "tenant"), ("revision.digest", "revision.tenant"), ondelete="CASCADE"),
    Index("ix_evidence_change", "tenant", "change", "kind", "version"),
    Index("ix_evidence_revision", "revision", "tenant"),
)
