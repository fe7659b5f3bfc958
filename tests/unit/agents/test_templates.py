"""Every template makes a definition that compiles and speaks of its agent; the schema for editors bears it."""

from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest

from chimera.agents.compile import CompiledAgent, compile_definition
from chimera.agents.errors import InvalidDefinition
from chimera.agents.schema import definition_schema
from chimera.agents.template_library import template_names
from chimera.agents.validate import check_data

KINDS = {"autogen": ("autogen", 3), "crew": ("crewai", 3), "workflow": ("langgraph", 3)}


def short(name: str) -> dict[str, Any]:
    return {
        "schema_version": "ADaC v2.0",
        "metadata": {"name": "tax", "version": "1.0.0", "description": "Knows tax law."},
        "capabilities": {"primary_functions": ["Explain a rule"]},
        "extends": name,
    }


def test_the_nine_are_there() -> None:
    for prefix, (_, count) in KINDS.items():
        assert sum(name.startswith(f"{prefix}-") for name in template_names()) == count
    assert len(template_names()) == 9


@pytest.mark.parametrize("name", template_names())
def test_a_template_compiles_without_a_warning(name: str) -> None:
    agent = compile_definition(check_data(short(name)), tenant="default")
    framework = KINDS[name.partition("-")[0]][0]
    assert agent.value.agent.framework == framework
    assert getattr(agent.value.agent.behaviour, framework) is not None
    assert not agent.warnings
    text = agent.canonical.decode()
    assert "Knows tax law." in text
    assert "{description}" not in text
    assert "{functions}" not in text
    assert text.count("Explain a rule") > 1  # in the capabilities, and in what the agent is told


@pytest.mark.parametrize("name", template_names())
def test_the_schema_for_editors_takes_a_file_without_a_framework(name: str) -> None:
    validator = jsonschema_rs.Draft202012Validator(definition_schema())
    assert validator.is_valid(short(name))
    assert not validator.is_valid({key: value for key, value in short(name).items() if key != "extends"})


def test_the_definitions_side_wins() -> None:
    data = short("autogen-coordination") | {"behaviour": {"autogen": {"max_rounds": 9}}}
    autogen = compile_definition(check_data(data), tenant="default").value.agent.behaviour.autogen
    assert autogen is not None
    assert autogen.max_rounds == 9
    assert len(autogen.participants) == 3


def test_an_unknown_template_is_told_with_the_nearest() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        check_data(short("crew-reserch"))
    assert caught.value.faults[0].suggestion == "crew-research"
    assert caught.value.faults[0].path == "extends"


def test_a_template_and_its_text_written_out_are_the_same_revision(compiled: Callable[..., CompiledAgent]) -> None:
    by_template = compile_definition(check_data(short("autogen-task-execution")), tenant="default")
    autogen = by_template.value.agent.behaviour.autogen
    assert autogen is not None
    written = short("x") | {
        "extends": None,
        "specification": {"framework": "AutoGen"},
        "behaviour": {
            "autogen": {
                "kind": autogen.kind,
                "max_rounds": autogen.max_rounds,
                "system_message": autogen.system_message,
            }
        },
    }
    assert compile_definition(check_data(written), tenant="default").digest == by_template.digest
