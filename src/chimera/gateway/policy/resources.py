"""From an operation and the values of its path to the resource that it is about; a pure rule.

Where the path names no thing of the action's kind, the action is done to what would hold it: listing an agent's
sessions is asked of the agent, making a key of the tenant. Without a tenant in the path the default one is meant.
"""

from collections.abc import Callable, Mapping

from chimera.gateway.identity.actions import ACTIONS
from chimera.gateway.policy.model import PLATFORM, AgentFacts, Resource
from chimera.kernel.ids import DEFAULT_TENANT
from chimera.platform.model import Route

FactsOf = Callable[[str, str], AgentFacts | None]
"""What is known of an agent, by tenant and name."""


def resource_of(action: str, values: Mapping[str, str], facts_of: FactsOf) -> Resource:
    """The resource of `action` at a path with `values`."""
    kind = ACTIONS[action].resource
    if kind == "Platform":
        return PLATFORM
    tenant = values.get("tenant", DEFAULT_TENANT)
    agent = values.get("agent")
    if kind == "Tenant":
        return Resource(kind="Tenant", tenant=tenant)
    name = None if kind == "Agent" else values.get(kind.lower())
    if agent is None:
        return Resource(kind="Tenant", tenant=tenant) if name is None else Resource(kind=kind, tenant=tenant, name=name)
    facts = facts_of(tenant, agent)
    if name is None:
        return Resource(kind="Agent", tenant=tenant, agent=agent, facts=facts)
    return Resource(kind=kind, tenant=tenant, agent=agent, facts=facts, name=name)


def agent_resource(tenant: str, agent: str, facts_of: FactsOf) -> Resource:
    """An agent."""
    return Resource(kind="Agent", tenant=tenant, agent=agent, facts=facts_of(tenant, agent))


def facts_of_route(route: Route | None) -> AgentFacts | None:
    """What policies may ask of the agent of `route`."""
    if route is None:
        return None
    return AgentFacts(
        name=route.agent,
        framework=route.framework,
        model=route.model,
        tags=route.tags,
        protocols=route.protocols,
        sequence=route.sequence,
    )
