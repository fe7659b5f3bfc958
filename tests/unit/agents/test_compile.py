"""A revision's digest holds what matters, and nothing of how it was written."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chimera.agents.compile import Bundle, CompiledAgent, compile_definition, document_bytes, read_canonical
from chimera.agents.errors import InvalidDefinition
from chimera.agents.validate import check_data, check_text
from chimera_host.contract.agent import AgentDocument

Make = Callable[..., CompiledAgent]


def test_the_digest_is_the_same_on_any_machine(compiled: Make) -> None:
    # A literal: when it changes, every revision of every installation does, and COMPILER must grow.
    assert compiled().digest == "sha256:ea8e0305d8d2ea1d5272b8b2ac0c35acc63491e1731518bab09f1403a24bbad5"


@pytest.mark.parametrize(
    "changes",
    [
        {"specification": {"resources": {"cpu": "0.25", "memory": "524288Ki", "storage": "1024Mi"}}},
        {"specification": {"runtime": "python:3.11-slim"}},
        {"scaling": {"idle_timeout": "300s", "min_instances": 0}},
        {"capabilities": {"communication_protocols": ["openai", "HTTP", "sse"]}},
        {"behaviour": {}},
        {"owner": None},
        {"model": {"name": "default"}},
    ],
)
def test_what_says_the_same_is_the_same_revision(compiled: Make, changes: dict[str, Any]) -> None:
    assert compiled(**changes).digest == compiled().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"name": "other"}},
        {"metadata": {"version": "1.0.1"}},
        {"metadata": {"description": "Other."}},
        {"metadata": {"tags": ["x"]}},
        {"specification": {"framework": "CrewAI"}},
        {"specification": {"resources": {"cpu": "251m"}}},
        {"capabilities": {"primary_functions": ["Other"]}},
        {"capabilities": {"integration_points": ["models"]}},
        {"capabilities": {"communication_protocols": ["http"]}},
        {"scaling": {"max_instances": 11}},
        {"isolation": "dedicated"},
        {"budget": {"tokens_per_day": 5}},
        {"service_level_objective": {"availability": 0.9}},
        {"tests": [{"name": "t", "input": "i", "expect": {}}]},
        {"owner": {"team": "finance"}},
        {"retirement": {"after": "2030-01-01"}},
        {"model": {"temperature": 0.0}},
    ],
)
def test_what_says_something_else_is_another_revision(compiled: Make, changes: dict[str, Any]) -> None:
    assert compiled(**changes).digest != compiled().digest


def test_layout_does_not_count(least: dict[str, Any]) -> None:
    block = """\
# a comment
capabilities:
  primary_functions: [ "Audit an invoice" ]
specification: {framework: AutoGen}
metadata:
  description: 'Audits invoices.'
  version: 1.0.0
  name: auditor
schema_version: ADaC v2.0
"""
    flow = msgspec.json.encode(least).decode()
    digests = {compile_definition(check_text(text), tenant="default").digest for text in (block, flow)}
    assert len(digests) == 1


def test_tenants_do_not_share_revisions(least: dict[str, Any]) -> None:
    checked = check_data(least)
    assert compile_definition(checked, tenant="a").digest != compile_definition(checked, tenant="b").digest


def test_stored_bytes_come_back(compiled: Make) -> None:
    agent = compiled(behaviour={"autogen": {"kind": "task_execution", "system_message": "x"}})
    value = read_canonical(agent.canonical)
    assert value == agent.value
    document = msgspec.json.decode(document_bytes(value), type=AgentDocument)
    assert document == agent.value.agent
    assert document.concurrency == 100


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph", "function"])
def test_the_missions_fields_alone_give_a_behaviour(compiled: Make, framework: str) -> None:
    functions = ["F" * 500] * 50
    document = compiled(
        metadata={"description": "D" * 19_000},
        specification={"framework": framework},
        capabilities={"primary_functions": functions},
    ).value.agent
    assert getattr(document.behaviour, document.framework) is not None
    again = msgspec.json.decode(msgspec.json.encode(document), type=AgentDocument)  # a host takes it
    assert again == document


def test_derived_behaviour_uses_the_tools(compiled: Make) -> None:
    tools = [{"type": "agent", "name": "search", "agent": "searcher"}]
    for framework in ("AutoGen", "CrewAI", "LangGraph", "function"):
        document = compiled(specification={"framework": framework}, tools=tools).value.agent
        assert b'"tools":["search"]' in msgspec.json.encode(document.behaviour)


def test_tags_are_sorted_by_prefix(compiled: Make) -> None:
    tags = ["b", "integration:x", "domain:b", "a", "capability:z", "domain:a", "b"]
    assert compiled(metadata={"tags": tags}).value.tags == (
        *("capability:z", "domain:a", "domain:b", "integration:x"),
        *("a", "b"),
    )


def test_code_and_its_lock_are_in_the_digest(least: dict[str, Any]) -> None:
    least["specification"] |= {"entrypoint": "agent:factory", "source": "code"}
    checked = check_data(least)
    with pytest.raises(InvalidDefinition, match="source folder"):
        compile_definition(checked, tenant="default")
    one, two = (Bundle(digest=f"sha256:{number * 64}") for number in "12")
    locked = Bundle(digest=one.digest, requirements=two.digest)
    agents = [compile_definition(checked, tenant="default", bundle=bundle) for bundle in (one, two, locked)]
    assert len({agent.digest for agent in agents}) == 3
    source = agents[2].value.agent.source
    assert source is not None
    assert (source.entrypoint, source.bundle, source.requirements) == ("agent:factory", one.digest, two.digest)
