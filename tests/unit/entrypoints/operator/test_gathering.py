"""When Agents that go together are begun."""

from chimera.adapters.substrates.knative.resources.carrying import Want
from chimera.entrypoints.operator.gathering import MOST, Gathering

ONE, OTHER = ("one", ""), ("other", "team/careful")


def want(name: str, revision: str, tenant: str = "one") -> Want:
    return Want(key=("team", name), tenant=tenant, revision=revision, before=None)


def test_a_group_is_complete_when_nothing_of_it_has_changed_for_a_while() -> None:
    gathering = Gathering(10.0)
    assert gathering.due({ONE: [want("a", "1")]}, 100.0) == {ONE: 110.0}
    assert gathering.due({ONE: [want("a", "1"), want("b", "1")]}, 105.0) == {ONE: 115.0}
    assert gathering.due({ONE: [want("b", "1"), want("a", "1")]}, 109.0) == {ONE: 115.0}
    assert gathering.due({ONE: [want("b", "2"), want("a", "1")]}, 114.0) == {ONE: 124.0}


def test_one_group_holds_no_other_up() -> None:
    gathering = Gathering(10.0)
    for second in range(9):
        due = gathering.due({ONE: [want("a", str(second))], OTHER: [want("b", "1", "other")]}, float(second))
        assert due == {ONE: second + 10.0, OTHER: 10.0}


def test_an_agent_that_changes_all_the_time_holds_up_those_that_go_with_it_only_so_long() -> None:
    gathering = Gathering(10.0)
    due = [gathering.due({ONE: [want("a", str(second)), want("b", "1")]}, float(second))[ONE] for second in range(70)]
    assert due == [min(second + 10.0, MOST * 10.0) for second in range(70)]
    gathering.begun(ONE)
    assert gathering.due({ONE: [want("a", "70")]}, 70.0) == {ONE: 80.0}, "what comes then waits anew"


def test_what_waits_no_more_is_forgotten() -> None:
    gathering = Gathering(10.0)
    gathering.due({ONE: [want("a", "1")]}, 0.0)
    assert gathering.due({}, 50.0) == {}
    assert gathering.due({ONE: [want("a", "1")]}, 100.0) == {ONE: 110.0}
