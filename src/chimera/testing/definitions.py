"""Definitions for tests and benchmarks: small, valid, and as many as are wanted."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from chimera.agents.catalogue import StagedItem
from chimera.agents.compile import CompiledAgent, compile_definition
from chimera.agents.merge import merge
from chimera.agents.validate import check_data

FRAMEWORKS = ("AutoGen", "CrewAI", "LangGraph", "function")

FULL: dict[str, Any] = {
    "schema_version": "ADaC v2.0",
    "metadata": {"name": "auditor", "version": "1.0.0", "description": "Audits.", "tags": ["domain:tax"]},
    "specification": {
        "framework": "LangGraph",
        "runtime": "python:3.11-slim",
        "resources": {"cpu": "250m", "memory": "512Mi", "storage": "1Gi"},
        "source": "code",
    },
    "capabilities": {
        "primary_functions": ["Audit"],
        "integration_points": ["service:models", "service:agents", "tool:search", "tool:files", "tool:read"],
        "communication_protocols": ["http", "events"],
    },
    "subscriptions": [{"name": "failures", "types": ["task.failed"], "data": {"state": "failed"}, "input": "{data}"}],
    "scaling": {"min_instances": 0, "max_instances": 5, "concurrency_target": 10, "idle_timeout": "5m"},
    "isolation": "dedicated",
    "model": {"name": "small", "temperature": 0.5, "max_tokens": 100, "seed": 1},
    "budget": {"tokens_per_day": 1000, "usd_per_day": 1.5},
    "service_level_objective": {"availability": 0.99, "latency_p95": "2s"},
    "tests": [{"name": "one", "input": "hi", "expect": {"contains": ["x"], "json_schema": {"type": "object"}}}],
    "data_class": "confidential",
    "owner": {"team": "finance", "contact": "finance@example.org"},
    "retirement": {"after": "2030-01-01", "replaced_by": "other"},
    "behaviour": {
        "langgraph": {
            "start": ["look"],
            "nodes": [
                {"type": "tool", "name": "look", "tool": "search", "arguments": {"q": "{input}"}, "next": ["choose"]},
                {"type": "branch", "name": "choose", "cases": [{"to": "say", "longer_than": 3}], "otherwise": "say"},
                {"type": "prompt", "name": "say", "prompt": "{look}", "on_error": "agent"},
                {"type": "agent", "name": "agent", "system_message": "s", "tools": ["read"]},
            ],
        }
    },
    "tools": [
        {"type": "agent", "name": "search", "agent": "searcher", "limits": {"deadline_seconds": 10.0}},
        {"type": "mcp", "name": "files", "allow": ["read"], "url": "https://x", "credentials": {"K": "secret:A"}},
        {"type": "function", "name": "read", "function": "m:f", "parameters": {"type": "object"}},
    ],
}
"""A definition with every section. Nothing changes it."""


def definition(name: str, **changes: Any) -> dict[str, Any]:
    """The mission's fields alone, with `changes` laid over them."""
    least = {
        "schema_version": "ADaC v2.0",
        "metadata": {"name": name, "version": "1.0.0", "description": f"Knows everything about {name}."},
        "specification": {"framework": "AutoGen"},
        "capabilities": {"primary_functions": [f"Answer questions about {name}"]},
    }
    return merge(least, changes)


def fleet(count: int, *, prefix: str = "agent") -> Iterator[dict[str, Any]]:
    """`count` definitions, the frameworks taking turns."""
    for number in range(count):
        framework = FRAMEWORKS[number % len(FRAMEWORKS)]
        yield definition(f"{prefix}-{number:05d}", specification={"framework": framework})


def compiled(name: str, *, tenant: str = "default", **changes: Any) -> CompiledAgent:
    """A definition as a revision."""
    return compile_definition(check_data(definition(name, **changes)), tenant=tenant)


def staged(*agents: CompiledAgent) -> list[StagedItem]:
    """Revisions as the items of a batch; a source is named by the content."""
    return [
        StagedItem(
            position=position,
            source=hashlib.sha256(agent.canonical).hexdigest(),
            file=f"{agent.value.agent.name}.yaml",
            compiled=agent,
        )
        for position, agent in enumerate(agents)
    ]


def refused(position: int, message: str = "not valid") -> StagedItem:
    """A faulty item of a batch."""
    return StagedItem(
        position=position, source="f" * 64, file="faulty.yaml", problem=msgspec.json.encode([{"message": message}])
    )
