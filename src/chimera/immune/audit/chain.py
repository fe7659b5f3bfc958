"""The rule that links entries of the audit log: each hash covers its place, its entry and the hash before it.

Fields are length-prefixed, so that no two lists of fields give the same bytes, and begin with a domain, so that no hash
of another kind (a leaf or node of the Merkle tree, a checkpoint) can be taken for a link. The domain carries the
format's version: another format has another domain.

The chain alone shows where somebody has touched an entry and nothing more: whoever can write the database can also
compute all links again. That is what signed checkpoints are for (`checkpoint`).
"""

import hashlib

_DOMAIN = b"chimera audit entry v1"

GENESIS = bytes(32)
"""The hash before the first entry."""

_PREFIX = len(_DOMAIN).to_bytes(8, "big") + _DOMAIN + (32).to_bytes(8, "big")
_EIGHT = (8).to_bytes(8, "big")


def link(previous: bytes, seq: int, entry: bytes) -> bytes:
    """The hash of an entry: SHA-256 over the length-prefixed domain, previous hash, place and entry.

    Args:
        previous: The hash of the entry before it, 32 bytes; `GENESIS` for the first.
        seq: Its place, counted from 1.
        entry: Its canonical bytes (`model.canonical`).
    """
    length = len(entry).to_bytes(8, "big")
    return hashlib.sha256(b"".join((_PREFIX, previous, _EIGHT, seq.to_bytes(8, "big"), length, entry))).digest()
