"""What a job of upkeep is.

There are two shapes. Most rows go by a time in an index: one statement finds the first few and others remove them, in
one transaction (`Expiring`). What must be searched for (revisions, bundles, windows read by all) is found by reading,
without a lock; the transaction that removes it asks again whether something points to it, where that may have changed
(`Searched`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table

from chimera.platform.upkeep.model import Cursor

Key = tuple[Any, ...]
Floor = Callable[[Connection, float], int]
"""The place of the last fact that may go at a time, whatever its age."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expiring:
    """Removes what comes first by a time: `expire(connection, now, limit)` removes `limit` rows at most."""

    expire: Callable[[Connection, float, int], int]
    due: Callable[[Connection, float, int], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """Removes what a search has found: `find(connection, now, after)` reads, `remove` checks again what may change."""

    find: Callable[[Connection, float, Cursor], tuple[list[Key], Cursor | None]]
    remove: Callable[[Connection, float, Sequence[Key]], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A kind of rows. Those of the first of its `tables` are counted; `oldest` finds the time of the one to go first.

    `keep` is in seconds; None keeps for ever.
    """

    kind: str
    keep: float | None
    work: Expiring | Searched
    tables: tuple[Table, ...]
    oldest: Callable[[Connection], float | None]
    every: float = 0.0
