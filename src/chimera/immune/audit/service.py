"""What is asked of the audit log: its entries, proofs that they are in it, and checkpoints that another machine signs.

Every answer is bounded. A list looks at a few thousand entries at a time, whatever its filters are. A proof reads the
entries between two checkpoints, never the whole log.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from chimera.immune.audit.api import EntryPage, LogEnds, Proof, Proposal
from chimera.immune.audit.chain import GENESIS
from chimera.immune.audit.checkpoint import Checkpoint, TreeHead, check, text_of
from chimera.immune.audit.checkpointer import grown
from chimera.immune.audit.errors import AuditEntryNotFound, UntrustedCheckpoint
from chimera.immune.audit.merkle import Frontier, Subtrees, consistency_ranges, inclusion_ranges
from chimera.immune.audit.model import AuditRecord, ChainedEntry, decode
from chimera.immune.audit.note import Checker, PublicKey
from chimera.immune.audit.ports import CheckpointStore

SCAN = 5_000
"""Entries that a list looks at for one page."""
PAGE = 1_000
MOST_AT_ONCE = 2
"""Proofs and proposals that are worked out at once; others wait."""
MOST_SIGNED_AT_ONCE = 1_000_000
"""Entries after the last checkpoint that a proposal covers; the rest takes another."""


class AuditStore(CheckpointStore, Protocol):
    """The log as it is read."""

    async def entries_of(
        self, tenant: str | None, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Sequence[ChainedEntry]:
        """Entries of a tenant (None: of all): after a place in order, or backwards from a place or the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which entries are listed; None narrows nothing. `since` and `until` are seconds since the epoch."""

    actor: str | None = None
    action: str | None = None
    resource: str | None = None
    decision: str | None = None
    outcome: str | None = None
    call: str | None = None
    request: str | None = None
    since: float | None = None
    until: float | None = None

    def holds(self, record: AuditRecord) -> bool:
        """Whether an entry is wanted. A resource stands for what is below it too (`agents/a` for its sessions)."""
        for name in ("actor", "action", "decision", "outcome", "call", "request"):
            value = getattr(self, name)
            if value is not None and getattr(record, name) != value:
                return False
        if self.resource is not None and not (record.resource + "/").startswith(self.resource.rstrip("/") + "/"):
            return False
        return (self.since is None or record.at >= self.since) and (self.until is None or record.at < self.until)


class AuditService:
    """Answers what is asked of the log."""

    def __init__(self, store: AuditStore, keys: Sequence[PublicKey], checker: Checker) -> None:
        """Read `store`; checkpoints that come from elsewhere must be signed by one of `keys`."""
        self._working = asyncio.Semaphore(MOST_AT_ONCE)
        self._store = store
        self._keys = keys
        self._checker = checker

    async def page(self, tenant: str | None, wanted: Wanted, before: int | None, limit: int) -> EntryPage:
        """Entries newest first; looks at no more than `SCAN`."""
        rows = await self._store.entries_of(tenant, before=before, limit=SCAN)
        return await asyncio.to_thread(_page_of, rows, wanted, limit)

    async def export(self, tenant: str | None, after: int, limit: int | None) -> AsyncIterator[list[ChainedEntry]]:
        """All entries after a place, in order, up to the end that the log has at the start."""
        last, left = (await self._store.head()).seq, limit
        while after < last and (left is None or left > 0):
            most = PAGE if left is None else min(PAGE, left)
            rows = [one for one in await self._store.entries_of(tenant, after=after, limit=most) if one.seq <= last]
            if not rows:
                return
            yield [_shown(one) for one in rows]
            after = rows[-1].seq
            left = None if left is None else left - len(rows)

    async def ends(self) -> LogEnds:
        """Where the log begins and ends."""
        head = await self._store.head()
        return LogEnds(first=await self._store.first() or 0, last=head.seq, hash=head.hash)

    async def checkpoints(self, after: int, limit: int) -> Sequence[Checkpoint]:
        """Checkpoints, smallest first."""
        return await self._store.checkpoints(after, limit)

    async def proof(self, tenant: str | None, seq: int) -> Proof:
        """The proof that an entry is in the log, by the first checkpoint that covers it.

        Raises `AuditEntryNotFound`, also while no checkpoint covers the entry yet.
        """
        rows = await self._store.entries(seq - 1, 1)
        if not rows or rows[0].seq != seq or (tenant is not None and decode(rows[0].entry).tenant != tenant):
            raise AuditEntryNotFound(f"there is no entry {seq}", next_step="see `chimera audit list`")
        covering = await self._store.checkpoints(seq - 1, 1)
        if not covering:
            raise AuditEntryNotFound(
                f"no checkpoint covers entry {seq} yet", next_step="try again after the next checkpoint"
            )
        checkpoint = covering[0]
        begin = await self._store.last_checkpoint(seq - 1)
        tree, previous = (Frontier(), GENESIS) if begin is None else (begin.resume(), begin.last)
        subtrees = Subtrees(inclusion_ranges(seq - 1, checkpoint.size), tree)

        def each(link: bytes) -> None:
            nonlocal previous
            subtrees.append(link)
            if subtrees.size == seq - 1:
                previous = link

        async with self._working:
            await grown(self._store, begin, checkpoint.size, each)
        return Proof(entry=_shown(rows[0]), previous=previous, hashes=subtrees.hashes(), checkpoint=checkpoint)

    async def proposal(self, since: int | None) -> Proposal | None:
        """The next checkpoint to sign, beyond the last one and beyond `since`; None while there is nothing to sign.

        Raises `AuditEntryNotFound` where no checkpoint of `since` entries is known, `AuditAltered` where the log is not
        what was linked.
        """
        last = await self._store.last_checkpoint()
        if since is not None and (last is None or since != last.size):
            last = await self._store.last_checkpoint(since)
            if last is None or last.size != since:
                raise AuditEntryNotFound(
                    f"no checkpoint of {since} entries is kept here",
                    next_step="the log may have been set back: run `chimera audit verify`",
                )
        begin = 0 if last is None else last.size
        size = min((await self._store.head()).seq, begin + MOST_SIGNED_AT_ONCE)
        if size == begin:
            return None
        ranges = consistency_ranges(begin, size) if begin else []
        subtrees = Subtrees(ranges, Frontier() if last is None else last.resume())
        async with self._working:
            tree, link = await grown(self._store, last, size, subtrees.append)
        head = TreeHead(origin=self._keys[0].name if self._keys else "unnamed", size=size, root=tree.root())
        return Proposal(
            text=text_of(head),
            size=size,
            last=link,
            frontier=tuple(tree.hashes),
            since=begin,
            proof=subtrees.hashes(),
        )

    async def add(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint that was signed elsewhere.

        Raises `UntrustedCheckpoint` where it isn't signed by the log's key, or is not of this log.
        """
        signed = check(checkpoint, self._keys, self._checker)
        begin = await self._store.last_checkpoint(checkpoint.size)
        head = await self._store.head()
        if head.seq < signed.size or (begin is None and signed.size > MOST_SIGNED_AT_ONCE):
            raise UntrustedCheckpoint(
                f"the checkpoint is of {signed.size} entries, the log has {head.seq}",
                next_step="sign what `chimera audit checkpoint --sign` proposes",
            )
        async with self._working:
            tree, last = await grown(self._store, begin, signed.size)
        if tree.root() != signed.root or last != checkpoint.last:
            raise UntrustedCheckpoint(
                f"the checkpoint of {signed.size} entries is of another log", next_step="run `chimera audit verify`"
            )
        await self._store.add_checkpoint(checkpoint)


def _page_of(rows: Sequence[ChainedEntry], wanted: Wanted, limit: int) -> EntryPage:
    found: list[ChainedEntry] = []
    for number, one in enumerate(rows, start=1):
        if wanted.holds(decode(one.entry)):
            found.append(_shown(one))
            if len(found) == limit:
                return EntryPage(entries=found, next=one.seq if number < len(rows) or len(rows) == SCAN else None)
    return EntryPage(entries=found, next=rows[-1].seq if len(rows) == SCAN else None)


def _shown(one: ChainedEntry) -> ChainedEntry:
    return one if one.columns is None else msgspec.structs.replace(one, columns=None)
