"""The two ways to read YAML agree on every text that both take, and neither ever ends in anything but an answer."""

import json
import math
from typing import Any

import ryaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chimera.agents import yaml
from chimera.agents.errors import UnreadableText

# fmt: off
WORDS = (
    "yes", "no", "on", "~", "null", "Null", "true", "TRUE", "tRue", "12:30", "2026-01-01", "017", "-01", "0o17", "0x1F",
    "-0x1F", "0b11", "1_000", "1e3", "1.e3", ".5", "+.5", "-.5", "1.", ".", "+", "-0", "-0.0", "00", "0", ".inf",
    "-.INF", ".nan", ".NaN", "nan", "1e999", "1e-999", "9" * 19, "9" * 18, "18446744073709551616", "e3", "<<", "=",
    "08.5", "1.5.2", "+1", "++1", "1__", "-", "?", "''", '""', '"\\0"', '"a\\tb"', "'it''s'", "!x", "&a", "*a", "*b",
    "&a 1", "!!str 1", "a b", "a: b", "a #b", "a#b", "**", "R&D", "do!", "é", "\ufeff", "\u2028", "\x85",
)
# fmt: on
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.integers().map(str),
    st.floats(allow_nan=False).map(repr),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
flow = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]"),
        st.lists(st.tuples(scalars, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
lines = st.tuples(
    st.sampled_from(["", "  ", "    ", "\t", "- ", "  - ", "? ", ": "]),
    st.one_of(
        st.tuples(scalars, flow).map(": ".join),
        flow,
        st.sampled_from(["a: |", "a: >-", "a:", "---", "...", "# x", "%YAML 1.2"]),
    ),
).map("".join)
texts = st.one_of(
    st.lists(lines, max_size=6).map("\n".join),
    st.text(st.sampled_from("ab: -\n\t[]{},&*!#?|>'\"\\%@`0x1.e\0\r\x85\ufeff"), max_size=40),
)
printable = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")), max_size=12
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        printable,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(printable, inner, max_size=4)),
    max_leaves=12,
)


def outcome(read: Any, text: str) -> Any:
    try:
        return ("taken", same(read(text)))
    except UnreadableText:
        return ("refused",)


def same(value: Any) -> Any:
    """A value in a form that tells 1 from True and from 1.0."""
    if isinstance(value, dict):
        return {key: same(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [same(inner) for inner in value]
    if isinstance(value, float):
        assert math.isfinite(value)
    return (type(value).__name__, repr(value))


@settings(max_examples=400)
@given(texts)
@example("a: 1\na: 2")
@example("{a: 0b11}")
@example("1: x")
@example("- !\n- ! a")
@example("\ufeff\ufeffa: 1")
@example("a: -0x1F")
@example("? [a]\n: b")
@example("[" * 70 + "]" * 70)
def test_fast_and_slow_agree(text: str) -> None:
    assert outcome(yaml.load, text) == outcome(lambda given: yaml.load_with_positions(given)[0], text)


@given(values)
def test_json_is_read_as_json(value: Any) -> None:
    assert same(yaml.load(json.dumps(value, ensure_ascii=False))) == same(value)


@given(values)
def test_every_value_has_a_place_inside_the_text(value: Any) -> None:
    text = ryaml.dumps(value)
    read, positions = yaml.load_with_positions(text)
    count = text.count("\n") + 1

    def visit(part: Any, path: yaml.Path) -> None:
        line, column = positions[path]
        assert 1 <= line <= count
        assert column >= 1
        if isinstance(part, dict):
            for key, inner in part.items():
                visit(inner, (*path, key))
        if isinstance(part, list):
            for index, inner in enumerate(part):
                visit(inner, (*path, index))

    visit(read, ())


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_a_clear_error(data: bytes) -> None:
    try:
        text = yaml.decode(data, file="f")
        yaml.load(text, file="f")
    except UnreadableText as error:
        assert error.fault.file == "f"
        assert error.fault.message


@given(st.lists(st.text(st.sampled_from("ab:\n "), max_size=12), max_size=5))
def test_documents_keep_their_lines(parts: list[str]) -> None:
    text = "\n---\n".join(parts)
    lines = text.split("\n")
    for part, first_line in yaml.split_documents(text):
        for offset, line in enumerate(part.split("\n")):
            assert line in ("", lines[first_line + offset])
