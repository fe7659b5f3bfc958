"""Twins are found beside live agents and beside each other, and never where nothing new is said."""

from collections.abc import Callable

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.ecosystem import Ecosystem
from chimera.jaegis.quality.model import Assessment
from chimera.jaegis.quality.scoring import assess_all
from chimera.jaegis.quality.settings import QualitySettings
from chimera.testing.definitions import compiled

Live = Callable[..., Ecosystem]
SETTINGS = QualitySettings()
TEXTS = {
    "invoice-auditor": "Compares a supplier's invoice with its order and names every difference in amount or tax.",
    "travel-planner": "Plans journeys by train, compares timetables and fares, and books seats for groups.",
    "soil-adviser": "Reads soil analyses of a field and advises farmers which fertiliser to spread before sowing.",
}


def agent(name: str, text: str, *functions: str, version: str = "1.0.0") -> CompiledAgent:
    changes = {"metadata": {"description": text, "version": version}}
    return compiled(name, **changes, capabilities={"primary_functions": list(functions) or [text]})


def known(ecosystem: Live) -> Ecosystem:
    return ecosystem(*(agent(name, text) for name, text in TEXTS.items()))


def twins(found: Assessment) -> list[str]:
    return [one.agent for one in found.twins]


def test_a_copy_under_another_name_is_the_twin_of_what_it_was_copied_from(ecosystem: Live) -> None:
    copy = agent(
        "bill-checker", "Names every difference in amount or tax: compares a supplier's invoice with its order."
    )
    [found] = assess_all([copy], known(ecosystem), SETTINGS)
    assert twins(found) == ["invoice-auditor"]
    assert found.twins[0].live and not found.passed


def test_a_copy_with_words_around_it_is_found_by_what_it_contains(ecosystem: Live) -> None:
    around = (
        f"This agent was made by the logistics team for its customers in the north. {TEXTS['travel-planner']} It is "
        "friendly, writes short letters, knows the weather, quotes poems and never forgets a birthday."
    )
    [found] = assess_all([agent("north", around)], known(ecosystem), SETTINGS)
    assert twins(found) == ["travel-planner"]
    assert found.twins[0].containment > found.twins[0].similarity


def test_another_agent_of_its_kind_is_no_twin(ecosystem: Live) -> None:
    other = agent(
        "seed-adviser", "Reads weather forecasts of a region and advises gardeners which seed to sow in spring."
    )
    [found] = assess_all([other], known(ecosystem), SETTINGS)
    assert twins(found) == []


def test_an_agent_is_no_twin_of_its_own_live_revision_nor_of_one_that_leaves_with_the_change(ecosystem: Live) -> None:
    next_version = agent("invoice-auditor", TEXTS["invoice-auditor"] + " It answers briefly.", version="1.1.0")
    renamed = agent("bill-auditor", TEXTS["invoice-auditor"])
    assert twins(assess_all([next_version], known(ecosystem), SETTINGS)[0]) == []
    assert twins(assess_all([renamed], known(ecosystem), SETTINGS, gone=["invoice-auditor"])[0]) == []
    assert twins(assess_all([renamed], known(ecosystem), SETTINGS)[0]) == ["invoice-auditor"]


def test_two_new_ones_are_held_against_each_other(ecosystem: Live) -> None:
    text = "Translates letters of embassies from Portuguese into Dutch and keeps their diplomatic tone."
    found = assess_all([agent("one", text), agent("two", text)], known(ecosystem), SETTINGS)
    assert [(one.twins[0].agent, one.twins[0].live) for one in found] == [("two", False), ("one", False)]
    alone = assess_all([agent("one", text)], ecosystem(), SETTINGS)
    assert twins(alone[0]) == []


def test_a_change_of_anything_but_the_text_weighs_no_twins_again(ecosystem: Live) -> None:
    same = agent("bill-auditor", TEXTS["invoice-auditor"])
    live = ecosystem(agent("invoice-auditor", TEXTS["invoice-auditor"]), same)
    again = agent("bill-auditor", TEXTS["invoice-auditor"], version="2.0.0")
    assert twins(assess_all([again], live, SETTINGS)[0]) == []
