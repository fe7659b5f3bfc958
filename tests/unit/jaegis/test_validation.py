"""What doesn't fit between a change and the ecosystem is told once, with what to do; what fits is not."""

from collections.abc import Callable
from typing import Any

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.creator.settings import CreatorSettings
from chimera.jaegis.creator.validation import validate
from chimera.jaegis.ecosystem import Ecosystem, member_of
from chimera.testing.definitions import compiled

Live = Callable[..., Ecosystem]
NOBODY = Ecosystem({})


def judge(
    *agents: CompiledAgent,
    live: Ecosystem = NOBODY,
    gone: tuple[str, ...] = (),
    settings: CreatorSettings | None = None,
    **known: Any,
) -> list[Misfit]:
    members = [member_of(one.value, one.digest) for one in agents]
    return validate(members, gone, live, settings or CreatorSettings(), **known)


def codes(found: list[Misfit]) -> list[tuple[str, str, bool]]:
    return [(one.agent, one.code, one.blocking) for one in found]


def calling(name: str, *others: str, **changes: Any) -> CompiledAgent:
    tools = [{"type": "agent", "name": f"t{at}", "agent": other} for at, other in enumerate(others)]
    return compiled(name, tools=tools, **changes)


def writing(name: str, other: str) -> CompiledAgent:
    return compiled(name, tools=[{"type": "message", "name": "tell", "agent": other, "reply": False}])


def replaced(name: str, by: str) -> CompiledAgent:
    return compiled(name, retirement={"after": "2030-01-01", "replaced_by": by})


def test_a_definition_that_names_what_is_there_fits(ecosystem: Live) -> None:
    live = ecosystem(compiled("searcher"), compiled("teller", capabilities={"communication_protocols": ["events"]}))
    assert (
        judge(calling("leader", "searcher"), writing("writer", "teller"), live=live, models=frozenset(["default"]))
        == []
    )


def test_an_agent_that_nobody_brings_is_missing_and_a_near_name_is_suggested(ecosystem: Live) -> None:
    [found] = judge(calling("leader", "searhcer"), live=ecosystem(compiled("searcher")))
    assert (found.code, found.blocking, found.path) == ("unknown-agent", True, "tools[0].agent")
    assert "searcher" in found.next_step


def test_agents_of_one_change_may_name_each_other() -> None:
    assert judge(calling("leader", "searcher"), compiled("searcher")) == []


def test_what_the_live_revision_lacks_already_is_told_and_blocks_nothing(ecosystem: Live) -> None:
    live = ecosystem(calling("leader", "missing"))
    again = calling("leader", "missing", metadata={"version": "1.0.1"})
    assert codes(judge(again, live=live)) == [("leader", "unknown-agent", False)]
    more = calling("leader", "missing", "absent")
    assert codes(judge(more, live=live)) == [("leader", "unknown-agent", False), ("leader", "unknown-agent", True)]


def test_an_agent_that_others_name_can_not_be_taken_out_before_them(ecosystem: Live) -> None:
    live = ecosystem(compiled("searcher"), calling("leader", "searcher"), replaced("old", "searcher"))
    [found] = judge(live=live, gone=("searcher",))
    assert (found.agent, found.code, found.blocking) == ("searcher", "still-needed", True)
    assert "leader calls it" in found.detail and "old is replaced by it" in found.detail
    assert judge(compiled("leader"), compiled("old"), live=live, gone=("searcher",)) == []
    assert judge(live=live, gone=("searcher", "leader", "old")) == []


def test_calls_and_replacements_in_a_circle_are_found_over_the_whole_ecosystem(ecosystem: Live) -> None:
    live = ecosystem(
        calling("one", "two"), calling("two", "three"), compiled("three"), replaced("a", "b"), compiled("b")
    )
    [found] = judge(calling("three", "one"), live=live)
    assert (found.code, found.blocking) == ("circle", True)
    assert "three → one → two → three" in found.detail
    [found] = judge(replaced("b", "a"), live=live)
    assert (found.agent, found.code) == ("b", "circle")


