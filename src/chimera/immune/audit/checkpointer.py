"""Makes checkpoints: after so many entries, or so many seconds with at least one.

Before it signs, it checks every entry since the last checkpoint as a verification would, and that the log still begins
with what is signed already, there and in the file beside the database. A log that fails is not signed, so that a
checkpoint never blesses what was altered before it. The check and the tree cost microseconds an entry, each entry once.

One process does this, under a lease; were two to do it, both would make the same checkpoint.

A checkpoint is kept in the database first and in the file next. A crash in between leaves one that the file lacks; the
next pass adds it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chimera.immune.audit.chain import GENESIS, link
from chimera.immune.audit.checkpoint import Checkpoint, check, make
from chimera.immune.audit.errors import AuditAltered, UntrustedCheckpoint
from chimera.immune.audit.merkle import Frontier
from chimera.immune.audit.model import ChainedEntry
from chimera.immune.audit.note import Checker, PublicKey, Signer
from chimera.immune.audit.ports import Archive, CheckpointFile, CheckpointStore
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "audit-checkpoints"
PAGE = 5_000
_TICK = 1.0


@dataclass(slots=True)
class Progress:
    """What has happened so far, for metrics: entries signed, checkpoints made since the start, what failed last."""

    signed: int = 0
    made: int = 0
    archived: int = 0
    problem: str | None = None


class Checkpointer:
    """Makes checkpoints, and writes entries to the archive once they are old enough to be removed."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        files: Sequence[CheckpointFile],
        keys: Sequence[PublicKey],
        checker: Checker,
        signer: Signer | None,
        archive: Archive | None,
        clock: Clock,
        settings: AuditSettings,
    ) -> None:
        """Sign with `signer` (None: another machine signs; then this only checks, copies and archives).

        Without an archive no entry is ever old enough to be removed.
        """
        self._store = store
        self._files = files
        self._keys = keys
        self._checker = checker
        self._signer = signer
        self._archive = archive
        self._clock = clock
        self._settings = settings
        self._copied: Checkpoint | None = None
        self._since: float | None = None
        self.progress = Progress()

    async def run(self, lease: Lease) -> None:
        """Go on until cancelled. What fails is logged, and tried again a checkpoint's interval later."""
        await self.load()
        while True:
            pause = _TICK
            try:
                await self.step(lease)
                await self.archive(lease)
                self.progress.problem = None
            except ProblemError as error:
                self.progress.problem = error.detail
                extra = {"problem": error.detail, "next_step": error.next_step}
                log.error("no checkpoint of the audit log could be made", extra=extra)
                pause = self._settings.checkpoint_seconds
            await asyncio.sleep(pause)

    async def is_ours(self) -> bool:
        """Whether the log's last checkpoint, if it has one, is signed by a key known here; else others must go on."""
        last = await self._store.last_checkpoint()
        if last is None:
            return True
        try:
            check(last, self._keys, self._checker)
        except UntrustedCheckpoint as error:
            if self.progress.problem != error.detail:
                self.progress.problem = error.detail
                extra = {"problem": error.detail, "next_step": "give all control planes of a database one audit.key"}
                log.error("this process does not sign checkpoints of the audit log", extra=extra)
            return False
        return True

    async def load(self) -> None:
        """Find the last checkpoint that the files have."""
        self._copied = await asyncio.to_thread(self._last_copied)

    async def step(self, lease: Lease | None, *, now_at_once: bool = False) -> Checkpoint | None:
        """Make a checkpoint if one is due (or `now_at_once`, if there are entries), and copy what files lack.

        Raises `AuditAltered` where the log is not what was signed or linked.
        """
        head, last = await self._store.head(), await self._store.last_checkpoint()
        signed = 0 if last is None else last.size
        copied = self._copied
        if copied is not None and (copied.size > head.seq or copied.size > signed):
            raise AuditAltered(
                f"the file beside the database has a checkpoint of {copied.size} entries, the database has "
                f"{head.seq} entries and checkpoints of {signed}",
                next_step="run `chimera audit verify`; after a restore from a backup see the guide of the audit log",
            )
        made = None
        if self._signer is not None and head.seq > signed and (now_at_once or self._due(head.seq - signed)):
            made = await self._make(last, head.seq, self._signer)
            await self._store.add_checkpoint(made, lease)
            self.progress.made += 1
            self._since = None
        self.progress.signed = signed if made is None else made.size
        await self._copy()
        return made

    async def archive(self, lease: Lease) -> None:
        """Write entries to the archive that retention may then remove."""
        if self._archive is None or not self._settings.keep_days:
            return
        begin, end = await self._store.unarchived(self._clock.wall() - self._settings.keep_days * 86_400)
        if end is None:
            return
        first = 1 if begin is None else begin.size + 1
        segment = await asyncio.to_thread(self._archive.begin, first, end.size)
        try:
            place = first - 1
            while place < end.size:
                page = await self._store.entries(place, min(PAGE, end.size - place))
                if not page or page[0].seq != place + 1 or page[-1].seq != place + len(page):
                    raise AuditAltered(f"entry {place + 1} is missing", next_step="run `chimera audit verify`")
                await asyncio.to_thread(segment.write, page)
                place = page[-1].seq
            await asyncio.to_thread(segment.finish, end)
        except BaseException:
            await asyncio.to_thread(segment.discard)
            raise
        await self._store.mark_archived(end.size, lease)
        self.progress.archived = end.size

    def _due(self, fresh: int) -> bool:
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        return fresh >= self._settings.checkpoint_entries or now - self._since >= self._settings.checkpoint_seconds

    async def _make(self, last: Checkpoint | None, size: int, signer: Signer) -> Checkpoint:
        if last is not None:
            check(last, self._keys, self._checker)
        tree, place = await grown(self._store, last, size)
        return make(tree, last=place, at=self._clock.wall(), signer=signer)

    async def _copy(self) -> None:
        """Append to the files what they lack."""
        while self._files:
            after = 0 if self._copied is None else self._copied.size
            fresh = await self._store.checkpoints(after, PAGE)
            for one in fresh:
                check(one, self._keys, self._checker)
            if not fresh:
                return
            for file in self._files:
                await asyncio.to_thread(file.append, fresh)
            self._copied = fresh[-1]

    def _last_copied(self) -> Checkpoint | None:
        """The largest checkpoint that every file has, so that one that missed some gets them (again, harmlessly)."""
        found = None
        for number, file in enumerate(self._files):
            last = max(file.read(), key=lambda one: one.size, default=None)
            if last is None:
                return None
            check(last, self._keys, self._checker)
            if number == 0 or (found is not None and last.size < found.size):
                found = last
        return found


