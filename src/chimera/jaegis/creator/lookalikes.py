"""Names that a person takes for each other: one edit apart, or the same to the eye.

Two names look alike where one letter is changed, left out, put in or swapped with its neighbour, or where they are the
same once hyphens are gone and letters that look alike are one (`0` and `o`, `1`, `i` and `l`, `rn` and `m`). Names that
differ in a number are a series, and meant (`worker-1`, `worker-2`). Short names aren't judged: they all are one edit
from another.

All known names stand in two arrays, by their lengths, aligned at their beginnings and at their ends. So one name is
compared with all of its length, and of one letter more or less, in a few operations on bytes: how far both agree from
the left and from the right says how many letters lie between.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SHORTEST = 6
_LONGEST = 120
_SAME = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "-": None, "_": None, " ": None, ".": None})


class Lookalikes:
    """Known names, ready to be asked which of them another name looks like."""

    def __init__(self, names: Iterable[str]) -> None:
        """Know `names`."""
        self._known = frozenset(name[:_LONGEST] for name in names if len(name) >= SHORTEST)
        self._names = sorted(self._known, key=lambda name: (len(name.encode()), name))
        encoded = [name.encode() for name in self._names]
        self._lengths = np.array([len(one) for one in encoded], np.int64)
        width = int(self._lengths.max(initial=0)) + 2
        self._left = _rows([one.ljust(width, b"\0") for one in encoded], width)
        self._right = _rows([one.rjust(width, b"\0") for one in encoded], width)
        self._width = width
        self._skeletons: dict[str, list[str]] = {}
        for name in self._names:
            self._skeletons.setdefault(skeleton(name), []).append(name)

    def of(self, name: str) -> str | None:
        """A known name that `name` looks like; None where there is none, or it is known itself."""
        return None if name in self._known else self.other(name)

    def other(self, name: str) -> str | None:
        """Another known name that `name` looks like, whether it is known itself or not."""
        if len(name) < SHORTEST:
            return None
        alike = [*self._skeletons.get(skeleton(name), ()), *self._one_edit(name)]
        return next((one for one in alike if one != name and not _numbered(name, one)), None)

    def _one_edit(self, name: str) -> list[str]:
        encoded = name.encode()
        length = len(encoded)
        if not self._names or length >= self._width:
            return []
        width = self._width
        first, last = np.searchsorted(self._lengths, (length - 1, length + 2))
        near, lengths = self._names[first:last], self._lengths[first:last]
        left = self._left[first:last] == np.frombuffer(encoded.ljust(width, b"\0"), np.uint8)
        right = self._right[first:last] == np.frombuffer(encoded.rjust(width, b"\0"), np.uint8)
        agree_left, agree_right = _leading(left), _leading(right[:, ::-1])
        shorter = np.minimum(lengths, length)
        agree = np.minimum(agree_left, shorter) + np.minimum(agree_right, shorter)
        same_length = lengths == length
        found = np.where(same_length, agree >= length - 1, agree >= shorter)
        for place in np.nonzero(same_length & (agree == length - 2))[0]:
            at = int(agree_left[place])
            other = near[place].encode()
            found[place] |= other[at : at + 2] == encoded[at : at + 2][::-1]
        return sorted(near[place] for place in np.nonzero(found)[0])


def skeleton(name: str) -> str:
    """What a name looks like at a glance."""
    return name.lower().translate(_SAME).replace("rn", "m").replace("vv", "w")


def _rows(encoded: list[bytes], width: int) -> Array:
    return np.frombuffer(b"".join(encoded), np.uint8).reshape(len(encoded), width)


def _leading(equal: Array) -> Array:
    """How many of each row are true before the first that isn't."""
    leading: Array = np.where(equal.all(axis=1), equal.shape[1], equal.argmin(axis=1))
    return leading


def _numbered(one: str, other: str) -> bool:
    """Whether two names differ in their digits alone, and in those as numbers do."""
    plain = str.maketrans("", "", "0123456789")
    return one.translate(plain) == other.translate(plain) and one != other
