"""Code that a definition names is looked for in its source folder."""

from typing import Any

import pytest

from chimera.agents.code import missing_code
from chimera.agents.errors import InvalidDefinition
from chimera.agents.validate import check_data, check_text

FILES = (
    *("agent.py", "package/__init__.py", "package/inner.py", "side.mjs", "lib/index.js"),
    *("package/fast.cpython-311-x86_64-linux-gnu.so", "notes.txt"),
)
TEXT = """schema_version: "ADaC v2.0"
metadata: {name: coder, version: "1.0.0", description: Runs code.}
specification:
  framework: function
  source: code
  entrypoint: agnet:make
capabilities: {primary_functions: [run]}
"""


@pytest.mark.parametrize(
    ("code", "python", "node"),
    [
        ("agent:make", True, False),
        ("package:make", True, False),
        ("package.inner:make", True, False),
        ("side:make", False, True),
        ("lib:make", False, True),
        ("side.mjs:make", False, True),
        ("lib/index.js:make", False, True),
        ("lib/index:make", False, True),
        ("agent.py:make", False, False),
        ("package/inner:make", False, False),
        ("package.fast:make", True, False),
        ("notes.txt:make", False, False),
        ("notes:make", False, False),
        ("agnet:make", False, False),
        ("package.other:make", False, False),
    ],
)
def test_a_module_counts_for_the_language_that_reads_it(least: dict[str, Any], code: str, python: bool, node: bool):
    for runtime, there in (("python:3.11-slim", python), ("node:18-alpine", node)):
        specification = {"framework": "function", "entrypoint": code, "source": "code", "runtime": runtime}
        definition = check_data({**least, "specification": specification}).definition
        assert [fault.path for fault in missing_code(definition, FILES)] == (
            [] if there else ["specification.entrypoint"]
        )


@pytest.mark.parametrize(
    ("code", "there"), [("agent:make", True), ("side:make", True), ("typed:make", True), ("agnet:make", False)]
)
def test_a_custom_image_may_run_either_language(least: dict[str, Any], code: str, there: bool):
    specification = {
        "framework": "function",
        "entrypoint": code,
        "source": "code",
        "runtime": "registry.example/mine:1",
    }
    definition = check_data({**least, "specification": specification}).definition
    assert bool(list(missing_code(definition, (*FILES, "typed.ts")))) is not there


def test_typescript_counts_for_node_alone(least: dict[str, Any]):
    for runtime, there in (("python:3.11-slim", False), ("node:18-alpine", True)):
        specification = {"framework": "function", "entrypoint": "typed:make", "source": "code", "runtime": runtime}
        definition = check_data({**least, "specification": specification}).definition
        assert bool(list(missing_code(definition, ("typed.ts", "index.mts")))) is not there


def test_a_tool_whose_module_is_not_there(least: dict[str, Any]):
    least["specification"] = {"framework": "function", "source": "code"}
    least["tools"] = [{"type": "function", "name": "price", "function": "shop:price_of", "description": "d"}]
    (fault,) = missing_code(check_data(least).definition, ("notes.txt",))
    assert fault.path == "tools[0].function" and fault.allowed == "a file shop.py"


def test_the_fault_has_a_place_and_a_suggestion():
    assert check_text(TEXT)
    with pytest.raises(InvalidDefinition) as refused:
        check_text(TEXT, file="a.yaml", first_line=10, files=FILES)
    (fault,) = refused.value.faults
    assert (fault.file, fault.line, fault.column) == ("a.yaml", 16, 3)
    assert fault.suggestion == "agent:make" and "agent" in fault.allowed
