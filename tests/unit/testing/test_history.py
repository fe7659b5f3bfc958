"""The checker of histories refuses what must not be, and nothing that may be."""

import pytest
from detangle import History, lin
from hypothesis import assume, given
from hypothesis import strategies as st

from chimera.testing.faults.history import Appended, Session, linearizable, needed, wrong_conversation, wrong_tasks


def told(*operations: tuple[str, object, object]) -> History:
    """A history of one operation after another; an outcome of None is unknown."""
    history = History()
    for number, (what, argument, outcome) in enumerate(operations):
        begun = history.invoke(number, what, argument)
        history.info(begun) if outcome is None else history.ok(begun, outcome)
    return history


GOOD = {
    "written and read": [("write", ("a", 0, "x"), 1), ("read", "a", (1, "x"))],
    "refused as stale": [("write", ("a", 0, "x"), 1), ("write", ("a", 0, "y"), "refused"), ("read", "a", (1, "x"))],
    "unknown and there": [("write", ("a", 0, "x"), None), ("read", "a", (1, "x"))],
    "unknown and not there": [("write", ("a", 0, "x"), None), ("read", "a", (0, None))],
    "unknown and there later": [("write", ("a", 0, "x"), None), ("read", "a", (0, None)), ("read", "a", (1, "x"))],
    "two sessions": [("write", ("a", 0, "x"), 1), ("read", "b", (0, None))],
}
BAD = {
    "a lost write": [("write", ("a", 0, "x"), 1), ("read", "a", (0, None))],
    "a stale read": [("write", ("a", 0, "x"), 1), ("write", ("a", 1, "y"), 2), ("read", "a", (1, "x"))],
    "two writers of one version": [("write", ("a", 0, "x"), 1), ("write", ("a", 0, "y"), 1)],
    "refused without reason": [("write", ("a", 0, "x"), "refused")],
    "unknown, there and gone": [("write", ("a", 0, "x"), None), ("read", "a", (1, "x")), ("read", "a", (0, None))],
    "a version left out": [("write", ("a", 0, "x"), 2)],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_may_be_is_explained(name: str) -> None:
    assert linearizable(told(*GOOD[name]).operations) is None


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.tuples(st.just("a"), st.integers(0, 3), st.sampled_from("vwxyz")), st.integers(-1, 4)
        ),
        st.tuples(st.just("read"), st.just("a"), st.tuples(st.integers(0, 3), st.sampled_from("vwxyz"))),
        st.tuples(st.just("read"), st.just("a"), st.just((0, None))),
    ),
    max_size=7,
)


@given(OPERATIONS, st.lists(st.sampled_from(["ok", "unknown", "open"]), min_size=7, max_size=7))
def test_what_explains_nothing_may_be_left_out(steps: list[tuple[str, object, object]], ends: list[str]) -> None:
    history, still_open = History(), []
    for number, (what, argument, outcome) in enumerate(steps):
        if what == "write":
            # Each write has a value of its own, as each client's has.
            argument = (*argument[:2], f"{argument[2]}{number}" if number % 2 else argument[2])
        begun = history.invoke(number, what, argument)
        if ends[number] == "open":
            still_open.append((begun, outcome))
        elif ends[number] == "unknown":
            history.info(begun)
        else:
            history.ok(begun, "refused" if outcome == -1 else outcome)
    for begun, outcome in still_open:
        history.ok(begun, "refused" if outcome == -1 else outcome)
    values = [one.arg[2] for one in history.operations if one.f == "write"]
    assume(len(values) == len(set(values)))
    assert lin.check(history.operations, Session()).ok == lin.check(needed(history.operations), Session()).ok


@pytest.mark.parametrize("name", BAD)
def test_what_must_not_be_is_refused(name: str) -> None:
    assert linearizable(told(*BAD[name]).operations)


@pytest.mark.parametrize(
    ("log", "count", "says"),
    [
        (["a", "c"], 2, None),
        (["a", "b", "c"], 3, None),
        (["a"], 1, "c was acknowledged"),
        (["a", "c", "c"], 3, "2 times"),
        (["c", "a"], 2, "order"),
        (["a", "c", "z"], 3, "nobody wrote it"),
        (["a", "c"], 3, "half a write"),
    ],
)
def test_a_log_holds_what_was_acknowledged_once_in_order(log: list[str], count: int, says: str | None) -> None:
    faults = Appended(tried=["a", "b", "c"], acknowledged={"a", "c"}).wrong(log, count)
    assert not faults if says is None else any(says in fault for fault in faults)


def test_a_conversation_holds_each_question_once_with_an_answer() -> None:
    def turn(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]

    assert wrong_conversation(["a", "b"], turn("a") + turn("b")) == []
    assert wrong_conversation(["a", "b"], turn("b") + turn("a"))
    assert wrong_conversation(["a", "b"], turn("a"))
    assert wrong_conversation(["a"], turn("a") + turn("a"))
    assert wrong_conversation(["a"], turn("a")[:1])


def test_a_task_is_one_and_ends_well() -> None:
    done, failed = {"state": "succeeded"}, {"state": "failed", "problem": "why"}
    assert wrong_tasks({"k": "1", "l": "2"}, {"1": done, "2": done}, 2) == []
    assert "is gone" in wrong_tasks({"k": "1"}, {}, 1)[0]
    assert "failed: why" in wrong_tasks({"k": "1"}, {"1": failed}, 1)[0]
    assert "there are 2" in wrong_tasks({"k": "1"}, {"1": done}, 2)[0]
    assert "one task" in wrong_tasks({"k": "1", "l": "1"}, {"1": done}, 2)[0]
