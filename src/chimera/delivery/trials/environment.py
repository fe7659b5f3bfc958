"""What an environment holds: revisions as production's, but for what would reach out of it by itself.

An environment is a tenant that the platform makes. Its agents are compiled for it and committed as any are, so cells,
hosts, routes, budgets, sessions and memory are its own by the same walls that part tenants. No event starts its agents
and none of them is kept warm; the rate of calls is not limited, since a test asks faster than callers do. Where tools
are `scripted`, no host runs or connects to one.
"""

import hashlib

import msgspec
from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition, CompiledAgent, compiled_of
from chimera.delivery.trials.model import Tools
from chimera.kernel.ids import ENVIRONMENT
from chimera_host.contract.tools import AgentTool, MessageTool


class Environment(Struct, frozen=True, kw_only=True):
    """One environment: `name` is its tenant, `tenant` whose agents are tested there, `purpose` and `key` for what."""

    name: str
    tenant: str
    purpose: str
    key: str
    created: float
    expires: float
    closed: float | None = None


def name_of(tenant: str, purpose: str, key: str) -> str:
    """The environment of a tenant for a purpose: whoever asks again for the same finds it."""
    digest = hashlib.sha256("\0".join((tenant, purpose, key)).encode()).hexdigest()
    return f"{ENVIRONMENT}{digest[:16]}"


def compiled_for(value: CanonicalDefinition, environment: str, tools: Tools) -> CompiledAgent:
    """The revision that stands for `value` there."""
    agent = msgspec.structs.replace(value.agent, tenant=environment, scripted=tools == "scripted")
    return compiled_of(
        msgspec.structs.replace(
            value,
            agent=agent,
            protocols=tuple(sorted({*value.protocols, "http"})),
            min_instances=0,
            calls_per_minute=None,
            subscriptions=(),
            tests=(),
            retirement=None,
        )
    )


def reached(value: CanonicalDefinition) -> frozenset[str]:
    """The agents that an agent may call or write to."""
    return frozenset(tool.agent for tool in value.agent.tools if isinstance(tool, AgentTool | MessageTool))
