"""A dictionary that forgets what wasn't used for longest: the form that every bounded cache of the platform has."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most `most` entries; each operation takes constant time."""

    def __init__(self, most: int) -> None:
        """Hold `most` entries."""
        self._most = most
        self._held: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        """Entries held."""
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value of `key`, which counts as used."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Hold `value`, and forget the entry unused for longest where that is one too many."""
        self._held[key] = value
        self._held.move_to_end(key)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def drop(self) -> None:
        """Forget everything, in constant time: the old entries are freed with their dictionary."""
        self._held = OrderedDict()
