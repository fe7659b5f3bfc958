"""Every template, and a definition with the mission's fields alone, runs in a real host of its framework."""

import importlib.util
import os
import shutil
from typing import Any

import pytest

from chimera.agents.compile import compile_definition
from chimera.agents.template_library import template_names
from chimera.agents.validate import check_data
from chimera_host.contract.agent import AgentDocument
from chimera_host.testing.builders import invoke_request
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostProcess


def compiled(**more: Any) -> AgentDocument:
    data: dict[str, Any] = {
        "schema_version": "ADaC v2.0",
        "metadata": {"name": "tax", "version": "1.0.0", "description": "Knows tax law."},
        "capabilities": {"primary_functions": ["Explain a rule"]},
    }
    return compile_definition(check_data(data | more), tenant="default").value.agent


def runtime(framework: str) -> str | None:
    """The Python of the framework's environment; None for this one, which runs functions."""
    if framework == "function":
        return None
    if importlib.util.find_spec(f"chimera_host.frameworks.{framework}") is None:
        pytest.skip(f"the host has no adapter of {framework}")
    variable = f"CHIMERA_RUNTIME_{framework.upper()}_PYTHON"
    path = os.environ.get(variable)
    if path is None or shutil.which(path) is None:
        pytest.skip(
            f"no environment of {framework}: set {variable} to its python (chimera runtime install {framework})"
        )
    return path


async def answer(document: AgentDocument) -> tuple[str, int]:
    python = runtime(document.framework)
    async with FakePlatform() as platform:
        fields = {"python": python} if python else {}
        async with HostProcess(platform, document.framework, **fields) as host:
            got = await host.invoke(invoke_request(document, platform.add(document), "May I deduct a desk?"))
            return got.output, got.model_calls


CALLS = {
    "autogen-conversational": 1,
    "autogen-coordination": 3,
    "autogen-task-execution": 1,
    "workflow-conditional": 1,
    "workflow-parallel": 4,
    "workflow-sequential": 3,
}


@pytest.mark.parametrize("name", template_names())
async def test_a_template_runs(name: str) -> None:
    output, calls = await answer(compiled(extends=name))
    assert output.strip()
    assert calls == CALLS[name] if name in CALLS else calls >= 3


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph", "function"])
async def test_the_missions_fields_alone_run(framework: str) -> None:
    output, calls = await answer(compiled(specification={"framework": framework}))
    assert output.strip()
    assert calls >= 1
