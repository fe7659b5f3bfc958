"""The audit log's bodies on the wire."""

from msgspec import Struct

from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.model import ChainedEntry


class EntryPage(Struct, frozen=True, kw_only=True):
    """Entries, newest first. With a `next` there may be more: ask again with `before` set to it.

    A page may hold fewer entries than asked for, even none, and still have a `next`: filters are applied to a bounded
    number of entries at a time.
    """

    entries: list[ChainedEntry]
    next: int | None


class LogEnds(Struct, frozen=True, kw_only=True):
    """Where the log begins and ends: its first entry still there (0: none), its last, and the last one's link."""

    first: int
    last: int
    hash: bytes


class CheckpointPage(Struct, frozen=True, kw_only=True):
    """Checkpoints, smallest first; `next` is the `after` of the next page."""

    checkpoints: list[Checkpoint]
    next: int | None


class Proof(Struct, frozen=True, kw_only=True):
    """That an entry is in the log: its link leads by `hashes` to the root that the checkpoint signs (RFC 6962).

    `previous` is the link before it, so that its own can be computed from what it says.
    """

    entry: ChainedEntry
    previous: bytes
    hashes: list[bytes]
    checkpoint: Checkpoint


class Proposal(Struct, frozen=True, kw_only=True):
    """A checkpoint to be signed elsewhere: the text to sign, what belongs to it, and why it may be signed.

    `proof` shows that the log still begins with the `since` entries that were signed before (RFC 6962 consistency).
    """

    text: str
    size: int
    last: bytes
    frontier: tuple[bytes, ...]
    since: int
    proof: list[bytes]
