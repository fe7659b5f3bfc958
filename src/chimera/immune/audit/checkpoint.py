"""Checkpoints: how long the log was, and what was in it, signed by a key that the database doesn't hold.

The signed text is that of C2SP tlog-checkpoint, three lines, so that any tool for transparency logs reads it:

    <origin: the log's name>
    <number of entries>
    <base64 of the Merkle tree's root>

A stored checkpoint carries more beside the note: the frontier at its size, from which a verification or a proof can go
on, and the link of its last entry. Neither needs a signature. The frontier folds to the signed root or it is refused. A
wrong last link makes the next entry fail to link, and what it could hide the next root would show.
"""

import base64
import binascii
from collections.abc import Sequence

from msgspec import Struct

from chimera.immune.audit import note as notes
from chimera.immune.audit.chain import GENESIS
from chimera.immune.audit.errors import InvalidNote, UntrustedCheckpoint
from chimera.immune.audit.merkle import HASH_SIZE, Frontier
from chimera.immune.audit.note import Checker, PublicKey, Signer


class TreeHead(Struct, frozen=True, kw_only=True):
    """What a checkpoint says: `size` entries of the log `origin` have this Merkle root."""

    origin: str
    size: int
    root: bytes


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A signed checkpoint as it is stored, copied and exported. `at` is when it was made (seconds since the epoch)."""

    size: int
    at: float
    last: bytes
    frontier: tuple[bytes, ...]
    note: str

    def resume(self) -> Frontier:
        """The tree at its size; raises `InvalidNote` where the frontier is not the signed root's."""
        try:
            made = Frontier(self.size, self.frontier)
        except ValueError as error:
            raise InvalidNote(f"the checkpoint of {self.size} entries is damaged: {error}") from None
        if made.root() != head_of(self).root:
            raise InvalidNote(f"the checkpoint of {self.size} entries is damaged: its frontier is not of its root")
        return made


def text_of(head: TreeHead) -> str:
    """The text that is signed."""
    return f"{notes.check_name(head.origin)}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def parse_text(text: str) -> TreeHead:
    """What a checkpoint's text says; lines after the third are passed over (C2SP). Raises `InvalidNote`."""
    lines = text.split("\n")
    if len(lines) >= 4 and lines[-1] == "" and all(lines[:-1]):
        origin, size, root = lines[:3]
        try:
            raw = base64.b64decode(root.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raw = b""
        if len(raw) == HASH_SIZE and size.isascii() and size.isdigit() and str(int(size[:20])) == size:
            return TreeHead(origin=origin, size=int(size), root=raw)
    raise InvalidNote(f"this is no checkpoint: {text[:100]!r}", next_step="give the text of a checkpoint, unchanged")


def head_of(checkpoint: Checkpoint) -> TreeHead:
    """What a checkpoint's note says, whoever has signed it."""
    return parse_text(notes.parse(checkpoint.note)[0])


def make(tree: Frontier, *, last: bytes, at: float, signer: Signer) -> Checkpoint:
    """The signed checkpoint of `tree`, whose last entry's link is `last`; the key's name is the log's."""
    head = TreeHead(origin=signer.public.name, size=tree.size, root=tree.root())
    note = notes.sign(text_of(head), signer)
    return Checkpoint(size=tree.size, at=at, last=last, frontier=tuple(tree.hashes), note=note)


def check(checkpoint: Checkpoint, keys: Sequence[PublicKey], checker: Checker) -> TreeHead:
    """What a checkpoint says, once its signature, size and frontier are checked.

    Raises `UntrustedCheckpoint` where none of `keys` signed it, `InvalidNote` where it isn't one.
    """
    for key in keys:
        text = notes.open_note(checkpoint.note, key, checker)
        if text is not None:
            break
    else:
        raise UntrustedCheckpoint(
            f"the checkpoint of {checkpoint.size} entries is not signed by {', '.join(key.name for key in keys)}",
            next_step="see that this is the log's public key; else somebody has forged the checkpoint",
        )
    head = parse_text(text)
    if (head.origin, head.size) != (key.name, checkpoint.size):
        raise UntrustedCheckpoint(
            f"the checkpoint says it is of {checkpoint.size} entries of {key.name}; "
            f"signed are {head.size} of {head.origin}",
            next_step="somebody has altered the checkpoint",
        )
    checkpoint.resume()
    if len(checkpoint.last) != HASH_SIZE or (checkpoint.size == 0 and checkpoint.last != GENESIS):
        raise InvalidNote(f"the checkpoint of {checkpoint.size} entries is damaged: its last link is none")
    return head
