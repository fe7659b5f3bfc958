"""Single turns of a subscription's lines that chance rarely brings about."""

import msgspec

from chimera.events.delivery.entries import Entry
from chimera.events.delivery.lines import Lines, Moment
from chimera.events.delivery.model import Row
from chimera.events.delivery.rules import Again, Dead, Done
from chimera.events.model import RecordedFact
from chimera.testing.events import DELIVERED, FAILED

NOW = Moment(100.0, 1_000.0)


def entry(seq: int, subject: str = "a") -> Entry:
    data = msgspec.Raw(b"{}")
    return Entry(RecordedFact(seq=seq, id=f"e{seq}", type="x", tenant="t", subject=subject, at=0.0, data=data), "")


def lines(cursor: int = 0, **more: frozenset[int]) -> Lines:
    return Lines("s", tenant="t", epoch=1, cursor=cursor, **more)


def taken(made: Lines, *entries: Entry) -> None:
    for one in entries:
        made.take(one)
        made.passed(one.fact.seq)


def test_what_ended_from_its_row_is_not_read_again_behind_the_cursor() -> None:
    made = lines()
    line = made.restore(Row(seq=2, tenant="t", attempts=8), entry(2), NOW, most_wait=9.0)
    assert line is not None
    made.begin(line, NOW)
    made.settle(line, Dead(), FAILED, NOW, letter="dl_2")
    written = made.changes()
    assert [(row.seq, row.letter) for row in written.put] == [(2, "dl_2")] and written.cursor == 0
    made.saved(written)

    taken(made, entry(1, "b"), entry(2), entry(3))

    assert sorted(one.seq for line in made.idle() for one in line.items) == [1, 3]


def test_a_failure_gives_rows_to_what_waits_behind_it_and_lets_the_cursor_go_on() -> None:
    made = lines()
    taken(made, entry(1), entry(2), entry(3, "b"))
    line = next(one for one in made.idle() if one.key == ("t", "a"))
    assert made.cursor == 0
    made.begin(line, NOW)
    made.settle(line, Again(5.0), FAILED, NOW, letter="")
    taken(made, entry(4))
    assert made.cursor == 2, "the other subject's is under way"
    written = made.changes()
    assert [(row.seq, row.attempts, row.due) for row in written.put] == [(1, 1, 1_005.0), (2, 0, None), (4, 0, None)]
    made.unsaved(written)
    assert made.changes().put == written.put, "what could not be written is written next"


def test_rows_that_are_not_needed_any_more_are_dropped() -> None:
    made = lines()
    taken(made, entry(1))
    (line,) = made.idle()
    for verdict, outcome in ((Again(0.0), FAILED), (Done(), DELIVERED)):
        made.begin(line, NOW)
        made.settle(line, verdict, outcome, NOW, letter="")
    written = made.changes()
    assert (list(written.put), list(written.drop), written.cursor) == ([], [1], 1)
    assert made.outstanding == 0 and not made.idle()


def test_a_clock_that_was_set_back_holds_a_retry_no_longer_than_the_longest_wait() -> None:
    made = lines()
    line = made.restore(Row(seq=1, tenant="t", due=9_999.0, first=9_000.0), entry(1), NOW, most_wait=60.0)
    assert line is not None
    assert line.head.due == NOW.steady + 60.0
    assert line.head.first == Moment(NOW.steady, 9_000.0)


def test_a_replayed_letter_keeps_its_event_when_it_fails_again() -> None:
    made = lines(5)
    fact = entry(2).fact
    line = made.restore(Row(seq=2, tenant="t", fact=fact), entry(2), NOW, most_wait=9.0)
    assert line is not None
    made.begin(line, NOW)
    made.settle(line, Again(1.0), FAILED, NOW, letter="")
    (row,) = made.changes().put
    assert row.fact == fact, "the journal may not have it any more"


def test_the_end_of_a_task_is_told_with_the_write_that_makes_it_durable() -> None:
    made = lines()
    made.take(entry(1, "agents/a/tasks/t1"), last=True)
    made.passed(1)
    (line,) = made.idle()
    assert made.changes().tasks == []
    made.begin(line, NOW)
    made.settle(line, Again(1.0), FAILED, NOW, letter="")
    written = made.changes()
    assert (list(written.tasks), [row.seq for row in written.put]) == ([("t", "t1")], [1])
