"""A Merkle tree over the entries of the audit log (RFC 6962), kept as its frontier.

A tree of n leaves is the complete trees of the binary digits of n, side by side. Their roots, largest first, are the
frontier: all that is needed to append (O(log n) hashes at worst, two on average) and to compute the root. So a
checkpoint of a billion entries carries at most 30 hashes, and whoever holds it can go on from there without the
entries before.

The leaf of an entry is its link (`chain.link`), whose place and contents it covers. Leaves and inner nodes are hashed
with different prefixes, so that neither can be taken for the other.

Proofs need hashes of subtrees. Those to the left of a frontier's place are in the frontier; the others are computed
from the leaves after it, in one pass (`Subtrees`). A proof that begins at a checkpoint so costs the entries after that
checkpoint, however long the log is.
"""

import hashlib
from collections.abc import Iterable, Sequence

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256().digest()
"""The root of a tree without leaves."""

Range = tuple[int, int]
"""Leaves from the first index up to but without the second."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: SHA-256 of a zero byte and the leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of a one byte and its children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The tree's state: how many leaves, and the roots of its complete subtrees, largest first."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Go on from a frontier; ValueError unless there is one hash for each binary one of `size`."""
        self.size = size
        self.hashes = list(hashes)
        if size < 0 or len(self.hashes) != size.bit_count() or any(len(one) != HASH_SIZE for one in self.hashes):
            raise ValueError(f"a frontier of {size} leaves has {max(size, 0).bit_count()} hashes of {HASH_SIZE} bytes")

    def append(self, data: bytes) -> None:
        """Add a leaf."""
        made, size, hashes = leaf_hash(data), self.size, self.hashes
        while size & 1:
            made = node_hash(hashes.pop(), made)
            size >>= 1
        hashes.append(made)
        self.size += 1

    def root(self) -> bytes:
        """The root of the whole tree."""
        return _fold(self.hashes)

    def copy(self) -> "Frontier":
        """Another one of the same state."""
        return Frontier(self.size, self.hashes)

    def subtrees(self) -> list[tuple[int, int, bytes]]:
        """Its complete subtrees: first index, height (a leaf has 0), hash."""
        found, start = [], 0
        heights = [height for height in reversed(range(self.size.bit_length())) if self.size >> height & 1]
        for height, made in zip(heights, self.hashes, strict=True):
            found.append((start, height, made))
            start += 1 << height
        return found


class Subtrees:
    """Computes the hashes of several disjoint ranges of leaves in one pass over subtrees and leaves."""

    def __init__(self, ranges: Iterable[Range], begin: Frontier) -> None:
        """The ranges wanted, and a frontier from which `append` goes on."""
        self._wanted = list(ranges)
        self._open = sorted(self._wanted, reverse=True)
        self._stack: list[tuple[int, bytes]] = []
        self._done: dict[Range, bytes] = {}
        self._next = 0
        for start, height, made in begin.subtrees():
            self._put(start, height, made)

    @property
    def size(self) -> int:
        """How many leaves it has seen; the next to append has this index."""
        return self._next

    def append(self, data: bytes) -> None:
        """The next leaf."""
        self._put(self._next, 0, leaf_hash(data))

    def hashes(self) -> list[bytes]:
        """The hashes in the order in which the ranges were given. Raises ValueError while leaves lack."""
        if len(self._done) != len(self._wanted):
            raise ValueError(f"leaves from {self._next} on are needed")
        return [self._done[wanted] for wanted in self._wanted]

    def _put(self, start: int, height: int, made: bytes) -> None:
        self._next = start + (1 << height)
        if not self._open or start < self._open[-1][0]:
            return
        low, high = self._open[-1]
        if self._next > high:
            raise ValueError(f"the frontier's subtree at {start} holds more than the range {low} to {high}")
        stack = self._stack
        while stack and stack[-1][0] == height:
            made = node_hash(stack.pop()[1], made)
            height += 1
        stack.append((height, made))
        if self._next == high:
            self._done[self._open.pop()] = _fold([one for _, one in stack])
            stack.clear()


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose hashes prove that a leaf is in the tree of `size` leaves (RFC 6962, 2.1.1), lowest first."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    low, high, found = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            found.append((middle, high))
            high = middle
        else:
            found.append((low, middle))
            low = middle
    return found[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """The subtrees whose hashes prove that the tree of `new` leaves begins with that of `old` (RFC 6962, 2.1.2)."""
    if not 0 < old <= new:
        raise ValueError(f"no proof leads from {old} leaves to {new}")
    low, high, found, whole = 0, new, [], True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            found.append((middle, high))
            high = middle
        else:
            found.append((low, middle))
            low, whole = middle, False
    if not whole:
        found.append((low, high))
    return found[::-1]


def root_of_inclusion(index: int, size: int, data: bytes, proof: Sequence[bytes]) -> bytes | None:
    """The root that a proof of inclusion leads to (RFC 9162, 2.1.3.2); None for a proof of a wrong length."""
    if not 0 <= index < size:
        return None
    number, last, made = index, size - 1, leaf_hash(data)
    for one in proof:
        if last == 0:
            return None
        if number & 1 or number == last:
            made = node_hash(one, made)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            made = node_hash(made, one)
        number, last = number >> 1, last >> 1
    return made if last == 0 else None


def is_consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree of `new` leaves begins with that of `old` (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    if not 0 < old < new or not proof:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first = second = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            first, second = node_hash(one, first), node_hash(one, second)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second = node_hash(second, one)
        number, last = number >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def _fold(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return EMPTY_ROOT
    made = hashes[-1]
    for one in hashes[-2::-1]:
        made = node_hash(one, made)
    return made
