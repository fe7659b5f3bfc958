"""The audit log and its checkpoints in the database.

Entries are appended by the journal alone, in the transaction of what they tell of; here they are read, and removed
when their time is over. Pages go by place, so a page costs the same wherever in the log it lies.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, func, select, true, update

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import check_lease
from chimera.adapters.storage.schema.audit import audit_checkpoint
from chimera.adapters.storage.schema.journal import audit_entry, journal_head
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.errors import UntrustedCheckpoint
from chimera.immune.audit.model import EXPIRE, AuditRecord, ChainedEntry, Head
from chimera.kernel.leases import Lease

_CHECKPOINT = msgspec.json.Decoder(Checkpoint)
_ENTRY = (
    *(audit_entry.c.seq, audit_entry.c.hash, audit_entry.c.entry),
    *(audit_entry.c.tenant, audit_entry.c.at, audit_entry.c.actor, audit_entry.c.action),
)


class AuditStorage:
    """The audit log on one database: the ports of `chimera.immune.audit.ports`, and the gateway's `Audit`."""

    def __init__(self, database: Database) -> None:
        """Compile the frequent statements for `database`."""
        self._database = database
        self._head = database.prepared(select(journal_head.c.audit_seq, journal_head.c.audit_hash))
        self._page = database.prepared(
            select(*_ENTRY)
            .where(audit_entry.c.seq > bindparam("after"))
            .order_by(audit_entry.c.seq)
            .limit(bindparam("most"))
        )

    async def record(self, records: Sequence[AuditRecord]) -> None:
        """Append entries; they are durable when it returns."""
        if not records:
            return

        def job(connection: Connection) -> None:
            found = journal(connection)
            for one in records:
                found.audit(one)

        await self._database.write(job)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """The end of the log."""
        row = await self._database.read(self._head.one, quick=True)
        assert row is not None, "the migration makes the head"
        return Head(seq=row[0], hash=bytes(row[1]))

    async def first(self) -> int | None:
        """The place of the first entry that is still there."""
        query = select(func.min(audit_entry.c.seq))
        return await self._database.read(lambda connection: connection.execute(query).scalar())

    async def entries(self, after: int, limit: int) -> list[ChainedEntry]:
        """Entries of all tenants after a place, in order."""
        return await self._database.read(
            lambda connection: [_entry(row) for row in self._page.all(connection, after=after, most=limit)]
        )

    async def entries_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> list[ChainedEntry]:
        """Entries of a tenant (None: of all): after a place in order, or else backwards from a place or the end."""
        where: ColumnElement[bool] = true() if tenant is None else audit_entry.c.tenant == tenant
        if after is not None:
            query = select(*_ENTRY).where(where & (audit_entry.c.seq > after)).order_by(audit_entry.c.seq)
        else:
            if before is not None:
                where &= audit_entry.c.seq < before
            query = select(*_ENTRY).where(where).order_by(audit_entry.c.seq.desc())
        return await self._database.read(
            lambda connection: [_entry(row) for row in connection.execute(query.limit(limit)).all()]
        )

    async def checkpoints(self, after: int, limit: int) -> list[Checkpoint]:
        """Checkpoints of more than `after` entries, smallest first."""
        return await self._checkpoints(
            _CHECKPOINTS.where(audit_checkpoint.c.size > after).order_by(audit_checkpoint.c.size).limit(limit)
        )

    async def last_checkpoint(self, at_most: int | None = None) -> Checkpoint | None:
        """The largest checkpoint, of no more than `at_most` entries."""
        query = _CHECKPOINTS if at_most is None else _CHECKPOINTS.where(audit_checkpoint.c.size <= at_most)
        found = await self._checkpoints(query.order_by(audit_checkpoint.c.size.desc()).limit(1))
        return found[0] if found else None

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    async def add_checkpoint(self, checkpoint: Checkpoint, lease: Lease | None = None) -> None:
        """Keep a checkpoint whose signature was checked.

        Raises `UntrustedCheckpoint` where another one of its size is there, `LeaseLost` where `lease` is another's.
        """
        put = self._database.insert(audit_checkpoint).on_conflict_do_nothing()
        row = {
            "size": checkpoint.size,
            "at": checkpoint.at,
            "archived": False,
            "document": msgspec.json.encode(checkpoint),
        }

        def job(connection: Connection) -> None:
            if lease is not None:
                check_lease(connection, lease)
            connection.execute(put.values(row))
            query = _CHECKPOINTS.where(audit_checkpoint.c.size == checkpoint.size)
            kept = _CHECKPOINT.decode(connection.execute(query).scalars().one())
            if kept.frontier != checkpoint.frontier:
                raise UntrustedCheckpoint(
                    f"there is another checkpoint of {checkpoint.size} entries", next_step="run `chimera audit verify`"
                )

        await self._database.write(job)

    async def unarchived(self, before: float) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The last archived checkpoint, and the newest made before a time (None unless it is beyond that one)."""
        table = audit_checkpoint.c
        last = await self._checkpoints(_CHECKPOINTS.where(table.archived).order_by(table.size.desc()).limit(1))
        due = await self._checkpoints(_CHECKPOINTS.where(table.at < before).order_by(table.size.desc()).limit(1))
        begin, end = (last[0] if last else None), (due[0] if due else None)
        return begin, (None if end is None or (begin is not None and end.size <= begin.size) else end)

    async def mark_archived(self, size: int, lease: Lease) -> None:
        """Note that the entries up to a checkpoint are in the archive, and so may be removed."""

        def job(connection: Connection) -> None:
            check_lease(connection, lease)
            connection.execute(update(audit_checkpoint).where(audit_checkpoint.c.size <= size).values(archived=True))

        await self._database.write(job)

    async def _checkpoints(self, query: Select[Any]) -> list[Checkpoint]:
        rows = await self._database.read(lambda connection: connection.execute(query).scalars().all())
        return [_CHECKPOINT.decode(row) for row in rows]


def expire(connection: Connection, now: float, limit: int, *, keep: float) -> int:
    """Remove at most `limit` entries older than `keep` seconds that a checkpoint covers and the archive holds.

    The largest such checkpoint is where the log begins from then on: its frontier lets the rest be verified. The first
    removal up to a checkpoint leaves an entry that says so, without which a verification takes the gap for damage.
    Checkpoints stay, also those before. `now` is in seconds since the epoch; returns how many entries were removed.
    """
    found = _removable(connection, now, keep)
    if found is None:
        return 0
    first, through = found
    last = min(through, first + limit - 1)
    removed = connection.execute(delete(audit_entry).where(audit_entry.c.seq <= last)).rowcount
    journal(connection).audit(
        AuditRecord(
            at=now,
            tenant="",
            actor="system:retention",
            action=EXPIRE,
            resource="audit",
            outcome="done",
            detail={"from": first, "last": last, "through": through, "removed": removed},
        )
    )
    return removed


def removable(connection: Connection, now: float, most: int, *, keep: float) -> int:
    """How many entries `expire` would remove, up to `most`."""
    found = _removable(connection, now, keep)
    return 0 if found is None else min(most, found[1] - found[0] + 1)


def _removable(connection: Connection, now: float, keep: float) -> tuple[int, int] | None:
    """The first entry, and the last one that may go."""
    table = audit_checkpoint.c
    due = select(func.max(table.size)).where(table.archived & (table.at < now - keep))
    through = connection.execute(due).scalar()
    first = connection.execute(select(func.min(audit_entry.c.seq))).scalar()
    return None if through is None or first is None or first > through else (int(first), int(through))


_CHECKPOINTS: Select[Any] = select(audit_checkpoint.c.document)


def _entry(row: Sequence[Any]) -> ChainedEntry:
    seq, made, record, tenant, at, actor, action = row
    columns = (tenant, at, actor, action)
    return ChainedEntry(seq=seq, hash=bytes(made), entry=msgspec.Raw(record), columns=columns)
