"""What checkpoints and verification need from outside."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.model import ChainedEntry, Head
from chimera.kernel.leases import Lease


class Log(Protocol):
    """Entries and checkpoints to be read: the database, the API, or an exported file."""

    async def head(self) -> Head | None:
        """The end of the log; None where nothing says it."""

    async def first(self) -> int | None:
        """The place of the first entry that is there."""

    async def entries(self, after: int, limit: int) -> Sequence[ChainedEntry]:
        """Entries of all tenants after a place, in order."""

    async def checkpoints(self, after: int, limit: int) -> Sequence[Checkpoint]:
        """Checkpoints of more than `after` entries, smallest first."""


class CheckpointStore(Log, Protocol):
    """Where checkpoints are kept beside the log."""

    async def head(self) -> Head:
        """The end of the log."""

    async def last_checkpoint(self, at_most: int | None = None) -> Checkpoint | None:
        """The largest checkpoint, of no more than `at_most` entries."""

    async def add_checkpoint(self, checkpoint: Checkpoint, lease: Lease | None = None) -> None:
        """Keep one; raises `UntrustedCheckpoint` where another of its size is kept."""

    async def unarchived(self, before: float) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The last archived checkpoint, and the newest made before a time, where it is beyond that one."""

    async def mark_archived(self, size: int, lease: Lease) -> None:
        """Note that the entries up to a checkpoint are in the archive."""


class CheckpointFile(Protocol):
    """A place outside the database where checkpoints are appended, and never changed."""

    def read(self) -> Iterator[Checkpoint]:
        """All of them; none where nothing is there yet. Raises `InvalidNote` for what can't be read."""

    def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Add some; they are on the disk when it returns."""


class Archive(Protocol):
    """Where entries are written before they are removed from the database."""

    def begin(self, first: int, last: int) -> "Segment":
        """A segment for the entries of these places."""


class Segment(Protocol):
    """A part of the archive that is being written."""

    def write(self, entries: Sequence[ChainedEntry]) -> None:
        """Add entries."""

    def finish(self, checkpoint: Checkpoint) -> None:
        """Close it with the checkpoint that vouches for it; it is on the disk, whole, when it returns."""

    def discard(self) -> None:
        """Give up what is not finished."""
