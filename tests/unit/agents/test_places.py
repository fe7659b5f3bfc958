"""Faults carry file, line and column, whatever way the definition is read; bad bytes are an error and no traceback."""

import pytest

from chimera.agents import yaml
from chimera.agents.errors import InvalidDefinition, UnreadableText
from chimera.agents.validate import check_text

TEXT = """\
schema_version: "ADaC v2.0"
metadata:
  name: auditor
  version: "1.0.0"
  description: Audits invoices.
  tagz: [x]
specification:
  framework: Autogen
  resources: {cpu: "250m", memory: 12}
capabilities:
  primary_functions:
    - Audit
    - ""
"""


def found(text: str, **more: int) -> list[tuple[int | None, int | None, str]]:
    with pytest.raises(InvalidDefinition) as caught:
        check_text(text, file="a.yaml", **more)
    assert all(fault.file == "a.yaml" for fault in caught.value.faults)
    return [(fault.line, fault.column, fault.path) for fault in caught.value.faults]


def test_every_fault_has_its_place_in_the_order_of_the_text() -> None:
    assert found(TEXT) == [
        (6, 3, "metadata.tagz"),
        (8, 3, "specification.framework"),
        (9, 28, "specification.resources.memory"),
        (13, 7, "capabilities.primary_functions[1]"),
    ]


def test_lines_before_a_document_count() -> None:
    assert found(TEXT, first_line=100)[0] == (106, 3, "metadata.tagz")


def test_a_missing_field_is_told_at_its_mapping() -> None:
    text = TEXT.replace("  name: auditor\n", "")
    assert (2, 1, "metadata") in found(text)


def test_a_field_of_the_template_is_told_at_the_nearest_line_of_the_file() -> None:
    text = """\
schema_version: "ADaC v2.0"
metadata: {name: a, version: "1.0.0", description: d}
capabilities: {primary_functions: [f]}
extends: crew-research
behaviour:
  crewai:
    members: [{name: other, role: r, goal: g, backstory: b}]
"""
    lines = found(text)
    assert {line for line, _, _ in lines} == {6}
    assert all(path.startswith("behaviour.crewai.tasks") for _, _, path in lines)


def test_an_error_reads_as_a_compiler_would_say_it() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        check_text(TEXT, file="a.yaml")
    assert str(caught.value.faults[1]) == (
        'a.yaml:8:3: specification.framework: "Autogen" is not allowed; '
        "allowed: AutoGen, CrewAI, LangGraph, function; did you mean 'AutoGen'?"
    )
    problem = caught.value.problem()
    assert (problem.status, problem.code, len(problem.errors)) == (422, "invalid-definition", 4)


@pytest.mark.parametrize("data", ["[]", "x", "3", "", "null", "# nothing"])
def test_what_is_no_mapping_is_no_definition(data: str) -> None:
    assert found(data)


@pytest.mark.parametrize(
    ("data", "words", "line"),
    [
        (b"a: \xff", "not UTF-8", 1),
        (b"a: b\nc: d\x00", "NUL", 2),
        ("a: ü".encode("utf-16"), "not UTF-8", 1),
        (b"x" * (yaml.MAX_BYTES + 1), "too many", None),
    ],
)
def test_bytes_that_are_no_text(data: bytes, words: str, line: int | None) -> None:
    with pytest.raises(UnreadableText, match=words) as caught:
        yaml.decode(data, file="a.yaml")
    assert caught.value.fault.line == line


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("a: 1\na: 2", "stands twice", (2, 1)),
        ("a:\n\tb: 1", "tab", (2, 1)),
        ("a: [1, 2", "did not find", (2, 1)),
        ("a: !!python/object:os.system x", "tag", (1, 4)),
        ("a: *x", "no anchor", (1, 4)),
        ("a: &x [*x]", "holds itself", (1, 8)),
        ("<<: {a: 1}", "merge keys", (1, 1)),
        ("1: x", "not text", (1, 1)),
        ("? [a]\n: b", "list or a mapping", (1, 3)),
        ("a: 1\n---\nb: 2", "second document", (2, 1)),
        ("a: 99999999999999999999", "64 bits", (1, 4)),
        ("a: .inf", "no number", (1, 4)),
        ("a: 1e999", "too large", (1, 4)),
        ('a: "\\0"', "NUL", (1, 4)),
        ("a: \x01", "not allowed", (1, 4)),
    ],
)
def test_text_that_is_no_definition(text: str, words: str, place: tuple[int, int]) -> None:
    with pytest.raises(UnreadableText, match=words) as caught:
        yaml.load(text, file="a.yaml")
    assert (caught.value.fault.line, caught.value.fault.column) == place


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000,
        "{a: " * 200_000,
        "- " * 400_000,
        "\n".join(" " * depth + "a:" for depth in range(1_400)),
        "a: &a [" + "x," * 50 + "]\n" + "".join(f"b{n}: &b{n} [{'*a,' * 30}]\n" for n in range(100)),
        "&a [" * 40_000,
    ],
    ids=["brackets", "braces", "dashes", "indents", "anchors", "anchored"],
)
def test_texts_that_explode_are_refused(text: str) -> None:
    with pytest.raises(UnreadableText, match=r"deeply|too many"):
        yaml.load(text)


def test_anchors_within_bounds_are_taken() -> None:
    assert yaml.load("a: &x [1, {b: 2}]\nc: *x") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


def test_documents_of_a_stream() -> None:
    text = "%YAML 1.2\n---\na: 1\n--- {b: 2}\n---\n# nothing\n---\nc: |\n  ---\n  x\n"
    assert [(yaml.load(part), line) for part, line in yaml.split_documents(text)] == [
        ({"a": 1}, 1),
        ({"b": 2}, 3),
        ({"c": "---\nx\n"}, 6),
    ]
