"""What upkeep knows and says: kinds of rows, steps, measures, and the record of what became of each kind."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import Struct

Cursor: TypeAlias = tuple[Any, ...]
"""Where a kind's removal goes on within a pass. It spares looking twice at what is kept; losing it costs only that."""

START: Cursor = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of rows. `keep` is how long they stay (None: for ever), `every` how often they are looked through."""

    name: str
    keep: float | None
    every: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one transaction removed, the seconds that it took, and where to go on (None: the pass is over)."""

    removed: int
    seconds: float
    after: Cursor | None


class Record(Struct, frozen=True, kw_only=True):
    """What became of a kind so far, as it is stored. Times are seconds since the epoch.

    `due` is when it is looked through next, `seconds` how long the last pass took, `last` what it removed, `failures`
    how often it has failed since it last came to its end. `rows` and `bytes` are estimates; `oldest` is the time that
    decides over the row that goes first.
    """

    kind: str
    due: float = 0.0
    finished: float | None = None
    seconds: float = 0.0
    removed: int = 0
    last: int = 0
    failures: int = 0
    problem: str | None = None
    rows: int | None = None
    bytes: int | None = None
    oldest: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How much there is of a kind: rows and bytes, about, and the time that decides over the row that goes first."""

    rows: int
    bytes: int
    oldest: float | None


class KindStatus(Struct, frozen=True, kw_only=True):
    """A kind for people: its record, how long it is kept (None: for ever) and the age of its oldest row in seconds."""

    kind: str
    keep: float | None
    rows: int | None
    bytes: int | None
    oldest: float | None
    removed: int
    last: int
    finished: float | None
    seconds: float
    due: float | None
    failures: int
    problem: str | None


class UpkeepStatus(Struct, frozen=True, kw_only=True):
    """All kinds, and which process does the work now (None: nobody, or not known)."""

    kinds: list[KindStatus]
    worker: str | None = None


class UpkeepAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which kinds to work on now (none named: all); `dry_run`: only say what would go."""

    kinds: list[str] = []
    dry_run: bool = False


class UpkeepAnswer(Struct, frozen=True, kw_only=True):
    """What would go by kind, where that was asked (`most`: there may be more); else the kinds that are due now."""

    asked: list[str]
    at: float
    would_go: dict[str, int] | None = None
    most: int | None = None
