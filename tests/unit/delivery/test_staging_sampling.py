"""Which earlier inputs are replayed, of which agents, and what stands in for their tools."""

from typing import Any

import pytest

from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.staging.sampling import (
    MOST_ASKED,
    NOT_RUN,
    TOOL_BYTES,
    Earlier,
    draw,
    evaluated,
    marks_of,
    stand_ins,
    turns_of,
    why_not,
)
from chimera.testing.definitions import compiled
from chimera_host.contract.call import Message


def case(name: str = "t", **changes: Any) -> dict[str, Any]:
    return {"name": name, "input": "hi", "expect": {"contains": ["hi"]}, **changes}


def talk(*said: str) -> tuple[Message, ...]:
    """A conversation; who speaks is the first letter: user, assistant or system."""
    roles: dict[str, Any] = {"u": "user", "a": "assistant", "s": "system"}
    return tuple(Message(role=roles[one[0]], content=one) for one in said)


def test_of_a_conversation_what_was_answered_is_an_input_with_all_before_it() -> None:
    said = talk("s0", "u1", "a1", "u2", "u3", "a3", "u4")
    found = list(turns_of("a", "monday", said, "ann", 100))
    assert [one.messages for one in found] == [said[:2], said[:5]]
    assert [(one.place, one.subject) for one in found] == [(1, "ann"), (4, "ann")]
    # Of a longer conversation the beginning is replayed.
    assert [one.place for one in turns_of("a", "monday", said, None, 7)] == [1]
    assert list(turns_of("a", "monday", said, None, 3)) == []


def test_where_an_input_stands_is_told_but_not_of_a_person() -> None:
    one = Earlier(agent="a", kind="session", name="monday", messages=talk("u"), place=2)
    assert one.reference == "session monday, message 3"
    assert Earlier(agent="a", kind="task", name="task_1", messages=talk("u")).reference == "task task_1"
    of_ann = Earlier(agent="a", kind="session", name="ann@example.org", messages=talk("u"), subject="ann")
    assert "ann" not in of_ann.reference


def test_every_session_gives_one_input_before_any_gives_a_second() -> None:
    long = [
        Earlier(agent="a", kind="session", name="long", messages=talk(f"u{place}"), place=place) for place in range(50)
    ]
    short = [Earlier(agent="a", kind="session", name=f"s{n}", messages=talk(f"u-{n}")) for n in range(5)]
    drawn = draw([*long, *short], 8, "seed")
    assert sum(one.name == "long" for one in drawn) == 3 and len({one.name for one in drawn}) == 6
    again = draw([*short, *reversed(long)], 8, "seed")
    assert again == drawn, "whoever draws by the same seed draws the same"
    assert draw([*long, *short], 8, "other") != drawn
    same = [Earlier(agent="a", kind="task", name=f"t{n}", messages=talk("u ping")) for n in range(9)]
    assert len(draw(same, 8, "seed")) == 1, "the same words count once"


@pytest.mark.parametrize(
    ("changes", "policy", "why"),
    [
        ({}, {}, None),
        ({"data_class": "public"}, {}, None),
        ({"data_class": "personal"}, {}, "personal"),
        ({"data_class": "confidential"}, {}, "confidential"),
        ({"data_class": "personal"}, {"data_classes": ("personal",)}, None),
        ({}, {"data_classes": ()}, "internal"),
        (
            {
                "specification": {"framework": "function"},
                "behaviour": {"function": {"endpoint": {"url": "https://f.example.org"}}},
            },
            {"own_code": True},
            "function elsewhere",
        ),
    ],
)
def test_what_is_replayed_is_the_tenants_word_and_has_no_effects(
    changes: dict[str, Any], policy: dict[str, Any], why: str | None
) -> None:
    plain, other = compiled("a").value, compiled("a", **changes).value
    for new, live in ((plain, other), (other, plain)):
        found = why_not(new, live, ReplayPolicy(**policy))
        if policy.get("data_classes") == ("personal",):
            found = why_not(other, other, ReplayPolicy(**policy))
        assert (found is None) if why is None else (found is not None and why in found)


def test_tools_are_stood_in_for_by_what_tests_say_and_then_by_a_failure() -> None:
    answers = [{"tool": "ask", "output": "any"}, {"tool": "ask", "arguments": {"message": "x"}, "output": "this"}]
    tools = [
        {"type": "agent", "name": "ask", "agent": "other"},
        {"type": "mcp", "name": "files", "allow": ["read", "write"], "url": "https://x.example.org"},
    ]
    value = compiled("a", tools=tools, tests=[case(tools=answers), case("u", tools=answers)]).value
    found = stand_ins(value, value.tests)
    assert [(one.tool, one.arguments is None, one.output or one.error) for one in found] == [
        ("ask", False, "this"),
        ("ask", True, "any"),
        ("ask", True, NOT_RUN),
        ("files_read", True, NOT_RUN),
        ("files_write", True, NOT_RUN),
    ]
    # Of the live revision, which has fewer tools, only those are answered for.
    assert stand_ins(compiled("a").value, value.tests) == ()
    large = [case(f"t{n}", tools=[{"tool": "ask", "output": f"{n}" * 19_000}]) for n in range(9)]
    crowded = stand_ins(
        compiled("a", tools=tools[:1], tests=large).value, compiled("a", tools=tools[:1], tests=large).value.tests
    )
    assert 1 < len(crowded) < 6 and sum(len(one.output) for one in crowded) < TOOL_BYTES


def test_what_tests_expect_is_held_against_answers_once() -> None:
    tests = [
        case(expect={"contains": ["a", "b"], "excludes": ["c"], "json_schema": {"type": "object"}}),
        case("u", expect={"contains": ["b"], "rubric": "It greets."}),
        case("scripted", answers=[{"text": "x"}], expect={"contains": ["only the script says this"]}),
    ]
    value = compiled("a", tests=tests).value
    found = marks_of(evaluated(value), judge=True)
    assert [one.label for one in found] == [
        "contains 'a'",
        "contains 'b'",
        "doesn't contain 'c'",
        "is JSON of the schema",
        "meets the rubric 'It greets.'",
    ]
    assert [one.costs for one in found] == [False, False, False, False, True]
    assert len(marks_of(evaluated(value), judge=False)) == 4
    many = [case(f"t{n}", expect={"rubric": f"It is {n}."}) for n in range(9)]
    assert len(marks_of(compiled("a", tests=many).value.tests, judge=True)) == MOST_ASKED
