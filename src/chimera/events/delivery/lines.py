"""The deliveries of one subscription: a line for each subject, and what of them must be written down; pure.

A line holds a subject's events in their order. Its first one is tried; the next one's turn comes when that was taken or
given up. So a subject that fails holds back its own later events and nobody else's.

What is on its way for the first time is written down nowhere: the cursor stays before it, and after a crash it is read
again. Once an attempt has failed, it and what waits behind it get rows, and the cursor goes on without them. What was
given up keeps its row as a dead letter. `changes` takes what is to be written, and `unsaved` gives it back where the
write failed. After a crash, cursor and rows say all: an event is over, has a row, or is behind the cursor.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.model import Outcome, Progress, Row, Target, Why
from chimera.events.delivery.rules import Again, Dead, Done, Stop, Verdict


class Moment(NamedTuple):
    """A time by both clocks: one that never goes back, and that of everybody."""

    steady: float
    wall: float


@dataclass(kw_only=True, slots=True, eq=False)
class Item:
    """One event in its line. `due` is by the steady clock; `last` says that it is its task's last.

    `holds` says that its row holds the event, since the journal may not have it any more.
    """

    entry: Entry
    target: Target | None = None
    last: bool = False
    attempts: int = 0
    first: Moment | None = None
    due: float = 0.0
    status: int | None = None
    reason: str | None = None
    row: bool = False
    holds: bool = False

    @property
    def seq(self) -> int:
        """Its place in the journal."""
        return self.entry.fact.seq


@dataclass(kw_only=True, slots=True, eq=False)
class Line:
    """The events of one subject. `owner` is what it belongs to: a line of one that was replaced counts no more.

    `busy`: its head is being sent; `queued`: it waits for its receiver.
    """

    owner: "Lines"
    key: tuple[str, str]
    items: deque[Item] = field(default_factory=deque)
    busy: bool = False
    queued: bool = False

    @property
    def head(self) -> Item:
        """The event whose turn it is."""
        return self.items[0]


class Lines:
    """All lines of one subscription."""

    def __init__(
        self, subscription: str, *, tenant: str, epoch: int, cursor: int, over: frozenset[int] = frozenset()
    ) -> None:
        """Go on behind `cursor`; `over` are places behind it that were dealt with before."""
        self.subscription = subscription
        self.tenant = tenant
        self.epoch = epoch
        self.taken = cursor
        self.stopped = False
        self._saved = cursor
        self._over = set(over)
        self._lines: dict[tuple[str, str], Line] = {}
        self._fresh: dict[int, None] = {}
        self._rows: set[int] = set()
        self._waiting = 0
        self._dirty: dict[int, Row | None] = {}
        self._tasks: list[tuple[str, str]] = []
        self._delivered: float | None = None
        self._failed: tuple[float, str] | None = None
        self._pause: Why = ""

    @property
    def outstanding(self) -> int:
        """Events that are on their way, or wait."""
        return len(self._fresh) + self._waiting

    @property
    def cursor(self) -> int:
        """The place up to which every event is over or has a row."""
        return next(iter(self._fresh)) - 1 if self._fresh else self.taken

    @property
    def unsaved_cursor(self) -> bool:
        """Whether the cursor has moved since it was written down."""
        return self.cursor != self._saved

    @property
    def rows(self) -> frozenset[int]:
        """The places of events that have a row as far as is known here."""
        return frozenset(self._rows)

    # -- what comes in -------------------------------------------------------------------------------------------------

    def take(self, entry: Entry, target: Target | None = None, *, last: bool = False) -> Line | None:
        """Add an event that is wanted, in the journal's order; its line where it is its turn at once."""
        seq = entry.fact.seq
        if seq in self._over or seq in self._rows or seq <= self.taken:
            return None
        line = self._line(entry)
        item = Item(entry=entry, target=target, last=last)
        behind = line.items[-1] if line.items else None
        line.items.append(item)
        self._fresh[seq] = None
        if behind is not None and behind.row:
            self._write(item)
        return line if behind is None else None

    def passed(self, seq: int) -> None:
        """All events up to `seq` were taken, or are not wanted."""
        self.taken = max(self.taken, seq)

    def ended_task(self, tenant: str, task: str) -> None:
        """The task's last fact is not wanted: its webhook is over."""
        self._tasks.append((tenant, task))

    def restore(self, row: Row, entry: Entry, now: Moment, *, most_wait: float) -> Line | None:
        """Add a stored delivery in its place; its line where that is ready now, and wasn't before."""
        if row.seq in self._rows:
            return None
        self._rows.add(row.seq)
        self._waiting += 1
        # Times of the wall clock are taken as spans, within bounds: it may have been set meanwhile.
        first = None
        if row.first is not None:
            first = Moment(now.steady - max(0.0, now.wall - row.first), row.first)
        wait = 0.0 if row.due is None else min(max(0.0, row.due - now.wall), most_wait)
        item = Item(
            entry=entry,
            target=row.target,
            attempts=row.attempts,
            first=first,
            due=now.steady + wait,
            status=row.status,
            reason=row.reason,
            row=True,
            holds=row.fact is not None,
        )
        line = self._line(entry)
        was_empty = not line.items
        if line.busy or was_empty or line.items[-1].seq < row.seq:
            place = next((n for n, one in enumerate(line.items) if n > 0 and one.seq > row.seq), len(line.items))
        else:
            place = next(n for n, one in enumerate(line.items) if one.seq > row.seq)
        line.items.insert(place, item)
        return line if was_empty or (place == 0 and not line.busy) else None

    def idle(self) -> list[Line]:
        """Lines of which nothing is being sent."""
        return [line for line in self._lines.values() if not line.busy]

    # -- what goes out -------------------------------------------------------------------------------------------------

    def begin(self, line: Line, now: Moment) -> Item:
        """The first of the line is being sent."""
        line.busy = True
        item = line.head
        item.attempts += 1
        item.first = item.first or now
        return item

    def settle(self, line: Line, verdict: Verdict, outcome: Outcome, now: Moment, *, letter: str) -> Line | None:
        """What came of it; the line where it goes on (see its head's `due`), or None where it is empty.

        `letter` is the id of the dead letter where it becomes one.
        """
        line.busy = False
        item = line.head
        item.status, item.reason = outcome.status, outcome.reason[:200] or None
        if isinstance(verdict, Done):
            self._delivered = now.wall
            self._remove(line, item)
        else:
            self._failed = (now.wall, item.reason or "")
            match verdict:
                case Again(wait=wait):
                    item.due = now.steady + wait
                    self._write(item, due=now.wall + wait)
                case Dead():
                    self._remove(line, item)
                    self._rows.add(item.seq)
                    self._dirty[item.seq] = self._row(item, None, letter=letter, died=now.wall)
                case Stop():
                    self.stopped, self._pause = True, "gone"
                    item.attempts -= 1
                    item.due = now.steady
                    self._write(item, due=now.wall)
            for other in line.items:
                if other is not item and not other.row:
                    self._write(other)
        if not line.items:
            del self._lines[line.key]
            return None
        return line

    # -- what is written down ------------------------------------------------------------------------------------------

    @property
    def is_dirty(self) -> bool:
        """Whether more than the cursor is to be written."""
        return bool(self._dirty or self._tasks or self._delivered or self._failed or self._pause)

    def changes(self) -> Progress:
        """What is to be written; from here on it counts as written."""
        failed, failure = self._failed or (None, None)
        made = Progress(
            subscription=self.subscription,
            epoch=self.epoch,
            cursor=self.cursor,
            put=[row for row in self._dirty.values() if row is not None],
            drop=[seq for seq, row in self._dirty.items() if row is None],
            tasks=self._tasks,
            delivered=self._delivered,
            failed=failed,
            failure=failure,
            pause=self._pause,
        )
        self._dirty, self._tasks = {}, []
        self._delivered = self._failed = None
        self._pause = ""
        return made

    def saved(self, done: Progress) -> None:
        """It is written: rows that are gone or are dead letters aren't this one's any more."""
        self._saved = done.cursor
        self._rows.difference_update(done.drop)
        self._rows.difference_update(row.seq for row in done.put if row.letter is not None)

    def unsaved(self, lost: Progress) -> None:
        """It could not be written: it is to be written with what came since."""
        before: dict[int, Row | None] = {row.seq: row for row in lost.put}
        before.update(dict.fromkeys(lost.drop))
        self._dirty = {**before, **self._dirty}
        self._tasks = [*lost.tasks, *self._tasks]
        self._delivered = self._delivered or lost.delivered
        if self._failed is None and lost.failed is not None:
            self._failed = (lost.failed, lost.failure or "")
        self._pause = self._pause or lost.pause

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _line(self, entry: Entry) -> Line:
        key = (entry.fact.tenant, entry.fact.subject)
        found = self._lines.get(key)
        if found is None:
            found = self._lines[key] = Line(owner=self, key=key)
        return found

    def _remove(self, line: Line, item: Item) -> None:
        line.items.popleft()
        if item.seq > self.taken:
            self._over.add(item.seq)  # it came from a row, and is still to be read
        if item.row:
            self._waiting -= 1
            self._dirty[item.seq] = None
        else:
            self._fresh.pop(item.seq)
        self._end_task(item)

    def _write(self, item: Item, due: float | None = None) -> None:
        """Give it a row, or change it."""
        if not item.row:
            item.row = True
            self._fresh.pop(item.seq)
            self._rows.add(item.seq)
            self._waiting += 1
            self._end_task(item)
        self._dirty[item.seq] = self._row(item, due)

    def _end_task(self, item: Item) -> None:
        if item.last:
            item.last = False
            self._tasks.append((item.entry.fact.tenant, item.entry.fact.subject.rpartition("/")[2]))

    def _row(self, item: Item, due: float | None, *, letter: str | None = None, died: float | None = None) -> Row:
        fact = item.entry.fact
        return Row(
            seq=item.seq,
            tenant=self.tenant,
            attempts=item.attempts,
            first=None if item.first is None else item.first.wall,
            due=due,
            status=item.status,
            reason=item.reason,
            target=item.target,
            letter=letter,
            died=died,
            fact=fact if item.holds or letter is not None else None,
        )
