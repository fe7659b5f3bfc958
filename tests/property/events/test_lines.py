"""A subscription's lines under any order of events, outcomes, failed writes, crashes, drops and replays.

The model knows what the receiver got and what is stored. It holds: the first arrivals of each subject's events are in
their order, but for those that were given up; nothing is lost, whatever crashed; nothing that was dropped is sent
again; attempts are bounded.
"""

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.lines import Line, Lines, Moment
from chimera.events.delivery.model import Outcome, Progress, Row
from chimera.events.delivery.rules import Again, Policy, after
from chimera.events.model import RecordedFact

POLICY = Policy(attempts=3, give_up=1_000.0, backoff=1.0, backoff_cap=8.0)
SUBJECTS = ("a", "b")
OUTCOMES = {
    "delivered": Outcome(result="delivered", status=200),
    "failed": Outcome(result="failed", status=500),
    "gone": Outcome(result="gone", status=410),
}


class Deliveries(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.journal: list[Entry] = []
        self.cursor = 0
        self.rows: dict[int, Row] = {}
        self.over: set[int] = set()
        self.arrived: list[int] = []
        self.dropped: set[int] = set()
        self.given_up: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.now = 0.0
        self.pending: Progress | None = None
        self.begun: list[Line] = []
        self.lines: Lines
        self.start()

    def start(self) -> None:
        over = frozenset(seq for seq in self.over | self.dead() if seq > self.cursor)
        self.lines = Lines("s", tenant="t", epoch=1, cursor=self.cursor, over=over)
        self.begun, self.pending = [], None
        for seq in sorted(self.rows):
            if self.rows[seq].letter is None:
                self.lines.restore(self.rows[seq], self.journal[seq - 1], self.moment(), most_wait=8.0)

    def dead(self) -> set[int]:
        return {seq for seq, row in self.rows.items() if row.letter is not None}

    def moment(self) -> Moment:
        return Moment(self.now, 1_000.0 + self.now)

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(subject=st.sampled_from(SUBJECTS))
    def happen(self, subject: str) -> None:
        seq = len(self.journal) + 1
        fact = RecordedFact(
            seq=seq, id=f"e{seq}", type="x", tenant="t", subject=subject, at=0.0, data=msgspec.Raw(b"{}")
        )
        self.journal.append(Entry(fact, ""))

    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        for entry in self.journal[self.lines.taken : self.lines.taken + count]:
            self.lines.take(entry)
            self.lines.passed(entry.fact.seq)

    @rule(number=st.integers(0, 5))
    def send(self, number: int) -> None:
        ready = [line for line in self.lines.idle() if line.items and line.head.due <= self.now]
        if ready and not self.lines.stopped:
            line = ready[number % len(ready)]
            item = self.lines.begin(line, self.moment())
            assert item.seq not in self.dropped, "it was dropped"
            self.begun.append(line)

    @precondition(lambda self: self.begun)
    @rule(number=st.integers(0, 5), what=st.sampled_from(["delivered", "delivered", "failed", "failed", "gone"]))
    def answer(self, number: int, what: str) -> None:
        line = self.begun.pop(number % len(self.begun))
        item, outcome = line.head, OUTCOMES[what]
        self.attempts[item.seq] = max(self.attempts.get(item.seq, 0), item.attempts)
        if what == "delivered":
            self.arrived.append(item.seq)
        age = self.now - (item.first or self.moment()).steady
        verdict = after(outcome, attempts=item.attempts, age=age, policy=POLICY, chance=0.5, alone=False)
        self.lines.settle(line, verdict, outcome, self.moment(), letter=f"dl_{item.seq}")
        if isinstance(verdict, Again):
            assert line.head is item
        elif what == "failed":
            self.given_up.add(item.seq)

    @rule(what=st.sampled_from(["delivered", "failed", "failed"]), number=st.integers(0, 5))
    def attempt(self, what: str, number: int) -> None:
        self.read(5)
        before = len(self.begun)
        self.send(number)
        if len(self.begun) > before:
            self.answer(before, what)
        self.now += 9.0

    @precondition(lambda self: self.pending is None)
    @rule(works=st.booleans())
    def save(self, works: bool) -> None:
        self.begin_to_save()
        self.end_to_save(works)

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.pending is None)
    @rule()
    def begin_to_save(self) -> None:
        self.pending = self.lines.changes()

    @precondition(lambda self: self.pending is not None)
    @rule(works=st.booleans())
    def end_to_save(self, works: bool) -> None:
        done, self.pending = self.pending, None
        assert done is not None
        if not works:
            self.lines.unsaved(done)
            return
        assert done.cursor >= self.cursor
        self.store(done)
        self.lines.saved(done)

    def store(self, done: Progress) -> None:
        self.cursor = done.cursor
        self.rows |= {row.seq: row for row in done.put}
        for seq in done.drop:
            self.rows.pop(seq, None)

    @rule(stored=st.booleans())
    def crash(self, stored: bool) -> None:
        """The process dies, in the middle of a write that may have been committed."""
        if self.pending is not None and stored:
            self.store(self.pending)
        self.start()

    @precondition(lambda self: self.lines.stopped)
    @rule()
    def resume(self) -> None:
        self.lines.stopped = False

    @precondition(lambda self: self.pending is None and self.dead())
    @rule(number=st.integers(0, 5), replays=st.booleans())
    def settle_letter(self, number: int, replays: bool) -> None:
        seq = sorted(self.dead())[number % len(self.dead())]
        known = self.lines.rows
        row = self.rows.pop(seq)
        if not replays:
            self.over.add(seq)
            self.dropped.add(seq)
            return
        self.attempts.pop(seq, None)
        self.given_up.add(seq)  # its place in the order is lost
        self.rows[seq] = Row(seq=seq, tenant="t", fact=row.fact)
        if seq not in known:
            self.lines.restore(self.rows[seq], self.journal[seq - 1], self.moment(), most_wait=8.0)

    # -- what holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def first_arrivals_are_in_order(self) -> None:
        for subject in SUBJECTS:
            seen: list[int] = []
            for seq in self.arrived:
                if self.journal[seq - 1].fact.subject == subject and seq not in seen and seq not in self.given_up:
                    seen.append(seq)
            assert seen == sorted(seen)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Were it to crash now, each event is over, has a row, or is read again."""
        for seq in range(1, self.cursor + 1):
            assert seq in self.arrived or seq in self.rows or seq in self.dropped

    @invariant()
    def attempts_are_bounded(self) -> None:
        assert all(count <= POLICY.attempts for count in self.attempts.values())

    @invariant()
    def one_subject_holds_back_nobody_else(self) -> None:
        for line in self.lines.idle():
            assert line.items, "an empty line is no line"
            later = list(line.items)[1:]
            assert [one.seq for one in later] == sorted(one.seq for one in later)
            assert all(one.entry.fact.subject == line.key[1] for one in line.items)

    def teardown(self) -> None:
        """With a receiver that takes everything, all arrives that was not given up or dropped."""
        if self.pending is not None:
            self.lines.unsaved(self.pending)
        self.lines.stopped = False
        self.now += 10_000.0
        self.read(len(self.journal) + 1)
        for _ in range(4 * len(self.journal) + 4):
            for line in self.lines.idle():
                self.lines.begin(line, self.moment())
                self.begun.append(line)
            for line in self.begun:
                self.arrived.append(line.head.seq)
                verdict = after(OUTCOMES["delivered"], attempts=1, age=0.0, policy=POLICY, chance=0.5, alone=False)
                self.lines.settle(line, verdict, OUTCOMES["delivered"], self.moment(), letter="dl")
            self.begun = []
        self.store(self.lines.changes())
        for seq in range(1, len(self.journal) + 1):
            assert seq in self.arrived or seq in self.dead() or seq in self.dropped, seq
        assert self.cursor == len(self.journal)
        assert self.lines.outstanding == 0
        self.first_arrivals_are_in_order()


TestDeliveries = Deliveries.TestCase
TestDeliveries.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
