"""Definitions as JAEGIS gets them: compiled."""

from collections.abc import Callable
from typing import Any

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.ecosystem import Ecosystem, member_of
from chimera.testing.definitions import compiled

GOOD: dict[str, Any] = {
    "metadata": {
        "description": "Compares a supplier's invoice with its order and names every difference in amount, tax or "
        "quantity. Use it when an invoice arrives, before it is paid.",
        "tags": ["capability:audit", "domain:finance"],
    },
    "capabilities": {
        "primary_functions": ["Compare an invoice with its order", "Explain a difference in an amount"],
        "integration_points": ["service:models"],
    },
    "budget": {"tokens_per_day": 100_000},
    "scaling": {"calls_per_minute": 60},
    "service_level_objective": {"availability": 0.995, "latency_p95": "20s"},
    "tests": [
        {"name": "equal", "input": "Invoice 10, order 10", "expect": {"contains": ["no difference"]}},
        {"name": "more", "input": "Invoice 12, order 10", "expect": {"contains": ["2"]}},
        {"name": "nothing", "input": "Hello", "expect": {"rubric": "Asks for the invoice and the order."}},
    ],
    "owner": {"team": "finance", "contact": "finance@example.org"},
}
"""What meets every criterion, laid over a name."""


@pytest.fixture
def good() -> CompiledAgent:
    """A definition that meets every criterion."""
    return compiled("invoice-auditor", **GOOD)


@pytest.fixture
def ecosystem() -> Callable[..., Ecosystem]:
    """The live agents, from compiled definitions; `owners` by name."""

    def made(*agents: CompiledAgent, owners: dict[str, str] | None = None) -> Ecosystem:
        members = [member_of(one.value, one.digest, (owners or {}).get(one.value.agent.name)) for one in agents]
        return Ecosystem({one.name: one for one in members})

    return made
