"""An audit log for tests: written, signed and verified as the platform does it, and damaged by SQL behind its back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from chimera.adapters.signing.ed25519 import Ed25519Signer, check_signature
from chimera.adapters.signing.files import FileOfCheckpoints, FolderArchive
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.schema.journal import audit_entry, journal_head
from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.checkpointer import Checkpointer
from chimera.immune.audit.model import AuditRecord, ChainedEntry, Head, canonical
from chimera.immune.audit.reading import verify
from chimera.immune.audit.settings import AuditSettings
from chimera.immune.audit.verify import Finding, Report
from chimera.kernel.leases import Lease
from chimera.testing.clock import ManualClock

KEEP_DAYS = 30.0


def record(number: int, **more: Any) -> AuditRecord:
    """The entry of a call; the same number gives the same entry."""
    values: dict[str, Any] = {
        "at": 1_000_000.0 + number,
        "tenant": "default" if number % 3 else "other",
        "actor": f"key:{number % 5}",
        "action": "agent:invoke",
        "resource": f"agents/a{number % 7}",
        "decision": "allow",
        "call": f"call_{number}",
    }
    return AuditRecord(**{**values, **more})


@dataclass
class AuditLog:
    """A log that can be written, signed, damaged and verified."""

    database: Database
    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    written: int = 0

    def __post_init__(self) -> None:
        """Make a key and the places beside the database."""
        self.store = AuditStorage(self.database)
        self.signer = Ed25519Signer("log.example/audit", bytes(range(32)))
        self.file = FileOfCheckpoints(self.folder / "checkpoints")
        self.archive = FolderArchive(self.folder / "archive")
        self.checkpointer = self.signed_by(self.signer)

    def signed_by(self, signer: Ed25519Signer) -> Checkpointer:
        """What makes checkpoints with another key, while the log's is trusted."""
        return Checkpointer(
            self.store,
            files=(self.file,),
            keys=(self.signer.public,),
            checker=check_signature,
            signer=signer,
            archive=self.archive,
            clock=self.clock,
            settings=AuditSettings(keep_days=KEEP_DAYS),
        )

    async def write(self, count: int) -> None:
        """Append so many entries."""
        await self.store.record([record(self.written + number) for number in range(1, count + 1)])
        self.written += count

    async def sign(self) -> None:
        """Make a checkpoint."""
        await self.checkpointer.step(None, now_at_once=True)

    async def sql(self, statement: str, **values: int) -> None:
        """Change the database without the platform; `:name` in the statement stands for a value."""
        for name, value in values.items():
            statement = statement.replace(f":{name}", str(value))

        def job(connection: Any) -> None:
            connection.exec_driver_sql(statement)

        await self.database.exclusive(job)

    async def set_head(self, seq: int, made: bytes) -> None:
        """Set the head of the log."""

        def job(connection: Any) -> None:
            connection.execute(journal_head.update().values(audit_seq=seq, audit_hash=made))

        await self.database.exclusive(job)

    async def rewrite(self, first: int) -> None:
        """Link all entries anew from `first` on, and set the head: what somebody does who knows how links are made."""
        ends: list[tuple[int, bytes]] = []

        def job(connection: Any) -> None:
            last, seq = GENESIS, 0
            for row in connection.execute(audit_entry.select().order_by(audit_entry.c.seq)).all():
                seq, last = row.seq, link(last, row.seq, row.entry) if row.seq >= first else row.hash
                connection.execute(audit_entry.update().where(audit_entry.c.seq == seq).values(hash=last))
            ends.append((seq, last))

        await self.database.exclusive(job)
        await self.set_head(*ends[-1])

    async def empty(self) -> None:
        """Remove all entries and checkpoints, as if nothing had ever been recorded."""
        await self.sql("DELETE FROM audit_entry")
        await self.sql("DELETE FROM audit_checkpoint")
        await self.set_head(0, GENESIS)

    async def verify(self, *, file: bool = True, **more: Any) -> Report:
        """Verify against the file of checkpoints too, unless told otherwise."""
        files = (("the file", self.file),) if file else ()
        return await verify(self.store, keys=(self.signer.public,), checker=check_signature, files=files, **more)

    async def findings(self, **more: Any) -> list[tuple[str, int, int | None]]:
        """What a verification finds: kind, first and last entry."""
        found: list[Finding] = list((await self.verify(**more)).findings)
        return [(one.kind, one.seq, one.until) for one in found]


class MemoryAudit:
    """The gateway's audit log in memory: `Audit` and `AuditStore`."""

    def __init__(self) -> None:
        """Start empty."""
        self.records: list[AuditRecord] = []
        self.recorded = asyncio.Event()
        self.error: Exception | None = None
        self._entries: list[ChainedEntry] = []
        self._checkpoints: list[Checkpoint] = []

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """See `Audit`; raises `error` where a test has set one."""
        if self.error is not None:
            raise self.error
        for given in records:
            kept, entry = canonical(given)
            head = await self.head()
            seq = head.seq + 1
            columns = (kept.tenant, kept.at, kept.actor, kept.action)
            made = link(head.hash, seq, entry)
            self._entries.append(ChainedEntry(seq=seq, hash=made, entry=msgspec.Raw(entry), columns=columns))
            self.records.append(kept)
            self.recorded.set()

    async def head(self) -> Head:
        """See `AuditStore`."""
        return Head(seq=len(self._entries), hash=self._entries[-1].hash if self._entries else GENESIS)

    async def first(self) -> int | None:
        """See `AuditStore`."""
        return 1 if self._entries else None

    async def entries(self, after: int, limit: int) -> list[ChainedEntry]:
        """See `AuditStore`."""
        return self._entries[after : after + limit]

    async def entries_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[ChainedEntry]:
        """See `AuditStore`."""
        mine = [one for one in self._entries if one.columns and tenant in (None, one.columns[0])]
        if after is not None:
            return [one for one in mine if one.seq > after][:limit]
        return [one for one in reversed(mine) if before is None or one.seq < before][:limit]

    async def checkpoints(self, after: int, limit: int) -> list[Checkpoint]:
        """See `AuditStore`."""
        return [one for one in self._checkpoints if one.size > after][:limit]

    async def last_checkpoint(self, at_most: int | None = None) -> Checkpoint | None:
        """See `AuditStore`."""
        return next((one for one in reversed(self._checkpoints) if at_most is None or one.size <= at_most), None)

    async def add_checkpoint(self, checkpoint: Checkpoint, lease: Lease | None = None) -> None:
        """See `AuditStore`."""
        self._checkpoints = sorted([*self._checkpoints, checkpoint], key=lambda one: one.size)

    async def unarchived(self, before: float) -> tuple[Checkpoint | None, Checkpoint | None]:
        """See `AuditStore`: nothing is ever archived."""
        return None, None

    async def mark_archived(self, size: int, lease: Lease) -> None:
        """See `AuditStore`."""