def test_a_circle_that_is_live_already_blocks_no_other_change_of_its_agents(ecosystem: Live) -> None:
    live = ecosystem(calling("one", "two"), calling("two", "one"))
    assert codes(judge(calling("one", "two", metadata={"version": "1.0.1"}), live=live)) == [("one", "circle", False)]


def test_messages_may_go_round(ecosystem: Live) -> None:
    events = {"capabilities": {"communication_protocols": ["http", "events"]}}
    tool = {"type": "message", "name": "tell", "reply": False}
    one = compiled("one", tools=[{**tool, "agent": "two"}], **events)
    two = compiled("two", tools=[{**tool, "agent": "one"}], **events)
    assert judge(one, live=ecosystem(two, one)) == []


def test_an_agent_that_no_event_reaches_can_not_be_written_to(ecosystem: Live) -> None:
    assert codes(judge(writing("writer", "teller"), live=ecosystem(compiled("teller")))) == [
        ("writer", "not-reachable", True)
    ]


def test_an_agent_that_is_to_be_replaced_is_named_no_more(ecosystem: Live) -> None:
    live = ecosystem(replaced("old", "newer"), compiled("newer"))
    found = judge(calling("leader", "old"), live=live)
    assert codes(found) == [("leader", "leaving", False)]
    assert "newer" in found[0].next_step


@pytest.mark.parametrize("name", ["invoice-auditr", "invoiceauditor", "invo1ce-auditor", "invoice-auditors"])
def test_a_new_name_that_looks_like_a_live_one_is_for_a_person(ecosystem: Live, name: str) -> None:
    live = ecosystem(compiled("invoice-auditor"))
    assert codes(judge(compiled(name), live=live)) == [(name, "look-alike", False)]
    assert judge(compiled(name), live=live, gone=("invoice-auditor",)) == []
    assert judge(compiled(name), live=ecosystem(compiled("invoice-auditor"), compiled(name))) == []


def test_an_agent_of_a_resource_is_changed_by_it_alone(ecosystem: Live) -> None:
    live = ecosystem(compiled("searcher"), owners={"searcher": "team/searcher"})
    assert codes(judge(compiled("searcher"), live=live)) == [("searcher", "owned", True)]
    assert codes(judge(live=live, gone=("searcher",))) == [("searcher", "owned", True)]
    assert judge(compiled("searcher"), live=live, owner="team/searcher") == []


def test_a_capability_that_is_nearly_one_of_others_is_for_a_person(ecosystem: Live) -> None:
    live = ecosystem(compiled("one", metadata={"tags": ["capability:translation"]}))
    found = judge(compiled("two", metadata={"tags": ["capability:transaltion", "capability:botany"]}), live=live)
    assert codes(found) == [("two", "capability", False)]
    assert "capability:translation" in found[0].next_step


def test_servers_and_types_that_nobody_uses_are_for_a_person_unless_the_settings_name_them(ecosystem: Live) -> None:
    tool = {"type": "mcp", "name": "files", "allow": ["read"], "url": "https://files.example.org/mcp"}
    events = {"communication_protocols": ["http", "events"]}
    subscription = {"name": "orders", "types": ["com.example.order.created", "task.failed"]}
    new = compiled("clerk", tools=[tool], capabilities=events, subscriptions=[subscription])
    assert codes(judge(new)) == [("clerk", "mcp-server", False), ("clerk", "event-type", False)]
    used = compiled("other", tools=[tool], capabilities=events, subscriptions=[subscription])
    assert judge(new, live=ecosystem(used)) == []
    named = CreatorSettings(mcp_servers=("https://files.example.org/*",), event_types=("com.example.*",))
    assert judge(new, settings=named) == []


def test_a_model_that_the_settings_do_not_have_blocks() -> None:
    new = compiled("clerk", model={"name": "huge"})
    assert codes(judge(new, models=frozenset({"default"}))) == [("clerk", "unknown-model", True)]
    assert judge(new) == [], "where nobody knows the models, none is missing"
