"""What the tests of definitions start from."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chimera.agents.compile import CompiledAgent, compile_definition
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.merge import merge
from chimera.agents.validate import check_data

LEAST: dict[str, Any] = {
    "schema_version": "ADaC v2.0",
    "metadata": {"name": "auditor", "version": "1.0.0", "description": "Audits invoices."},
    "specification": {"framework": "AutoGen"},
    "capabilities": {"primary_functions": ["Audit an invoice"]},
}


@pytest.fixture
def least() -> dict[str, Any]:
    """The shortest definition, as data."""
    return msgspec.json.decode(msgspec.json.encode(LEAST))


@pytest.fixture
def faults(least: dict[str, Any]) -> Callable[..., list[Fault]]:
    """The faults and warnings of the shortest definition with `changes` laid over it."""

    def find(**changes: Any) -> list[Fault]:
        try:
            return list(check_data(merge(least, changes)).warnings)
        except InvalidDefinition as error:
            return error.faults

    return find


@pytest.fixture
def compiled(least: dict[str, Any]) -> Callable[..., CompiledAgent]:
    """The shortest definition with `changes` laid over it, compiled."""

    def make(**changes: Any) -> CompiledAgent:
        return compile_definition(check_data(merge(least, changes)), tenant="default")

    return make
