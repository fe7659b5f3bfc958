"""What is read from a function's signature and docstring."""

import dataclasses
import datetime
import enum
from typing import Annotated, Any, Literal, TypedDict

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.broker import ToolContext
from chimera_host.broker.signature import parse_docstring, read
from chimera_host.errors import AgentLoadError, ToolRefused


def convert(amount: float, currency: Literal["EUR", "USD"] = "EUR", *, note: str | None = None) -> str:
    """Convert an amount to Swiss francs.

    By today's rate.

    Args:
        amount: How much,
            in units of the currency.
        currency (str): What it is in.

    Returns:
        The amount: a text.
    """
    return f"{amount} {currency} {note}"


def signature(function, **declared):
    return read("t", function, **{"description": None, "parameters": None, **declared})


def test_description_and_parameters_come_from_the_function():
    found = signature(convert)
    assert found.description == "Convert an amount to Swiss francs.\n\nBy today's rate."
    assert found.parameters == {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "description": "How much, in units of the currency."},
            "currency": {"enum": ["EUR", "USD"], "default": "EUR", "description": "What it is in."},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["amount"],
        "additionalProperties": False,
    }


def test_what_the_definition_declares_stands_above():
    declared = {"type": "object", "properties": {"amount": {"type": "integer"}}}
    found = signature(convert, description="Told.", parameters=declared)
    assert found.description == "Told." and found.parameters == declared
    assert found.convert({"amount": 1, "other": 2}) == {"amount": 1, "other": 2}


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    deep: bool


def typed(
    when: datetime.date,
    colour: Colour,
    points: list[Point],
    options: Options,
    count: Annotated[int, msgspec.Meta(ge=1, description="At least one.")] = 1,
    tags: tuple[str, ...] = ("a", "b"),
    anything: Any = None,
    untyped=3,
) -> None:
    pass


def test_values_are_made_of_the_functions_types():
    found = signature(typed)
    given_ = {"when": "2026-01-02", "colour": "red", "points": [{"x": 1}], "options": {"deep": True}, "untyped": [1]}
    jsonschema_rs.validator_for(found.parameters).validate(given_)
    assert found.convert(given_) == {
        "when": datetime.date(2026, 1, 2),
        "colour": Colour.RED,
        "points": [Point(1, 0)],
        "options": {"deep": True},
        "untyped": [1],
    }
    assert found.parameters["properties"]["count"]["description"] == "At least one."
    assert found.parameters["required"] == ["when", "colour", "points", "options"]
    assert set(found.parameters["$defs"]) == {"Point", "Options", "Colour"}


def test_what_a_schema_cant_say_is_refused_in_conversion():
    found = signature(typed)
    with pytest.raises(ToolRefused, match="date"):
        found.convert({"when": "2026-02-31", "colour": "red", "points": [], "options": {}})


def test_the_context_is_no_parameter_of_the_model():
    def plain(a: int, context: ToolContext) -> None: ...

    def optional(a: int, surroundings: ToolContext | None = None) -> None: ...

    def named_so(a: int, context: str) -> None: ...

    for function, name in ((plain, "context"), (optional, "surroundings"), (named_so, None)):
        found = signature(function)
        assert found.context == name
        assert set(found.parameters["properties"]) == ({"a"} if name else {"a", "context"})


def test_a_type_called_arguments_is_no_trouble():
    class arguments(msgspec.Struct):
        x: int

    def function(a: arguments) -> None: ...

    function.__annotations__ = {"a": arguments}
    found = signature(function)
    assert found.parameters["required"] == ["a"] and found.convert({"a": {"x": 1}}) == {"a": arguments(1)}


class Callable_:
    async def __call__(self, a: int) -> int:
        """Call me."""
        return a


def test_callable_objects_and_varargs_work():
    assert signature(Callable_()).parameters["required"] == ["a"]

    def var(a: int, *rest: int, **more: int) -> None: ...

    assert set(signature(var).parameters["properties"]) == {"a"}


def position_only(a: int, /) -> None: ...


def unreadable(a: "Missing") -> None: ...  # noqa: F821


def untypable(a: object, b: complex) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [(position_only, "by position only"), (unreadable, "Missing"), (untypable, "have no JSON form")],
)
def test_a_function_that_cant_be_a_tool_is_refused_with_the_reason(function, words):
    with pytest.raises(AgentLoadError, match=words):
        signature(function)


def test_a_function_without_docstring_is_named():
    def bare(a: int) -> None: ...

    assert signature(bare).description == "The function bare."


@given(st.text(max_size=300))
def test_any_docstring_can_be_read(text):
    description, parameters = parse_docstring(text)
    assert len(description) <= len(text.expandtabs(4)) and all(name.isidentifier() for name in parameters)


@given(
    st.lists(st.from_regex(r"\A[a-z]{1,8}\Z"), min_size=1, max_size=5, unique=True),
    st.lists(st.from_regex(r"\A[A-Z][a-z ]{0,30}[a-z.]\Z"), min_size=5, max_size=5),
)
def test_a_docstring_gives_back_what_was_written(names, texts):
    told = dict(zip(names, texts, strict=False))
    lines = [
        "Summary.",
        "",
        "Args:",
        *(f"    {name}: {text}" for name, text in told.items()),
        "",
        "Returns:",
        "    x: y",
    ]
    assert parse_docstring("\n".join(lines)) == ("Summary.", told)
