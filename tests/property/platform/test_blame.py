"""Who brought a host down: nobody is named who wasn't there, and a name needs more evidence than chance."""

from hypothesis import given
from hypothesis import strategies as st

from chimera.platform.blame import MEMORY_OF_INCIDENTS, Incident, judge
from chimera.platform.ports import HostExit, RunningCall

LONGEST = 590.0
AGENTS = st.sampled_from([f"default/{letter}" for letter in "abcdef"])
SOME_AGENTS = st.lists(AGENTS, max_size=8)


@st.composite
def exits(draw: st.DrawFn, *, agents: st.SearchStrategy[list[str]] = SOME_AGENTS) -> HostExit:
    calls = tuple(
        RunningCall(agent=agent, call=str(number), seconds=draw(st.floats(0, 700)))
        for number, agent in enumerate(draw(agents))
    )
    cell = draw(st.sampled_from(["one", "two"]))
    return HostExit(host="host", cell=cell, cause="killed", expected=False, calls=calls)


@st.composite
def pasts(draw: st.DrawFn) -> list[Incident]:
    """What led to now: exits judged one after another."""
    found: list[Incident] = []
    for ended in draw(st.lists(exits(), max_size=6)):
        found.append(judge(ended, found, at=draw(st.floats(0, 1000)), longest_call=LONGEST))
    return found


def ended(*agents: str, cell: str = "one", seconds: float = 1.0) -> HostExit:
    calls = tuple(RunningCall(agent=agent, call=f"call-{n}", seconds=seconds) for n, agent in enumerate(agents))
    return HostExit(host="host", cell=cell, cause="killed", expected=False, calls=calls)


@given(exits(), pasts())
def test_only_who_was_there_is_named(now: HostExit, past: list[Incident]) -> None:
    found = judge(now, past, at=1000, longest_call=LONGEST)
    there = {call.agent for call in now.calls}
    assert set(found.suspects) == there
    assert found.culprit is None or found.culprit in there


@given(exits(agents=st.lists(st.just("default/a"), min_size=1, max_size=3)), pasts())
def test_one_alone_is_named_whatever_happened_before(now: HostExit, past: list[Incident]) -> None:
    assert judge(now, past, at=1000, longest_call=LONGEST).culprit == now.calls[0].agent


@given(exits(), pasts(), st.randoms())
def test_the_order_of_the_past_does_not_matter(now: HostExit, past: list[Incident], chance: st.DataObject) -> None:
    shuffled = list(past)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(now, past, at=1000, longest_call=LONGEST) == judge(now, shuffled, at=1000, longest_call=LONGEST)


@given(exits(), pasts())
def test_what_happened_to_other_cells_or_long_ago_does_not_count(now: HostExit, past: list[Incident]) -> None:
    at = 1000 + MEMORY_OF_INCIDENTS + 1
    assert judge(now, past, at=at, longest_call=LONGEST) == judge(now, [], at=at, longest_call=LONGEST)
    elsewhere = [one for one in past if one.cell != now.cell]
    assert judge(now, elsewhere, at=1000, longest_call=LONGEST).culprit == (
        judge(now, [], at=1000, longest_call=LONGEST).culprit
    )


@given(st.lists(AGENTS, min_size=2, max_size=6, unique=True), st.data())
def test_the_next_death_narrows_it(agents: list[str], data: st.DataObject) -> None:
    guilty = data.draw(st.sampled_from(agents))
    first = judge(ended(*agents), [], at=0, longest_call=LONGEST)
    assert first.culprit is None
    others = [f"default/x{n}" for n in range(3)]
    second = judge(ended(guilty, *others), [first], at=100, longest_call=LONGEST)
    assert second.culprit == guilty


def test_a_call_that_outlived_its_deadline_is_named() -> None:
    calls = (
        RunningCall(agent="default/slow", call="1", seconds=LONGEST + 1),
        RunningCall(agent="default/quick", call="2", seconds=3),
    )
    found = judge(
        HostExit(host="h", cell="one", cause="?", expected=False, calls=calls), [], at=0, longest_call=LONGEST
    )
    assert found.culprit == "default/slow"


def test_equal_evidence_names_nobody() -> None:
    past = [
        judge(ended("a", "b"), [], at=0, longest_call=LONGEST),
        judge(ended("c", "d"), [], at=1, longest_call=LONGEST),
    ]
    assert judge(ended("a", "c"), past, at=2, longest_call=LONGEST).culprit is None


def test_a_known_culprit_clears_the_others() -> None:
    overdue = HostExit(
        host="h",
        cell="one",
        cause="?",
        expected=False,
        calls=(
            RunningCall(agent="guilty", call="1", seconds=LONGEST + 1),
            RunningCall(agent="innocent", call="2", seconds=1),
        ),
    )
    past = [judge(overdue, [], at=0, longest_call=LONGEST)]
    assert judge(ended("innocent", "other"), past, at=1, longest_call=LONGEST).culprit is None


def test_no_calls_no_suspects() -> None:
    found = judge(ended(), [], at=0, longest_call=LONGEST)
    assert (found.suspects, found.culprit) == ((), None)