async def sign_while_held(checkpointer: Checkpointer, leases: Leases, owner: str, life: float) -> None:
    """Make checkpoints whenever this owner holds the lease; until cancelled."""
    await work_while_held(leases, LEASE, owner, life, lambda lease: sign(checkpointer, leases, lease))


async def sign(checkpointer: Checkpointer, leases: Leases, lease: Lease) -> None:
    """Make checkpoints under a lease that is held; until cancelled.

    Who finds a log that is signed by a key he doesn't know gives the lease back at once, each time he gets it, so that
    whoever has the key comes to it.
    """
    if await checkpointer.is_ours():
        await checkpointer.run(lease)
    await leases.release(lease)
    await asyncio.Event().wait()  # until the lease is taken anew


async def grown(
    store: CheckpointStore,
    begin: Checkpoint | None,
    size: int,
    each: Callable[[bytes], None] = lambda link: None,
) -> tuple[Frontier, bytes]:
    """The tree of `size` entries that goes on from a checkpoint, and the last link; every entry's link is checked.

    `each` is told every link. Raises `AuditAltered` at the first entry that is missing or not what was linked.
    """
    tree, last = (Frontier(), GENESIS) if begin is None else (begin.resume(), begin.last)
    while tree.size < size:
        page = await store.entries(tree.size, min(PAGE, size - tree.size))
        if not page:
            raise _altered(tree.size + 1, "is missing")
        # In a thread: the gateway answers calls meanwhile.
        last = await asyncio.to_thread(_grow, tree, last, page, each)
    return tree, last


def _grow(tree: Frontier, last: bytes, page: Sequence[ChainedEntry], each: Callable[[bytes], None]) -> bytes:
    for one in page:
        if one.seq != tree.size + 1:
            raise _altered(tree.size + 1, "is missing")
        last = link(last, one.seq, bytes(one.entry))
        if last != one.hash:
            raise _altered(one.seq, "is not what was linked")
        tree.append(last)
        each(last)
    return last


def _altered(seq: int, what: str) -> AuditAltered:
    return AuditAltered(f"entry {seq} of the audit log {what}", next_step="run `chimera audit verify`")
