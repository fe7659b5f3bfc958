"""End to end on the bundled model: a definition, a real framework, a real model, an answer nobody wrote down."""

import os

import pytest

NEEDED = ("LOCAL_MODEL", "LANGGRAPH")
missing = [name for name in NEEDED if f"CHIMERA_RUNTIME_{name}_PYTHON" not in os.environ]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (`chimera runtime install`)"),
]

DEFINITION = """
schema_version: "ADaC v2.0"
metadata: {name: geographer, version: "1.0.0", description: Answers questions of geography in one short sentence.}
specification: {framework: LangGraph}
capabilities: {primary_functions: [answer questions of geography]}
model: {temperature: 0, max_tokens: 40}
"""


def test_an_agent_answers(another) -> None:
    platform = another("--model", "local")
    assert platform.where["models"]["default"].startswith("local smollm2")
    platform.ok("apply", "-", text=DEFINITION)
    answer = platform.data("invoke", "geographer", "What is the capital of France?")
    assert "Paris" in answer["output"]
    again = platform.data("invoke", "geographer", "What is the capital of France?", "--no-stream")
    assert again["output"] == answer["output"], "at temperature 0 it says the same"
    assert {"local-model", "gateway"} <= set(platform.pids())
