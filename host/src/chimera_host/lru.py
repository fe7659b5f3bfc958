"""What a host keeps loaded: entries in order of their last use, with bounds on their number and their idleness.

Pure bookkeeping, no clock and no input or output: times are passed in. An entry that is in use is never given up. The
entries are ordered by use, so one pass that looks for idle ones stops at the first that is not.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Entry(Generic[T]):
    """One kept value: how many use it, when it was last used, and how often."""

    value: T
    used_at: float
    users: int = 0
    uses: int = 0


@dataclass(slots=True)
class Lru(Generic[T]):
    """Values by key, least recently used first."""

    _entries: OrderedDict[str, Entry[T]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, Entry[T]]]:
        """Keys and entries, least recently used first; a copy, safe to change the cache by."""
        return iter(list(self._entries.items()))

    def __contains__(self, key: str) -> bool:
        """Whether `key` is kept."""
        return key in self._entries

    def newest(self, most: int) -> Iterator[tuple[str, Entry[T]]]:
        """At most so many keys and entries, most recently used first."""
        return islice(reversed(self._entries.items()), most)

    def peek(self, key: str) -> Entry[T] | None:
        """The entry, without counting as a use."""
        return self._entries.get(key)

    def add(self, key: str, value: T, now: float) -> Entry[T]:
        """Keep `value`, as just used."""
        if key in self._entries:
            raise ValueError(f"{key} is kept already")
        entry = self._entries[key] = Entry(value=value, used_at=now)
        return entry

    def take(self, key: str, now: float) -> Entry[T] | None:
        """Begin to use an entry; give it back with `release`."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.users += 1
            entry.uses += 1
            entry.used_at = now
            self._entries.move_to_end(key)
        return entry

    def touch(self, key: str, now: float) -> bool:
        """Count an entry as used now, which keeps it; whether it is there."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        entry.used_at = now
        self._entries.move_to_end(key)
        return True

    def release(self, key: str, now: float) -> None:
        """End a use; the end counts as a use too, so that a long call doesn't leave its agent idle at once."""
        entry = self._entries[key]
        if entry.users < 1:
            raise ValueError(f"{key} is not in use")
        entry.users -= 1
        entry.used_at = now
        self._entries.move_to_end(key)

    def drop_beyond(self, capacity: int) -> list[tuple[str, T]]:
        """Give up the least recently used until `capacity` are left, or only such that are in use."""
        surplus = len(self._entries) - capacity
        if surplus <= 0:
            return []
        free = (key for key, entry in self._entries.items() if not entry.users)
        chosen = [key for key, _ in zip(free, range(surplus), strict=False)]
        return [(key, self._entries.pop(key).value) for key in chosen]

    def drop_idle(self, before: float) -> list[tuple[str, T]]:
        """Give up all that were last used before a time."""
        chosen = []
        for key, entry in self._entries.items():
            if entry.used_at >= before:
                break
            if not entry.users:
                chosen.append(key)
        return [(key, self._entries.pop(key).value) for key in chosen]

    def drop_all(self) -> list[tuple[str, T]]:
        """Give up everything."""
        dropped = [(key, entry.value) for key, entry in self._entries.items()]
        self._entries.clear()
        return dropped
