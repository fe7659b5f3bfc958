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
